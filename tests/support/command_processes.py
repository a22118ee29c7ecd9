"""Real processes of the command line: start, stop, output."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
# Kills a process that hangs. Far longer than a module of tests that share a server, which takes a
# minute, and four on a slow machine.
TIMEOUT_S = 900.0
ENVIRONMENT = {
    **os.environ,
    "PYTHONWARNINGS": "error::ResourceWarning",
    "COLUMNS": "140",
    "CASHIER_TOKEN_SECRET": "t" * 32,
}


class Command:
    """A process of `python -m cashier …`. It is killed after `TIMEOUT_S`, because a test may hang.

    Unless `waits`: until `watch` is called.
    """

    def __init__(self, *words: str, waits: bool = False) -> None:
        self._log = tempfile.NamedTemporaryFile("w+")  # noqa: SIM115 - closed after the process; read before
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cashier", *words],
            cwd=ROOT,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            start_new_session=True,
        )
        self._watchdog = threading.Timer(TIMEOUT_S, self.kill)
        self._watchdog.daemon = True  # an interpreter that ends does not wait for it
        if not waits:
            self.watch()
        self.printed = ""
        self._ended: tuple[int, str, str] | None = None

    def watch(self) -> None:
        self._watchdog.start()

    def address(self, label: str) -> str:
        """Read output until a line has `label` and an address after it."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.printed += line
            if match := re.search(rf"{label} (http://\S+)", line):
                return match[1]
        raise AssertionError(f"no {label} in {self.printed!r}; {self.logged()}")

    def logged(self) -> str:
        """Standard error up to now."""
        return Path(self._log.name).read_text("utf-8")

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        """Send the signal and wait. Exit status, standard output, standard error."""
        self.process.send_signal(number)
        return self.wait()

    def kill(self) -> None:
        """Kill the process and its children."""
        kill_group(self.process.pid)

    def wait(self) -> tuple[int, str, str]:
        if self._ended is None:
            out, _ = self.process.communicate()
            self._watchdog.cancel()
            self._ended = (self.process.returncode, self.printed + out, self.logged())
            self._log.close()
        return self._ended


def kill_group(leader: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def eventually(condition: Callable[[], bool], message: str) -> None:
    """Poll until the condition holds, for at most a minute: another process sets no event."""
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until, message
        time.sleep(0.02)


@contextmanager
def running(*words: str) -> Iterator[Command]:
    command = Command(*words)
    try:
        yield command
    finally:
        command.kill()
        command.wait()


# No mechanism learns, so that the weather of one test does not affect the next.
UNGUARDED = "cache = false\nhedge = false\nretry = false\nbreaker = false\nlimiter = false\nadaptive_timeout = false\n"


def configured(directory: Path, sandbox: str, each_source: str = UNGUARDED) -> Path:
    """Write the example configuration for this sandbox, on a free port, with timeouts for a busy
    machine.

    `each_source`: further keys of every source of a consultation.
    """
    text = (ROOT / "config/cashier.toml").read_text()
    text = text.replace("port = 8080", "port = 0").replace("shutdown_delay_s = 5", "shutdown_delay_s = 0")
    # Without the grace, marketing would be left out that answers 15 ms after the others.
    for key, usual, patient in (("deadline", 150, 2500), ("max_deadline", 1000, 2500), ("grace", 15, 2400)):
        text = text.replace(f"\n{key}_ms = {usual} ", f"\n{key}_ms = {patient} ")
    text = re.sub(r"^timeout_ms = \d+\n", "", text, flags=re.MULTILINE)
    sources, heading, services = text.partition("\n[sources.risk]\n")
    sources = sources.replace('url = "http://127.0.0.1:9100"', f'url = "{sandbox}"\ntimeout_ms = 2490\n{each_source}')
    text = sources + heading + services.replace("http://127.0.0.1:9100", sandbox)
    text = text.replace("[shed]\nenabled = true", "[shed]\nenabled = false")
    path = directory / "config" / "cashier.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path
