"""How long a process was ready to run and had no core: what of its latencies is the machine's doing. Judges no figure.

From the kernel's scheduler statistics, of the process's main thread, which is its event loop.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# With a core of its own a process waits for a hundredth of the time or two. From here on others are in its figures.
LIMIT = 0.1


class RunQueueWait:
    """Over everything that it was text to look at."""

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
        return text + (": others were busy on this machine, and the figures say little." if self.too_long else ".")


def waited_s(pid: int) -> float:
    """So far."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
