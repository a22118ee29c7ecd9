"""Resources of a process, read from /proc: memory, sockets by state, threads, waits for a core.

Works for processes of our own user on Linux. Timers of an event loop are not visible from outside.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# States of include/net/tcp_states.h that a process can hold.
CLOSING, LEFT = "closing", "closed by the other side"
ENDING = (CLOSING, LEFT)
_STATES = {"01": "established", "02": "connecting", "04": CLOSING, "05": CLOSING, "08": LEFT, "0A": "listening"}
_OTHER = "other"
# On a core of its own a process waits for 1 to 2 % of the time. Above this, others affect it.
WAITING_LIMIT = 0.1


def private_kb(pid: int) -> float:
    """Memory of this process alone, which its end would free."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return float(
        sum(
            int(line.split()[1])
            for line in rollup.splitlines()
            if line.startswith(("Private_Clean:", "Private_Dirty:"))
        )
    )


def threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def sockets(pid: int) -> Counter[str]:
    """Open sockets by state. Other than TCP, or no longer listed: "other"."""
    states = dict(_tcp(pid))
    return Counter(states.get(inode, _OTHER) for inode in _inodes(pid))


def _inodes(pid: int) -> Iterator[str]:
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):  # closed meanwhile
            name = os.readlink(f"/proc/{pid}/fd/{descriptor}")
            if name.startswith("socket:["):
                yield name[8:-1]


def _tcp(pid: int) -> Iterator[tuple[str, str]]:
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            yield fields[9], _STATES.get(fields[3], _OTHER)


class RunQueueWait:
    """Time that processes were ready to run without a core: the machine's part of their latency.

    From the kernel's scheduler statistics of the main thread, which is the event loop.
    """

    def __init__(self) -> None:
        self._waited_s = self._lasted_s = 0.0

    @property
    def share(self) -> float:
        return self._waited_s / self._lasted_s if self._lasted_s else 0.0

    @property
    def too_long(self) -> bool:
        return self.share > WAITING_LIMIT

    @contextmanager
    def of(self, pid: int) -> Iterator[None]:
        start_s, waited = time.perf_counter(), waited_s(pid)
        yield
        self._waited_s += waited_s(pid) - waited
        self._lasted_s += time.perf_counter() - start_s

    def add(self, other: RunQueueWait) -> None:
        self._waited_s += other._waited_s
        self._lasted_s += other._lasted_s

    def note(self, process: str) -> str:
        text = f"{process} was ready to run and waited for its core {self.share:.1%} of the time"
        return text + (": others used this machine, and the figures mean little." if self.too_long else ".")


def waited_s(pid: int) -> float:
    """Since the process started."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
