"""Live health of a channel: success rate, sickness, probes and recovery.

Pure: an outcome and the time in, a new record out. `failure_attribution` decides which failures
count, `routing` chooses the channel. Weights are integers, a payment being a million, so that the
same outcomes give the same record on every machine.
"""

from __future__ import annotations

from enum import Enum
from math import isqrt
from typing import Annotated

from msgspec import Meta, Struct, structs

from cashier.domain.facts import Bps
from cashier.domain.money import BPS

_PAYMENT_WEIGHT = 1_000_000
_DECAY_SCALE = 1_000_000_000
# Each sickness doubles the recovery time, up to 32 times: a channel that cannot stand its full load
# does not get it again and again all day.
_MAX_SICK_COUNT = 6
# A probe that is due by time takes at most every tenth payment, however few there are.
_MIN_SKIPPED_PER_PROBE = 10
_MIN_PROBE_INTERVAL_S = 1


class ChannelOutcome(Enum):
    """What a payment shows about its channel.

    `UNSURE`: it failed for a cause that cannot be attributed.
    """

    WORKED = "WORKED"
    FAILED = "FAILED"
    UNSURE = "UNSURE"


class LearningSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[learning]` in `routing.toml`.

    `half_life_s`: the age at which an outcome counts half. `memory_payments`: the most that count.
    `prior_payments`: the weight of the channel gateway's own figure, in payments.
    """

    half_life_s: Annotated[int, Meta(ge=10, le=86_400)] = 600
    memory_payments: Annotated[int, Meta(ge=20, le=10_000)] = 400
    prior_payments: Annotated[int, Meta(ge=1, le=1_000)] = 20


class SicknessSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[sick]` in `routing.toml`: when a channel is sick, and how it gets its traffic back.

    A channel is sick after `failures_in_a_row`, or if of at least `least_payments` significantly
    fewer than `below_bps` succeeded. It then gets one payment in `probe_one_in`, and one every
    `probe_every_s` if that is more. After `well_after` successful probes in a row (times the number
    of its sicknesses) it gets `first_share_bps` of its normal share, and twice as much after each
    `step_s`. Each further sickness doubles the steps, until it has held its full share for
    `forgiven_after_s`.
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
    """A live success rate and its standard deviation."""

    bps: int
    noise_bps: int


class ChannelRecord(Struct, frozen=True, gc=False):
    """What is known about one channel. Times are whole seconds of one monotonic clock.

    `good`, `bad`: weights of successes and failures as of `decayed_at_s`. `failure_streak_halves`:
    failures in a row, in halves. `sick_count`: sicknesses not yet forgiven. `state_since_s`: the
    last time it became sick or recovered. `success_streak`: successful payments in a row, probes
    while sick. `skipped`: payments routed elsewhere since the last probe, at `probed_at_s`.
    """

    good: int = 0
    bad: int = 0
    decayed_at_s: int = 0
    failure_streak_halves: int = 0
    sick: bool = False
    sick_count: int = 0
    state_since_s: int = 0
    success_streak: int = 0
    skipped: int = 0
    probed_at_s: int = 0


def success_rate(record: ChannelRecord, stated_bps: Bps, now_s: int, learning: LearningSettings) -> SuccessRate:
    """The live rate.

    `stated_bps`: the gateway's figure, which decides alone without recent outcomes.
    """
    good, bad = _decayed(record, now_s, learning)
    return _rate(good, bad, stated_bps, learning.prior_payments)


def with_outcome(
    record: ChannelRecord,
    outcome: ChannelOutcome,
    started_s: int,
    now_s: int,
    learning: LearningSettings,
    sickness: SicknessSettings,
) -> ChannelRecord:
    """The record after a payment that started at `started_s` ended.

    Ignores a payment that started before the channel became sick or recovered: its outcome is about
    the state before.
    """
    if started_s < record.state_since_s:
        return record
    good, bad = _decayed(record, now_s, learning)
    failure_halves, successes = record.failure_streak_halves, record.success_streak
    if outcome is ChannelOutcome.WORKED:
        good, failure_halves, successes = good + _PAYMENT_WEIGHT, 0, successes + 1
    else:
        halves = 2 if outcome is ChannelOutcome.FAILED else 1
        bad, failure_halves, successes = bad + halves * _PAYMENT_WEIGHT // 2, failure_halves + halves, 0
    good, bad = _capped(good, bad, learning)
    updated = structs.replace(
        record,
        good=good,
        bad=bad,
        decayed_at_s=max(now_s, record.decayed_at_s),
        failure_streak_halves=failure_halves,
        success_streak=successes,
    )
    if updated.sick:
        return _recovered(updated, now_s) if successes >= sickness.well_after * updated.sick_count else updated
    return _sickened(updated, now_s, sickness) if _is_sick(updated, sickness) else updated


