"""Which of several addresses is asked next: the one with the least under way that did not just refuse a connection. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

# An address that refuses is tried again after a tenth of a second, then after twice that, at last every five seconds: a restart is
# noticed soon, a dead machine costs one connect attempt in five seconds.
FIRST_BACK_OFF_S = 0.1
MAX_BACK_OFF_S = 5.0


class BackOff:
    """How long an address is avoided after a failed connect. It is avoided, never barred: without another one it is asked all the same."""

    __slots__ = ("failures", "until_s")

    def __init__(self) -> None:
        self.failures = 0
        self.until_s = 0.0

    def failed(self, now_s: float) -> None:
        # Eight connects that fail together are one failure.
        if now_s >= self.until_s:
            self.until_s = now_s + min(MAX_BACK_OFF_S, FIRST_BACK_OFF_S * 2.0 ** min(self.failures, 10))
            self.failures += 1

    def worked(self) -> None:
        self.failures = 0
        self.until_s = 0.0


class BalancedHost(Protocol):
    @property
    def load(self) -> int: ...

    @property
    def back_off(self) -> BackOff: ...


Host = TypeVar("Host", bound=BalancedHost)


class LoadBalancer(Generic[Host]):
    """Least load wins, ties rotate; where all that may be asked are in back-off, the one whose back-off ends first."""

    __slots__ = ("_turn", "lanes")

    def __init__(self, lanes: Sequence[Host]) -> None:
        self.lanes = lanes
        self._turn = 0

    def next(self, now_s: float, avoid: int = 0) -> Host:
        """`avoid` has a bit for each lane to leave out, by index; where that would leave none, it is not heeded."""
        count = len(self.lanes)
        if avoid + 1 >> count:
            avoid = 0
        self._turn = (self._turn + 1) % count
        best: Host | None = None
        for step in range(count):
            index = (self._turn + step) % count
            lane = self.lanes[index]
            if avoid >> index & 1 or lane.back_off.until_s > now_s:
                continue
            if best is None or lane.load < best.load:
                best = lane
        if best is not None:
            return best
        return min(
            (lane for index, lane in enumerate(self.lanes) if not avoid >> index & 1),
            key=lambda lane: lane.back_off.until_s,
        )
