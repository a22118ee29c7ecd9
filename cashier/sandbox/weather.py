"""Weather: latency and faults of each source, drawn per call and changeable at any time.

A profile states what can happen to the calls of a source; the conditions are what one call gets.
This module only draws: the caller waits and applies the fault.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum
from random import Random

from msgspec import Struct, structs, to_builtins

from cashier.sandbox.records import Json

BPS = 10_000
RETRY_AFTER_S = 1
# A slow body comes in twenty pieces and takes a second.
SLOW_BODY_PIECES = 20
SLOW_BODY_PAUSE_S = 0.05

# Distance of the 99th percentile from the median of a normal distribution, in standard deviations.
_P99 = 2.326_347_874


class Fault(StrEnum):
    """Faults of any source.

    ERROR and OVERLOAD refuse before any work is done; with all others the work is done and only the
    answer is damaged or lost.
    """

    HANG = "hang"
    ERROR = "error"
    OVERLOAD = "overload"
    GARBAGE = "garbage"
    WRONG_IDENTITY = "wrong_identity"
    TRUNCATE = "truncate"
    SLOW_BODY = "slow_body"
    RESET = "reset"


class PaymentFault(StrEnum):
    """Further faults of risk and engine, which affect the work itself.

    CUT, SWALLOW: reset or silence, and no work is done. ARRIVES_LATE: reset, and the request
    arrives seconds later. DUPLICATE: the request arrives again seconds later.

    Engine only. DECLINE: the bank declines. STALL: a payment that would succeed at once stays under
    way until settled or reversed; for a scanned code, USER_PAYING. CLOSE_FIRST: the shop closes the
    order just before this payment pays it. PAY_FIRST: the payer pays just before the reverse
    arrives. FORGET: a submit that is refused is answered, and not kept. NO_SEAL: a reverse of an
    unknown payment does not refuse it.
    """

    CUT = "cut"
    SWALLOW = "swallow"
    ARRIVES_LATE = "arrives_late"
    DUPLICATE = "duplicate"
    DECLINE = "decline"
    STALL = "stall"
    CLOSE_FIRST = "close_first"
    PAY_FIRST = "pay_first"
    FORGET = "forget"
    NO_SEAL = "no_seal"


ENGINE_FAULTS = frozenset(
    {
        PaymentFault.DECLINE,
        PaymentFault.STALL,
        PaymentFault.CLOSE_FIRST,
        PaymentFault.PAY_FIRST,
        PaymentFault.FORGET,
        PaymentFault.NO_SEAL,
    }
)


class Constant(Struct, frozen=True, tag_field="shape", tag="constant"):
    ms: float

    def draw_ms(self, random: Random) -> float:
        return self.ms


class Uniform(Struct, frozen=True, tag_field="shape", tag="uniform"):
    low_ms: float
    high_ms: float

    def draw_ms(self, random: Random) -> float:
        return random.uniform(self.low_ms, self.high_ms)


class Lognormal(Struct, frozen=True, tag_field="shape", tag="lognormal"):
    """The usual distribution of service latencies."""

    median_ms: float
    p99_ms: float

    def draw_ms(self, random: Random) -> float:
        spread = math.log(self.p99_ms / self.median_ms) / _P99
        return self.median_ms * math.exp(random.gauss(0, spread))


class Stragglers(Struct, frozen=True):
    """A share of the calls, in basis points, takes `factor` times as long."""

    share_bps: int
    factor: float


NO_STRAGGLERS = Stragglers(share_bps=0, factor=1)


class PlannedFault(Struct, frozen=True, omit_defaults=True):
    """A fault for one call: the next one, or the next one named `on`."""

    fault: Fault | PaymentFault
    on: str | None = None


class FaultProfile(Struct, frozen=True):
    """Latency and faults of one source.

    `faults`: the share of each in basis points, at most 10000 in total. `next`: the fault plan,
    whose faults apply to single calls before any draw, each once and in order.
    """

    latency: Constant | Uniform | Lognormal
    stragglers: Stragglers = NO_STRAGGLERS
    faults: Mapping[Fault | PaymentFault, int] = {}
    next: tuple[PlannedFault, ...] = ()

    def to_json(self) -> Json:
        """In the JSON form of the weather endpoints."""
        profile: Json = to_builtins(self)
        return profile


class CallConditions(Struct, frozen=True, gc=False):
    """Latency and fault of one call. `variant` selects among the kinds of garbage."""

    latency_s: float
    fault: Fault | PaymentFault | None = None
    variant: int = 0


class Weather:
    """Profiles by source. Each source has its own random sequence."""

    def __init__(self, start: Mapping[str, FaultProfile], seed: int = 1) -> None:
        self._start = dict(start)
        self._now = dict(start)
        self._random = {source: Random(f"{seed}:{source}") for source in start}

    def __repr__(self) -> str:
        changed = [source for source in self._start if self._now[source] != self._start[source]]
        return f"Weather(changed={changed})"

    def profile(self, source: str) -> FaultProfile:
        return self._now[source]

    def start(self, source: str) -> FaultProfile:
        return self._start[source]

    def change(self, source: str, profile: FaultProfile) -> None:
        """Change the profile for later calls. Calls under way keep their conditions."""
        assert source in self._now, f"no source {source}"  # noqa: S101  a bug of the caller
        self._now[source] = profile

    def restore(self, source: str | None = None) -> None:
        """Restore one source, or all, to the start."""
        for name in self._start if source is None else (source,):
            self._now[name] = self._start[name]

    def draw_call(self, source: str, call: str = "read") -> CallConditions:
        """The conditions of this call: a planned fault, which is used up, or else the draw."""
        conditions, planned = self.draw(source), self._now[source].next
        for index, fault in enumerate(planned):
            if fault.on in (None, call):
                self._now[source] = structs.replace(self._now[source], next=(*planned[:index], *planned[index + 1 :]))
                return structs.replace(conditions, fault=fault.fault)
        return conditions

    def draw(self, source: str) -> CallConditions:
        """Draw from the profile alone, without planned faults."""
        profile, random = self._now[source], self._random[source]
        latency_ms = profile.latency.draw_ms(random)
        if profile.stragglers.share_bps and random.random() * BPS < profile.stragglers.share_bps:
            latency_ms *= profile.stragglers.factor
        if profile.faults:
            return CallConditions(
                latency_ms / 1000, _fault(profile.faults, random.random() * BPS), random.getrandbits(8)
            )
        return CallConditions(latency_ms / 1000)

    def to_json(self) -> Json:
        return {source: profile.to_json() for source, profile in self._now.items()}


def _fault(shares: Mapping[Fault | PaymentFault, int], roll: float) -> Fault | PaymentFault | None:
    """The fault whose share contains the roll, with the shares side by side from 0."""
    for fault, share_bps in shares.items():
        roll -= share_bps
        if roll < 0:
            return fault
    return None
