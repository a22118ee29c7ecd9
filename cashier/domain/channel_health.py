"""Track record: what a channel has done lately, and whether it is sick. Pure: an outcome and the time in, a new record out.

Here is what is learned of one channel; which channel to take is in `routing`, whose fault a failure was in `blame`. Weights are integers,
a payment being a million of them, so that the same outcomes give the same record on every machine.
"""

from __future__ import annotations

from enum import Enum
from math import isqrt
from typing import Annotated

from msgspec import Meta, Struct, structs

from cashier.domain.facts import Bps
from cashier.domain.money import BPS

_PAYMENT = 1_000_000
_PARTS = 1_000_000_000
# Each fall doubles how long a recovery takes, up to 32 times: a channel that cannot stand its full load is not thrown at it all day.
_MOST_FALLS = 6
# A probe that is sent because one is due takes no more than every tenth payment, however few there are.
_LEAST_PASSED = 10
_SPACING_S = 1


class ChannelOutcome(Enum):
    """What a payment said of its channel. `UNSURE`: it failed, and nobody can say whose fault it was."""

    WORKED = "WORKED"
    FAILED = "FAILED"
    UNSURE = "UNSURE"


class LearningSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[learning]`. An outcome counts half after `half_life_s`. `memory_payments`: no more than so many count at all. `prior_payments`:
    what the channel gateway's own figure is worth beside them."""

    half_life_s: Annotated[int, Meta(ge=10, le=86_400)] = 600
    memory_payments: Annotated[int, Meta(ge=20, le=10_000)] = 400
    prior_payments: Annotated[int, Meta(ge=1, le=1_000)] = 20


class SicknessSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[sick]`. A channel is sick after `failures_in_a_row`, or when of `least_payments` or more surely fewer than `below_bps` succeeded.

    It then gets one payment in `probe_one_in`, and one every `probe_every_s` if that is more. After `well_after` probes that worked in a
    row (as many again for each further fall) it gets `first_share_bps` of what it would, twice that after `step_s`, and so on. With each
    further fall the steps are twice as long, until it has stood its full share for `forgiven_after_s`.
    """

    failures_in_a_row: Annotated[int, Meta(ge=2, le=100)] = 6
    below_bps: Annotated[int, Meta(ge=0, le=9_000)] = 5_000
    least_payments: Annotated[int, Meta(ge=5, le=1_000)] = 20
    probe_one_in: Annotated[int, Meta(ge=10, le=10_000)] = 50
    probe_every_s: Annotated[int, Meta(ge=1, le=3_600)] = 60
    well_after: Annotated[int, Meta(ge=1, le=20)] = 3
    first_share_bps: Annotated[int, Meta(ge=100, le=BPS)] = 500
    step_s: Annotated[int, Meta(ge=1, le=3_600)] = 30
    forgiven_after_s: Annotated[int, Meta(ge=0, le=86_400)] = 1_800


class SuccessRate(Struct, frozen=True, gc=False):
    """A live success rate, and how far off it may be by chance alone (one standard deviation)."""

    bps: int
    noise_bps: int


class ChannelRecord(Struct, frozen=True, gc=False):
    """`good` and `bad` are weights as of `aged_s`. `failing`: failures in a row, in halves. `falls`: how often it fell sick and was not
    forgiven. `since_s`: when it last fell sick or was well again. `wins`: probes in a row that worked. `passed`: payments that went
    elsewhere since the last probe, which was at `probed_s`. All times are whole seconds of one clock that only goes forward."""

    good: int = 0
    bad: int = 0
    aged_s: int = 0
    failing: int = 0
    sick: bool = False
    falls: int = 0
    since_s: int = 0
    wins: int = 0
    passed: int = 0
    probed_s: int = 0


def success_rate(record: ChannelRecord, stated_bps: Bps, now_s: int, learning: LearningSettings) -> SuccessRate:
    """The live rate. `stated_bps` is the gateway's figure, which is all there is at a cold start and again when nothing was heard long."""
    good, bad = _aged(record, now_s, learning)
    return _rate(good, bad, stated_bps, learning.prior_payments)


