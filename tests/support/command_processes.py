"""Real processes of the command line, started and stopped, and what they printed."""

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
# For a process that hangs; servers that many tests share live as long as they do.
PATIENCE_S = 280.0
ENVIRONMENT = {
    **os.environ,
    "PYTHONWARNINGS": "error::ResourceWarning",
    "COLUMNS": "140",
    "CASHIER_TOKEN_SECRET": "t" * 32,
}


class Command:
    """A process of `python -m cashier …`."""

    def __init__(self, *words: str) -> None:
        self._log = tempfile.NamedTemporaryFile("w+")  # noqa: SIM115 - closed when the process has ended; a file can be looked into before
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cashier", *words],
            cwd=ROOT,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            start_new_session=True,
        )
        self._watchdog = threading.Timer(PATIENCE_S, self.kill)
        self._watchdog.start()
        self.printed = ""
        self._ended: tuple[int, str, str] | None = None

    def address(self, what: str) -> str:
        """Reads on until a line has `what` and an address behind it."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.printed += line
            if found := re.search(rf"{what} (http://\S+)", line):
                return found[1]
        raise AssertionError(f"no {what} in {self.printed!r}; {self.logged()}")

    def logged(self) -> str:
        """What it has written to standard error so far."""
        return Path(self._log.name).read_text("utf-8")

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        """Exit status, and all that it printed."""
        self.process.send_signal(number)
        return self.wait()

    def kill(self) -> None:
        """With all that it has started."""
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


def eventually(true: Callable[[], bool], what: str) -> None:
    """Within a generous while, by looking again and again: there is no event that another process could set."""
    until = time.monotonic() + 60
    while not true():
        assert time.monotonic() < until, what
        time.sleep(0.02)


@contextmanager
def running(*words: str) -> Iterator[Command]:
    command = Command(*words)
    try:
        yield command
    finally:
        command.kill()
        command.wait()


# Every consultation for itself: what one test's weather has taught must not show in the next.
UNGUARDED = "cache = false\nhedge = false\nretry = false\nbreaker = false\nlimiter = false\nadaptive_timeout = false\n"


def configured(directory: Path, sandbox: str, each_source: str = UNGUARDED) -> Path:
    """The example configuration, with its sources where the sandbox really is, on any free port, and patient: the machine may be busy.

    `each_source`: what every source of a consultation is told beside that.
    """
    text = (ROOT / "config/cashier.toml").read_text()
    text = text.replace("port = 8080", "port = 0")
    text = text.replace("deadline_ms = 150", "deadline_ms = 2500").replace(
        "max_deadline_ms = 1000", "max_deadline_ms = 2500"
    )
    text = re.sub(r"^timeout_ms = \d+\n", "", text, flags=re.MULTILINE)
    asked, services, paying = text.partition("\n[sources.risk]\n")
    asked = asked.replace('url = "http://127.0.0.1:9100"', f'url = "{sandbox}"\ntimeout_ms = 2490\n{each_source}')
    text = asked + services + paying.replace("http://127.0.0.1:9100", sandbox)
    text = text.replace("[shed]\nenabled = true", "[shed]\nenabled = false")
    path = directory / "config" / "cashier.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path