def probe_due(record: ChannelRecord, draw: int, now_s: int, sickness: SicknessSettings) -> bool:
    """Whether a sick channel may get this payment, at most one per second.

    `draw`: any integer drawn from the payment.
    """
    since_probe_s = now_s - record.probed_at_s
    if since_probe_s >= _MIN_PROBE_INTERVAL_S and draw % sickness.probe_one_in == 0:
        return True
    return since_probe_s >= sickness.probe_every_s and record.skipped >= _MIN_SKIPPED_PER_PROBE


def with_probe(record: ChannelRecord, now_s: int) -> ChannelRecord:
    return structs.replace(record, skipped=0, probed_at_s=now_s)


def with_skip(record: ChannelRecord) -> ChannelRecord:
    return structs.replace(record, skipped=record.skipped + 1)


def share_ceiling_bps(record: ChannelRecord, now_s: int, sickness: SicknessSettings) -> int:
    """The cap on a channel's normal share: 0 while sick, then rising to `BPS`."""
    if record.sick:
        return 0
    if not record.sick_count:
        return BPS
    steps = max(0, now_s - record.state_since_s) // _step_s(record, sickness)
    return min(BPS, sickness.first_share_bps << min(steps, 16))


def _step_s(record: ChannelRecord, sickness: SicknessSettings) -> int:
    return sickness.step_s << (record.sick_count - 1)


def _decayed(record: ChannelRecord, now_s: int, learning: LearningSettings) -> tuple[int, int]:
    """The weights as of now.

    In whole seconds, so that many outcomes within one cannot round the decay away.
    """
    elapsed_s = now_s - record.decayed_at_s
    if elapsed_s <= 0:
        return record.good, record.bad
    factor = round(0.5 ** min(64.0, elapsed_s / learning.half_life_s) * _DECAY_SCALE)
    return record.good * factor // _DECAY_SCALE, record.bad * factor // _DECAY_SCALE


def _capped(good: int, bad: int, learning: LearningSettings) -> tuple[int, int]:
    """Scale down to the memory: a few hundred payments suffice, and a change shows sooner."""
    total, cap = good + bad, learning.memory_payments * _PAYMENT_WEIGHT
    return (good, bad) if total <= cap else (good * cap // total, bad * cap // total)


def _rate(good: int, bad: int, stated_bps: int, prior_payments: int) -> SuccessRate:
    prior = prior_payments * _PAYMENT_WEIGHT
    total = good + bad + prior
    bps = (good * BPS + prior * stated_bps) // total
    # The noise is of the observed payments only. With the prior in it, a channel without traffic
    # would be too uncertain ever to be better.
    return SuccessRate(bps, isqrt(bps * (BPS - bps) * _PAYMENT_WEIGHT * (good + bad) // total**2))


def _is_sick(record: ChannelRecord, sickness: SicknessSettings) -> bool:
    if record.failure_streak_halves >= 2 * sickness.failures_in_a_row:
        return True
    if record.good + record.bad < sickness.least_payments * _PAYMENT_WEIGHT:
        return False
    rate = _rate(record.good, record.bad, BPS // 2, 2)
    return rate.bps + rate.noise_bps < sickness.below_bps


def _sickened(record: ChannelRecord, now_s: int, sickness: SicknessSettings) -> ChannelRecord:
    recovery_s = (BPS // sickness.first_share_bps).bit_length() * _step_s(record, sickness) if record.sick_count else 0
    forgiven = now_s - record.state_since_s >= recovery_s + sickness.forgiven_after_s
    sick_count = 1 if forgiven else min(record.sick_count + 1, _MAX_SICK_COUNT)
    return structs.replace(
        record, sick=True, sick_count=sick_count, state_since_s=now_s, success_streak=0, skipped=0, probed_at_s=now_s
    )


def _recovered(record: ChannelRecord, now_s: int) -> ChannelRecord:
    """Drop the outcomes of the sickness.

    Only the probes that ended it count, with the gateway's figure.
    """
    return structs.replace(
        record,
        sick=False,
        good=record.success_streak * _PAYMENT_WEIGHT,
        bad=0,
        failure_streak_halves=0,
        success_streak=0,
        state_since_s=now_s,
    )
