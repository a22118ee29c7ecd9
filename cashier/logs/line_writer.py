"""Writes log lines in a thread of its own, so that a slow reader of the log stops no request.

A full pipe blocks its writer until the reader reads. Beyond a bound lines are lost and counted,
and the next line that can be written says how many: a service with holes in its log serves, one
that waits for its log does not.
"""

from __future__ import annotations

import atexit
import os
import select
import sys
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

MOST_LINES = 4_000
# What the kernel writes to a pipe as one piece: longer writes of two processes may mix.
PIPE_BYTES = 4096
# At the end of the process: how long the last lines may take.
FLUSH_S = 1.0


class LineWriter:
    """Takes lines from any thread. `lost_lines`: the line that reports this number of lost ones."""

    def __init__(self, descriptor: int, lost_lines: Callable[[int], str]) -> None:
        self._descriptor = descriptor
        self._lost_lines = lost_lines
        self._lines: SimpleQueue[bytes | threading.Event] = SimpleQueue()
        self._thread: threading.Thread | None = None
        # Each has one writer, or loses a count at worst: lines that were not queued, those that
        # were not written, and those that were reported.
        self._refused = self._unwritten = self._reported = 0
        self._cut = False

    def __repr__(self) -> str:
        return f"<LineWriter waiting={self._lines.qsize()} lost={self.lost}>"

    @property
    def lost(self) -> int:
        return self._refused + self._unwritten

    def write(self, line: str) -> None:
        """Never blocks, and raises nothing."""
        if self._lines.qsize() >= MOST_LINES:
            self._refused += 1
            return
        self._lines.put(line.encode("utf-8", "backslashreplace") + b"\n")
        if self._thread is None:
            self._start()

    def flush(self, timeout_s: float = FLUSH_S) -> None:
        """Wait until what was written so far is out, for at most `timeout_s`."""
        if self._thread is not None and self._thread.is_alive():
            done = threading.Event()
            self._lines.put(done)
            done.wait(timeout_s)

    def _start(self) -> None:
        if sys.is_finalizing():  # a thread would not run, and its start waits until it does
            return
        thread = threading.Thread(target=self._run, name="cashier-log", daemon=True)
        try:
            thread.start()
            atexit.register(self.flush)
        except RuntimeError:  # no thread is left
            return
        self._thread = thread

    def _run(self) -> None:
        while True:
            self._write_all(self._lines.get())

    def _write_all(self, item: bytes | threading.Event) -> None:
        """Write `item` and what has come meanwhile, in pieces that the kernel does not mix."""
        piece: list[bytes] = []
        while True:
            if isinstance(item, threading.Event):
                self._write_piece(piece)
                piece = []
                item.set()
            else:
                if piece and sum(map(len, piece)) + len(item) > PIPE_BYTES:
                    self._write_piece(piece)
                    piece = []
                piece.append(item)
            try:
                item = self._lines.get_nowait()
            except Empty:
                self._write_piece(piece)
                return

    def _write_piece(self, lines: list[bytes]) -> None:
        if not lines:
            return
        lost = self.lost - self._reported
        if lost and self._put(self._lost_lines(lost).encode() + b"\n"):
            self._reported += lost
        if not self._put(b"".join(lines)):
            self._unwritten += len(lines)

    def _put(self, data: bytes) -> bool:
        """Whether all of it was written. A broken file is tried again with the next lines."""
        if self._cut:
            data = b"\n" + data
        whole = len(data)
        try:
            while data:
                try:
                    data = data[os.write(self._descriptor, data) :]
                except BlockingIOError:  # another program made the shared file non-blocking
                    poll = select.poll()
                    poll.register(self._descriptor, select.POLLOUT)
                    poll.poll()
        except OSError:  # no reader, no space
            self._cut = self._cut if len(data) == whole else True
            return False
        self._cut = False
        return True


_writers: dict[int, LineWriter] = {}


def line_writer(descriptor: int, lost_lines: Callable[[int], str]) -> LineWriter:
    """One for each file, so that a process that configures its logs twice keeps their order."""
    return _writers.setdefault(descriptor, LineWriter(descriptor, lost_lines))


def flush_lines() -> None:
    """Before an end that runs no exit handlers, such as by a signal."""
    for writer in _writers.values():
        writer.flush()
