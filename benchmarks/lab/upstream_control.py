"""What the lean upstream can be told to do, and what it says it saw: the words of its control, shared by both sides. Does nothing."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

STRAGGLING = 12
BEHAVE = "/-/behave"
COUNTS = "/-/seen"


class Behaviour(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """By source; one that is not named answers at once.

    `straggling_bps`: of 10,000 calls so many take 12 times the delay. `hanging`: never answered, not even when that is over.
    """

    delay_ms: Mapping[str, float] = {}
    straggling_bps: Mapping[str, int] = {}
    hanging: tuple[str, ...] = ()


class HoldTimes(msgspec.Struct, frozen=True):
    """How long answers were really held back, from the request read to the answer written."""

    answers: int
    p50_ms: float
    p99_ms: float
    most_ms: float


class UpstreamCounts(msgspec.Struct, frozen=True):
    """Since it was last told how to behave. `calls`: by source, a batch is one; `keys`: what batches asked for. `cpu_s`: of its life.

    `connections`: open now; `opened`: so far. Both with the one that asks.
    """

    calls: Mapping[str, int]
    keys: Mapping[str, int]
    held: Mapping[str, HoldTimes]
    cpu_s: float
    connections: int
    opened: int
