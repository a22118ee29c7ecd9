"""How long a process was ready to run and had no core: what of its latencies is the machine's doing. Judges no figure.

From the kernel's scheduler statistics, of the process's main thread, which is its event loop.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# With a core of its own a process waits for a hundredth of the time or two. From here on others are in its figures.
MUCH = 0.1


class Waiting:
    """Over everything that it was told to look at."""

    def __init__(self) -> None:
        self._waited_s = self._lasted_s = 0.0

    @property
    def share(self) -> float:
        return self._waited_s / self._lasted_s if self._lasted_s else 0.0

    @property
    def much(self) -> bool:
        return self.share > MUCH

    @contextmanager
    def of(self, pid: int) -> Iterator[None]:
        began_s, waited = time.perf_counter(), waited_s(pid)
        yield
        self._waited_s += waited_s(pid) - waited
        self._lasted_s += time.perf_counter() - began_s

    def note(self, who: str) -> str:
        told = f"{who} was ready to run and waited for its core {self.share:.1%} of the time"
        return told + (": others were busy on this machine, and the figures say little." if self.much else ".")


def waited_s(pid: int) -> float:
    """So far."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
