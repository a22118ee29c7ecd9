"""Processes on cores of their own, and the CPU that they and their children have used, from /proc. Knows nothing of what they do."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

_CORES = sorted(os.sched_getaffinity(0))
# With one core only, both are it: then the figures of CPU are still those of the program, and the latencies are not.
PROGRAM_CORE = _CORES[0]
LOAD_CORE = _CORES[-1]
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_PATIENCE_S = 30.0
_SCHEDULED = 2  # of clock_getcpuclockid: the scheduler's clock of a whole process
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG
_LIBC = ctypes.CDLL(None)


class Child(NamedTuple):
    """A process that is ready. `first_line`: of its output, or empty where readiness showed in another way."""

    pid: int
    first_line: str
    popen: subprocess.Popen[str]


class CpuTime(NamedTuple):
    """CPU time of a process tree so far. The kernel samples how it divides, so the sum is more exact than its parts."""

    user_s: float
    system_s: float

    @property
    def both_s(self) -> float:
        return self.user_s + self.system_s


class CoreTime(NamedTuple):
    """What a core has done so far, whoever asked for it. `stolen_s`: what the host gave to other machines while ours wanted it."""

    busy_s: float
    stolen_s: float


def python(*words: str) -> tuple[str, ...]:
    """The command that runs a module: `process(LOAD_CORE, *python("benchmarks.lean_upstream", "--users", "10"))`."""
    return (sys.executable, "-m", *words)


@contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """This process on one core meanwhile; None: on all."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, _CORES if core is None else {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def process(
    core: int | None,
    *words: str,
    env: Mapping[str, str] | None = None,
    ready: Callable[[], bool] | None = None,
    log: Path | None = None,
    cwd: Path | None = None,
) -> Iterator[Child]:
    """Runs the command `words` on a core (None: on all) until the block ends; then it and all its children are ended.

    It is ready when `ready()` says so, asked again and again, or else when it has printed its first line. `env` is added to the
    environment. `log`: a file for what it writes to its standard error, and to its output where `ready` is given. Call it from the main
    thread: a program is ended with the thread that started it. Raises `RuntimeError` where it ends before it is ready.
    """

    def begin() -> None:
        os.sched_setaffinity(0, _CORES if core is None else {core})
        _LIBC.prctl(_DIE_WITH_PARENT, signal.SIGTERM)

    errors = log.open("ab") if log else None
    child = subprocess.Popen(
        words,
        stdin=subprocess.PIPE,  # a program that serves until its input ends goes with us, however we go
        stdout=subprocess.PIPE if ready is None else errors,
        stderr=errors,
        text=True,
        env={**os.environ, **(env or {})},
        cwd=cwd,
        preexec_fn=begin,  # noqa: PLW1509  # no other thread of ours holds a lock that it needs
        start_new_session=True,
    )
    try:
        line = _first_line(child) if ready is None else _until(ready, child)
        if line is None:
            said = log.read_text()[-500:] if log else ""
            raise RuntimeError(f"{' '.join(words)} ended with {child.wait(_PATIENCE_S)} before it was ready. {said}")
        yield Child(child.pid, line, child)
    finally:
        _end(child)
        if errors:
            errors.close()


def _first_line(child: subprocess.Popen[str]) -> str | None:
    assert child.stdout is not None
    return child.stdout.readline().strip() or None


def _until(ready: Callable[[], bool], child: subprocess.Popen[str]) -> str | None:
    until_s = time.monotonic() + _PATIENCE_S
    while not ready():
        if child.poll() is not None:
            return None
        if time.monotonic() > until_s:
            raise TimeoutError(f"not ready after {_PATIENCE_S:.0f} s: {child.args!r}")
        time.sleep(0.02)
    return ""


def _end(child: subprocess.Popen[str]) -> None:
    child.terminate()
    try:
        child.wait(10)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)  # its session is its own: what is left of its children
    for pipe in (child.stdin, child.stdout):
        if pipe:
            with suppress(BrokenPipeError):
                pipe.close()


def tree(pid: int) -> list[int]:
    """A process and all its living descendants."""
    found = [pid]
    for each in found:  # grows meanwhile
        for children in Path(f"/proc/{each}/task").glob("*/children"):
            with suppress(OSError):
                found.extend(int(child) for child in children.read_text().split())
    return found


def cpu_time(pid: int) -> CpuTime:
    """Of a process and its whole tree, ended children included. Raises `OSError` where it has gone."""
    user, system = _ticks(pid)
    for child in tree(pid)[1:]:
        with suppress(OSError):
            its_user, its_system = _ticks(child)
            user, system = user + its_user, system + its_system
    return CpuTime(user * _TICK_S, system * _TICK_S)


def cpu_s(pid: int) -> float:
    """User and system time of a process and its whole tree, ended children included."""
    return cpu_time(pid).both_s


def exact_cpu_s(pid: int) -> float:
    """The same of the living ones, from their CPU clocks.

    Exact where they sleep; `cpu_s` is exact to 10 ms.
    """
    return sum(time.clock_gettime(~each << 3 | _SCHEDULED) for each in tree(pid))


def core_time(core: int) -> CoreTime:
    """Its user, nice, system, interrupt and stolen time: fields 1 to 3 and 6 to 8 of its line in /proc/stat."""
    line = next(each for each in Path("/proc/stat").read_text().splitlines() if each.startswith(f"cpu{core} "))
    user, nice, system, _, _, interrupts, soft, stolen = (int(field) for field in line.split()[1:9])
    return CoreTime((user + nice + system + interrupts + soft) * _TICK_S, stolen * _TICK_S)


def _ticks(pid: int) -> tuple[int, int]:
    # The name, in brackets, may hold anything; utime, stime, cutime and cstime are fields 14 to 17.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system, ended_user, ended_system = (int(field) for field in fields[11:15])
    return user + ended_user, system + ended_system
