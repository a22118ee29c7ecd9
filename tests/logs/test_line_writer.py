"""The thread that writes log lines: a slow or broken reader of the log stops nobody."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from cashier.logs.line_writer import MOST_LINES, PIPE_BYTES, LineWriter

_LONGEST_S = 60
_RAISES_AT_THE_END = """
from cashier.logs import configure_logs
from cashier.logs.standard_library import log_uncaught

class Late:
    def __del__(self):
        raise ValueError

configure_logs()
log_uncaught()
late = Late()
"""


class Pipe:
    """A pipe with room for one page."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._line_writers: list[LineWriter] = []

    def line_writer(self) -> LineWriter:
        self._line_writers.append(LineWriter(self.writer, lost))
        return self._line_writers[-1]

    def read_until(self, end: str) -> list[str]:
        """The complete lines up to one that ends so."""
        text = ""
        while not text.endswith(end + "\n"):
            text += os.read(self.reader, 65_536).decode()
        return text.splitlines()

    def close(self) -> None:
        """The threads write no more once this returns: the numbers of the files are used again."""
        with suppress(OSError):
            os.close(self.reader)
        for line_writer in self._line_writers:
            line_writer.flush(_LONGEST_S)
        with suppress(OSError):
            os.close(self.writer)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


def lost(count: int) -> str:
    return f"lost {count}"


def test_lines_come_out_whole_and_in_order(pipe: Pipe) -> None:
    writer = pipe.line_writer()
    lines = [f"{number} {'x' * (number % 500)}" for number in range(1_000)]
    for line in lines:
        writer.write(line)
    assert pipe.read_until(lines[-1]) == lines


def test_a_reader_that_does_not_read_delays_no_writer(pipe: Pipe) -> None:
    writer = pipe.line_writer()
    longest_s = 0.0
    for number in range(3 * MOST_LINES):
        before_s = time.monotonic()
        writer.write(f"{number} {'x' * 100}")
        longest_s = max(longest_s, time.monotonic() - before_s)
    # Far less than an endless wait, on a busy machine too.
    assert longest_s < 10.0
    assert writer.lost >= MOST_LINES


def test_the_log_has_each_line_or_counts_it_as_lost(pipe: Pipe) -> None:
    writer = pipe.line_writer()
    for number in range(2 * MOST_LINES):
        writer.write(f"{number:100}")
    assert writer.lost
    received: list[str] = []
    reader = threading.Thread(target=lambda: received.extend(pipe.read_until("end")))
    reader.start()
    writer.flush(_LONGEST_S)
    writer.write("end")
    reader.join(_LONGEST_S)
    reports = [line for line in received if line.startswith("lost ")]
    assert sum(int(line.removeprefix("lost ")) for line in reports) == writer.lost
    assert len(received) - len(reports) - 1 + writer.lost == 2 * MOST_LINES


def test_a_line_that_cannot_be_written_is_counted_and_reported_with_the_next(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = threading.Event()
    full.set()
    write = os.write

    def write_unless_full(descriptor: int, data: bytes) -> int:
        if full.is_set() and descriptor == pipe.writer:
            raise OSError(28, "No space left on device")
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", write_unless_full)
    writer = pipe.line_writer()
    for number in range(3):
        writer.write(str(number))
    writer.flush(_LONGEST_S)
    assert writer.lost == 3
    full.clear()
    writer.write("space")
    assert pipe.read_until("space") == ["lost 3", "space"]


def test_a_line_that_was_cut_does_not_mix_with_the_next(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    write, writes = os.write, iter((3, 0))

    def write_a_part(descriptor: int, data: bytes) -> int:
        if descriptor != pipe.writer:
            return write(descriptor, data)
        part = next(writes, len(data))
        if not part:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[:part])

    monkeypatch.setattr(os, "write", write_a_part)
    writer = pipe.line_writer()
    writer.write("one line")
    writer.flush(_LONGEST_S)
    writer.write("end")
    assert pipe.read_until("end") == ["one", "lost 1", "end"]


@pytest.mark.parametrize("close", ["reader", "writer"])
def test_a_closed_standard_error_raises_nothing(pipe: Pipe, close: str) -> None:
    os.close(getattr(pipe, close))
    writer = pipe.line_writer()
    writer.write("line")
    writer.flush(_LONGEST_S)
    assert writer.lost == 1


def test_a_full_disk_raises_nothing() -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    try:
        writer = LineWriter(descriptor, lost)
        writer.write("line")
        writer.flush(_LONGEST_S)
        assert writer.lost == 1
    finally:
        os.close(descriptor)


def test_a_file_that_another_program_made_non_blocking_loses_nothing(pipe: Pipe) -> None:
    os.set_blocking(pipe.writer, False)
    writer = pipe.line_writer()
    lines = [f"{number} {'x' * 200}" for number in range(1_000)]
    for line in lines:
        writer.write(line)
    assert pipe.read_until(lines[-1]) == lines


def test_the_end_of_the_process_waits_for_the_last_lines(tmp_path: Path) -> None:
    path = tmp_path / "log"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        writer = LineWriter(descriptor, lost)
        for number in range(100):
            writer.write(str(number))
        writer.flush(_LONGEST_S)
        assert path.read_text().splitlines() == [str(number) for number in range(100)]
    finally:
        os.close(descriptor)


def test_the_end_of_the_process_does_not_wait_for_a_reader_that_never_reads(pipe: Pipe) -> None:
    writer = pipe.line_writer()
    for _ in range(100):
        writer.write("x" * 200)
    before_s = time.monotonic()
    writer.flush(0.01)
    assert time.monotonic() - before_s < _LONGEST_S


def test_text_that_is_no_unicode_is_written(pipe: Pipe) -> None:
    writer = pipe.line_writer()
    writer.write("\udcff")
    assert pipe.read_until("") == ["\\udcff"]


@pytest.mark.processes
def test_a_first_line_while_the_interpreter_ends_does_not_hold_up_the_end() -> None:
    """A thread that is started then never runs, and a worker that waits for it stops no service."""
    subprocess.run([sys.executable, "-c", _RAISES_AT_THE_END], check=True, timeout=_LONGEST_S)