def with_outcome(
    record: ChannelRecord,
    outcome: ChannelOutcome,
    began_s: int,
    now_s: int,
    learning: LearningSettings,
    sickness: SicknessSettings,
) -> ChannelRecord:
    """The record after a payment ended that had begun at `began_s`. What began before the channel fell sick, or was well again, says
    nothing of how it is now, and changes nothing."""
    if began_s < record.since_s:
        return record
    good, bad = _aged(record, now_s, learning)
    failing, wins = record.failing, record.wins
    if outcome is ChannelOutcome.WORKED:
        good, failing, wins = good + _PAYMENT, 0, wins + 1
    else:
        weight = 2 if outcome is ChannelOutcome.FAILED else 1
        bad, failing, wins = bad + weight * _PAYMENT // 2, failing + weight, 0
    good, bad = _remembered(good, bad, learning)
    told = structs.replace(record, good=good, bad=bad, aged_s=max(now_s, record.aged_s), failing=failing, wins=wins)
    if told.sick:
        return _well(told, now_s) if wins >= sickness.well_after * told.falls else told
    return _fallen(told, now_s, sickness) if _is_sick(told, sickness) else told


def probe_due(record: ChannelRecord, die: int, now_s: int, sickness: SicknessSettings) -> bool:
    """Whether a sick channel may have this payment. `die` is drawn from the payment: any integer. Never two within a second."""
    since_s = now_s - record.probed_s
    if since_s >= _SPACING_S and die % sickness.probe_one_in == 0:
        return True
    return since_s >= sickness.probe_every_s and record.passed >= _LEAST_PASSED


def probed(record: ChannelRecord, now_s: int) -> ChannelRecord:
    return structs.replace(record, passed=0, probed_s=now_s)


def passed_over(record: ChannelRecord) -> ChannelRecord:
    return structs.replace(record, passed=record.passed + 1)


def ceiling_bps(record: ChannelRecord, now_s: int, sickness: SicknessSettings) -> int:
    """How much of the traffic that it would get a channel may have: none while it is sick, all of it if it never was, and in between."""
    if record.sick:
        return 0
    if not record.falls:
        return BPS
    steps = max(0, now_s - record.since_s) // _step_s(record, sickness)
    return min(BPS, sickness.first_share_bps << min(steps, 16))


def _step_s(record: ChannelRecord, sickness: SicknessSettings) -> int:
    return sickness.step_s << (record.falls - 1)


def _aged(record: ChannelRecord, now_s: int, learning: LearningSettings) -> tuple[int, int]:
    """The weights as of now. In whole seconds, so that many outcomes within one cannot round the ageing away."""
    elapsed_s = now_s - record.aged_s
    if elapsed_s <= 0:
        return record.good, record.bad
    kept = round(0.5 ** min(64.0, elapsed_s / learning.half_life_s) * _PARTS)
    return record.good * kept // _PARTS, record.bad * kept // _PARTS


def _remembered(good: int, bad: int, learning: LearningSettings) -> tuple[int, int]:
    """No more than the memory holds: of much traffic the last few hundred say enough, and a change shows sooner."""
    total, most = good + bad, learning.memory_payments * _PAYMENT
    return (good, bad) if total <= most else (good * most // total, bad * most // total)


def _rate(good: int, bad: int, stated_bps: int, prior_payments: int) -> SuccessRate:
    prior = prior_payments * _PAYMENT
    total = good + bad + prior
    bps = (good * BPS + prior * stated_bps) // total
    # Of what was seen; the gateway's figure is taken at its word, or a channel that nobody uses would be too uncertain to be better.
    return SuccessRate(bps, isqrt(bps * (BPS - bps) * _PAYMENT * (good + bad) // total**2))


def _is_sick(record: ChannelRecord, sickness: SicknessSettings) -> bool:
    if record.failing >= 2 * sickness.failures_in_a_row:
        return True
    if record.good + record.bad < sickness.least_payments * _PAYMENT:
        return False
    rate = _rate(record.good, record.bad, BPS // 2, 2)
    return rate.bps + rate.noise_bps < sickness.below_bps


def _fallen(record: ChannelRecord, now_s: int, sickness: SicknessSettings) -> ChannelRecord:
    full = (BPS // sickness.first_share_bps).bit_length() * _step_s(record, sickness) if record.falls else 0
    forgiven = now_s - record.since_s >= full + sickness.forgiven_after_s
    falls = 1 if forgiven else min(record.falls + 1, _MOST_FALLS)
    return structs.replace(record, sick=True, falls=falls, since_s=now_s, wins=0, passed=0, probed_s=now_s)


def _well(record: ChannelRecord, now_s: int) -> ChannelRecord:
    """Forgets what it did while it was sick: but for its own figure only the probes count that made it well."""
    return structs.replace(record, sick=False, good=record.wins * _PAYMENT, bad=0, failing=0, wins=0, since_s=now_s)
