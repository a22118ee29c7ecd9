"""Time that a process was ready to run without a core: the machine's part of its latency.

From the kernel's scheduler statistics of the process's main thread, which is its event loop.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# On a core of its own a process waits for 1 to 2 % of the time. Above this, others affect it.
LIMIT = 0.1


class RunQueueWait:
    """Total over all processes and times watched."""

    def __init__(self) -> None:
        self._waited_s = self._lasted_s = 0.0

    @property
    def share(self) -> float:
        return self._waited_s / self._lasted_s if self._lasted_s else 0.0

    @property
    def too_long(self) -> bool:
        return self.share > LIMIT

    @contextmanager
    def of(self, pid: int) -> Iterator[None]:
        start_s, waited = time.perf_counter(), waited_s(pid)
        yield
        self._waited_s += waited_s(pid) - waited
        self._lasted_s += time.perf_counter() - start_s

    def note(self, process: str) -> str:
        text = f"{process} was ready to run and waited for its core {self.share:.1%} of the time"
        return text + (": others used this machine, and the figures mean little." if self.too_long else ".")


def waited_s(pid: int) -> float:
    """Since the process started."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
