"""Load balancing across addresses: least load, with back-off after a failed connect. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

# An address that refuses a connection is tried again after 0.1 s, then twice that, finally every 5
# s: a restart is noticed soon, a dead machine costs one connect attempt in 5 s.
FIRST_BACK_OFF_S = 0.1
MAX_BACK_OFF_S = 5.0


class BackOff:
    """The time during which an address is avoided after a failed connect.

    Avoided, not excluded: if there is no other address, it is used.
    """

    __slots__ = ("failures", "until_s")

    def __init__(self) -> None:
        self.failures = 0
        self.until_s = 0.0

    def record_failure(self, now_s: float) -> None:
        # Concurrent connects that fail together count as one failure.
        if now_s >= self.until_s:
            self.until_s = now_s + min(MAX_BACK_OFF_S, FIRST_BACK_OFF_S * 2.0 ** min(self.failures, 10))
            self.failures += 1

    def record_success(self) -> None:
        self.failures = 0
        self.until_s = 0.0


class BalancedHost(Protocol):
    @property
    def load(self) -> int: ...

    @property
    def back_off(self) -> BackOff: ...


Host = TypeVar("Host", bound=BalancedHost)


class LoadBalancer(Generic[Host]):
    """Least load wins, ties rotate. If all are in back-off, the one whose back-off ends first."""

    __slots__ = ("_turn", "hosts")

    def __init__(self, hosts: Sequence[Host]) -> None:
        """`hosts` may change between picks; it is never empty."""
        self.hosts = hosts
        self._turn = 0

    def pick(self, now_s: float, avoid: int = 0, unproven: int = 0) -> Host:
        """`avoid`: a bit mask of indexes to leave out; ignored if it covers all hosts.

        `unproven`: those to use only if there is no other.
        """
        count = len(self.hosts)
        if avoid + 1 >> count:
            avoid = 0
        if not (avoid | unproven) + 1 >> count:
            avoid |= unproven
        self._turn = (self._turn + 1) % count
        best: Host | None = None
        for step in range(count):
            index = (self._turn + step) % count
            host = self.hosts[index]
            if avoid >> index & 1 or host.back_off.until_s > now_s:
                continue
            if best is None or host.load < best.load:
                best = host
        if best is not None:
            return best
        return min(
            (host for index, host in enumerate(self.hosts) if not avoid >> index & 1),
            key=lambda host: host.back_off.until_s,
        )
