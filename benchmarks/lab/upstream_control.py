"""Control messages of the lean upstream: its behaviour and its counts."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

# The sources that the upstream serves and the peers ask. A study configures these and no others, so
# that a source that is added later changes no result.
SOURCE_NAMES = ("order", "merchant", "member", "card", "balance", "channel", "quota", "marketing")
STRAGGLING = 12
BEHAVE = "/-/behave"
COUNTS = "/-/seen"


class Behaviour(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """By source; an unnamed source answers at once.

    `straggling_bps`: share of calls, in basis points, that take 12 times the delay. `hanging`:
    calls of these sources are never answered, even after the behaviour changes.
    """

    delay_ms: Mapping[str, float] = {}
    straggling_bps: Mapping[str, int] = {}
    hanging: tuple[str, ...] = ()


class HoldTimes(msgspec.Struct, frozen=True):
    """Actual delays, from the request read to the answer written."""

    answers: int
    p50_ms: float
    p99_ms: float
    most_ms: float


class UpstreamCounts(msgspec.Struct, frozen=True):
    """Counts since the last change of behaviour.

    `calls`: by source; a batch is one. `keys`: requests within batches. `cpu_s`: of the process's
    life. `connections`: open now; `opened`: in total. Both include the control connection.
    """

    calls: Mapping[str, int]
    keys: Mapping[str, int]
    held: Mapping[str, HoldTimes]
    cpu_s: float
    connections: int
    opened: int
