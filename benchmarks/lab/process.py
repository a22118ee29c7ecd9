"""Processes on their own cores, and the CPU time of a process tree, from /proc."""

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
# With one core both are the same: CPU figures are still the program's, latencies are not.
PROGRAM_CORE = _CORES[0]
LOAD_CORE = _CORES[-1]
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_PATIENCE_S = 30.0
_SCHEDULED = 2  # of clock_getcpuclockid: the scheduler's clock of a process
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG
_LIBC = ctypes.CDLL(None)


class Child(NamedTuple):
    """A process that is ready. `first_line`: of its output; empty if `ready` decided."""

    pid: int
    first_line: str
    popen: subprocess.Popen[str]


class CpuTime(NamedTuple):
    """CPU time of a process tree. The kernel samples the split, so the sum is more exact."""

    user_s: float
    system_s: float

    @property
    def both_s(self) -> float:
        return self.user_s + self.system_s


class CoreTime(NamedTuple):
    """Time of a core since boot, of all programs. `stolen_s`: time that the host gave to others."""

    busy_s: float
    stolen_s: float


def python(*words: str) -> tuple[str, ...]:
    """The command that runs a module: `process(LOAD_CORE, *python("benchmarks.lean_upstream",
    "--users", "10"))`.
    """
    return (sys.executable, "-m", *words)


@contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """Pin this process to one core within the block; None: all cores."""
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
    end_signal: signal.Signals = signal.SIGTERM,
) -> Iterator[Child]:
    """Run a command on a core (None: all) until the block ends, then end it and its children.

    It ends by `end_signal`; after 10 s it is killed.

    It is ready when `ready()` returns True, polled, or else when it has printed its first line.
    `env` is added to the environment. `log`: a file for its standard error, and for its output if
    `ready` is given. Call it from the main thread, because a program ends with the thread that
    started it. Raises `RuntimeError` if it ends before it is ready.
    """

    def begin() -> None:
        os.sched_setaffinity(0, _CORES if core is None else {core})
        _LIBC.prctl(_DIE_WITH_PARENT, signal.SIGTERM)

    errors = log.open("ab") if log else None
    child = subprocess.Popen(
        words,
        stdin=subprocess.PIPE,  # programs that serve until their input ends stop with us
        stdout=subprocess.PIPE if ready is None else errors,
        stderr=errors,
        text=True,
        env={**os.environ, **(env or {})},
        cwd=cwd,
        preexec_fn=begin,  # noqa: PLW1509  # no other thread of ours holds a lock that `begin` needs
        start_new_session=True,
    )
    try:
        line = _first_line(child) if ready is None else _until(ready, child)
        if line is None:
            output = log.read_text()[-500:] if log else ""
            raise RuntimeError(f"{' '.join(words)} ended with {child.wait(_PATIENCE_S)} before it was ready. {output}")
        yield Child(child.pid, line, child)
    finally:
        _end(child, end_signal)
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


def _end(child: subprocess.Popen[str], end_signal: signal.Signals) -> None:
    child.send_signal(end_signal)
    try:
        child.wait(10)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)  # the rest of its children, which share its session
    for pipe in (child.stdin, child.stdout):
        if pipe:
            with suppress(BrokenPipeError):
                pipe.close()


def tree(pid: int) -> list[int]:
    """A process and all its living descendants."""
    pids = [pid]
    for parent in pids:  # grows meanwhile
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            with suppress(OSError):
                pids.extend(int(child) for child in children.read_text().split())
    return pids


def cpu_time(pid: int) -> CpuTime:
    """CPU time of a process tree, ended children included. Raises `OSError` if it has ended."""
    user, system = _ticks(pid)
    for child in tree(pid)[1:]:
        with suppress(OSError):
            its_user, its_system = _ticks(child)
            user, system = user + its_user, system + its_system
    return CpuTime(user * _TICK_S, system * _TICK_S)


def cpu_s(pid: int) -> float:
    """User and system time of a process tree, ended children included."""
    return cpu_time(pid).both_s


def exact_cpu_s(pid: int) -> float:
    """The same for the living processes, from their CPU clocks.

    Exact while they sleep; `cpu_s` is exact to 10 ms.
    """
    return sum(time.clock_gettime(~process_id << 3 | _SCHEDULED) for process_id in tree(pid))


def core_time(core: int) -> CoreTime:
    """User, nice, system, interrupt and stolen time: fields 1 to 3 and 6 to 8 in /proc/stat."""
    line = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith(f"cpu{core} "))
    user, nice, system, _, _, interrupts, soft, stolen = (int(field) for field in line.split()[1:9])
    return CoreTime((user + nice + system + interrupts + soft) * _TICK_S, stolen * _TICK_S)


def _ticks(pid: int) -> tuple[int, int]:
    # The name, in brackets, may hold any character. utime, stime, cutime, cstime: fields 14 to 17.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system, ended_user, ended_system = (int(field) for field in fields[11:15])
    return user + ended_user, system + ended_system
