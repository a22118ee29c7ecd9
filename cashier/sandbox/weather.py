"""Weather: how late and how broken the answers of each source are. Drawn per call, from a seed, and changed while everything runs.

A forecast says what may come, a conditions is what one call gets. Nothing here waits, sends or breaks anything: whoever draws a conditions
carries it out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum
from random import Random

from msgspec import Struct, structs, to_builtins

from cashier.sandbox.contract_shapes import Json

BPS = 10_000

# By source, the field that says whom an answer is about. Answers of channel and risk name nobody, so nobody can be mistaken in them.
IDENTITY_FIELDS = {
    "order": "order_id",
    "merchant": "merchant_id",
    "member": "user_id",
    "card": "user_id",
    "balance": "user_id",
    "marketing": "user_id",
    "quota": "user_id",
    "engine": "payment_id",
    "acquirer": "order_id",
}
SOURCES = (
    "order",
    "merchant",
    "member",
    "card",
    "balance",
    "marketing",
    "channel",
    "quota",
    "risk",
    "engine",
    "acquirer",
)

RETRY_AFTER_S = 1
# A slow body comes in twenty pieces and takes a second.
SLOW_BODY_PIECES = 20
SLOW_BODY_PAUSE_S = 0.05

# Distance of the 99th percentile from the median of a normal distribution, in standard deviations.
_P99 = 2.326_347_874


class Fault(StrEnum):
    """What can go wrong. ERROR and OVERLOAD refuse before anything is done; after all others the work is done and its answer lost."""

    HANG = "hang"
    ERROR = "error"
    OVERLOAD = "overload"
    GARBAGE = "garbage"
    WRONG_IDENTITY = "wrong_identity"
    TRUNCATE = "truncate"
    SLOW_BODY = "slow_body"
    RESET = "reset"


class PaymentFault(StrEnum):
    """What can go wrong where something is done, beyond the answer. CUT and SWALLOW: reset, or silence, before anything was done.
    ARRIVES_LATE: reset, and the request arrives all the same, some seconds later. DUPLICATE: it arrives again, some seconds later.

    Of the engine alone. DECLINE: the bank says no. STALL: what would be done at once is under way until it is settled or reversed (a
    scanned code: the user is paying for ever). CLOSE_FIRST: the shop closes the order just before this payment pays it. PAY_FIRST: the
    payer pays just before the reverse arrives.
    """

    CUT = "cut"
    SWALLOW = "swallow"
    ARRIVES_LATE = "arrives_late"
    DUPLICATE = "duplicate"
    DECLINE = "decline"
    STALL = "stall"
    CLOSE_FIRST = "close_first"
    PAY_FIRST = "pay_first"


ENGINE_FAULTS = frozenset({PaymentFault.DECLINE, PaymentFault.STALL, PaymentFault.CLOSE_FIRST, PaymentFault.PAY_FIRST})
# What each source can be asked to do; a one-shot fault may wait for one of these.
CALL_NAMES = dict.fromkeys(SOURCES, ("read",)) | {
    "risk": ("decide", "verify"),
    "engine": ("submit", "look_up", "reverse"),
}


def possible_faults(source: str) -> list[Fault | PaymentFault]:
    """What can befall a source's calls."""
    faults: list[Fault | PaymentFault] = [
        fault for fault in Fault if fault is not Fault.WRONG_IDENTITY or source in IDENTITY_FIELDS
    ]
    if source in ("risk", "engine"):
        faults += [mishap for mishap in PaymentFault if source == "engine" or mishap not in ENGINE_FAULTS]
    return faults


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
    """How services really answer: half below the median, one call in a hundred above the 99th percentile."""

    median_ms: float
    p99_ms: float

    def draw_ms(self, random: Random) -> float:
        spread = math.log(self.p99_ms / self.median_ms) / _P99
        return self.median_ms * math.exp(random.gauss(0, spread))


class Stragglers(Struct, frozen=True):
    """A share of the calls takes `factor` times as long."""

    share_bps: int
    factor: float


NO_STRAGGLERS = Stragglers(share_bps=0, factor=1)


class PlannedFault(Struct, frozen=True, omit_defaults=True):
    """A fault that befalls one call: the next, or the next of the name `on`."""

    fault: Fault | PaymentFault
    on: str | None = None


class FaultProfile(Struct, frozen=True):
    """What may come for one source. `faults` gives each fault's share in basis points; together they are 10000 at most. `next`: what
    befalls single calls before any dice, each once, in that order."""

    latency: Constant | Uniform | Lognormal
    stragglers: Stragglers = NO_STRAGGLERS
    faults: Mapping[Fault | PaymentFault, int] = {}
    next: tuple[PlannedFault, ...] = ()

    def to_json(self) -> Json:
        """As the weather's paths show and take it."""
        told: Json = to_builtins(self)
        return told


class CallConditions(Struct, frozen=True, gc=False):
    """What one call gets. `variant` tells sorts of the same fault apart."""

    latency_s: float
    fault: Fault | PaymentFault | None = None
    variant: int = 0


class Weather:
    """Forecasts by source, and the dice they are drawn with. Every source has its own dice: none disturbs another's sequence."""

    def __init__(self, start: Mapping[str, FaultProfile], seed: int = 1) -> None:
        assert set(start) == set(SOURCES), "a start has a forecast for every source and no other"  # noqa: S101  a bug of the caller
        self._start = dict(start)
        self._now = dict(start)
        self._dice = {source: Random(f"{seed}:{source}") for source in SOURCES}

    def __repr__(self) -> str:
        changed = [source for source in SOURCES if self._now[source] != self._start[source]]
        return f"Weather(changed={changed})"

    def profile(self, source: str) -> FaultProfile:
        return self._now[source]

    def start(self, source: str) -> FaultProfile:
        return self._start[source]

    def change(self, source: str, profile: FaultProfile) -> None:
        """From the next call on. What is under way keeps the conditions it has drawn."""
        assert source in self._now, f"no source {source}"  # noqa: S101  a bug of the caller
        self._now[source] = profile

    def restore(self, source: str | None = None) -> None:
        """One source, or all, as at the start."""
        for name in SOURCES if source is None else (source,):
            self._now[name] = self._start[name]

    def conditions(self, source: str, call: str = "read") -> CallConditions:
        """What this call of a source gets: a fault that was waiting for it, else what is drawn. A fault that was waiting is used up."""
        conditions, waiting = self.draw(source), self._now[source].next
        for place, one in enumerate(waiting):
            if one.on in (None, call):
                self._now[source] = structs.replace(self._now[source], next=(*waiting[:place], *waiting[place + 1 :]))
                return structs.replace(conditions, fault=one.fault)
        return conditions

    def draw(self, source: str) -> CallConditions:
        forecast, random = self._now[source], self._dice[source]
        latency_ms = forecast.latency.draw_ms(random)
        if forecast.stragglers.share_bps and random.random() * BPS < forecast.stragglers.share_bps:
            latency_ms *= forecast.stragglers.factor
        if forecast.faults:
            return CallConditions(
                latency_ms / 1000, _fault(forecast.faults, random.random() * BPS), random.getrandbits(8)
            )
        return CallConditions(latency_ms / 1000)

    def to_json(self) -> Json:
        return {source: self._now[source].to_json() for source in SOURCES}


def _fault(shares: Mapping[Fault | PaymentFault, int], roll: float) -> Fault | PaymentFault | None:
    """The shares lie side by side from 0; what the roll hits befalls the call."""
    for fault, share_bps in shares.items():
        roll -= share_bps
        if roll < 0:
            return fault
    return None
