"""Whether a source can be called, as far as its connections and breakers show."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from cashier.fanout.ask import Importance


class Reachability(StrEnum):
    """REACHABLE: a connection is open. IDLE: none is, and the last connect did not fail.

    UNREACHABLE: none is open, and the last connect to every address failed. BREAKER_OPEN: calls
    fail, so only probes are sent. LOCAL: a function of this process. NOT_CONFIGURED: the
    configuration leaves the source out.
    """

    REACHABLE = "REACHABLE"
    IDLE = "IDLE"
    UNREACHABLE = "UNREACHABLE"
    BREAKER_OPEN = "BREAKER_OPEN"
    LOCAL = "LOCAL"
    NOT_CONFIGURED = "NOT_CONFIGURED"


class SourceReachability(Struct, frozen=True, rename={"importance": "class"}):
    """`importance`: None for a service that no consultation calls. It has no breaker either."""

    name: str
    importance: Importance | None
    state: Reachability
