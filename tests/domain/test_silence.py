"""Silent sources: a method is undetermined exactly if a source that could refuse it is silent."""

from __future__ import annotations

import pytest

from cashier.domain.facts import CardStatus, ChannelStatus
from cashier.domain.pay_method import Availability, Health, Kind, ReasonCode, Remedy, RemedyType
from cashier.source_errors import MissingCause
from tests.domain.builders import OPTIONAL, World, account, card, channel, member, one_of_each, quota

AVAILABLE, UNDETERMINED, UNAVAILABLE = Availability.AVAILABLE, Availability.UNDETERMINED, Availability.UNAVAILABLE

# By kind: the sources that could refuse it. Silence of any other source changes nothing.
REFUSERS = {kind: {"channel", "quota"} for kind in Kind} | {
    Kind.QUICK_PAY: {"card", "channel", "quota"},
    Kind.AGREEMENT: {"card", "channel", "quota"},
    Kind.BALANCE: {"balance", "quota"},
    Kind.FREE: set(),
}


@pytest.mark.parametrize("source", OPTIONAL)
@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.FREE])
def test_a_kind_is_undetermined_exactly_when_a_source_that_could_refuse_it_is_silent(kind: Kind, source: str) -> None:
    [method] = [
        method for method in one_of_each(silent={source: MissingCause.TIMEOUT}).methods() if method.kind is kind
    ]
    if source not in REFUSERS[kind]:
        assert method.availability is AVAILABLE
        assert method.reason is None
        return
    assert method.availability is UNDETERMINED
    assert method.reason is not None
    assert (method.reason.code, method.reason.source) == (ReasonCode.SOURCE_TIMEOUT, source)
    assert method.reason.remedy == Remedy(RemedyType.RETRY)


def test_with_all_sources_silent_every_kind_is_still_listed() -> None:
    methods = one_of_each(silent=dict.fromkeys(OPTIONAL, MissingCause.TIMEOUT)).methods()
    assert {method.method_id for method in methods} == set(Kind) - {Kind.FREE}
    assert {method.availability for method in methods} == {UNDETERMINED}
    assert {method.health for method in methods} == {Health.UNKNOWN}


@pytest.mark.parametrize(
    ("why", "code"),
    [
        (MissingCause.TIMEOUT, ReasonCode.SOURCE_TIMEOUT),
        (MissingCause.OVERLOADED, ReasonCode.SOURCE_OVERLOADED),
        (MissingCause.SHED, ReasonCode.SOURCE_OVERLOADED),
        (MissingCause.UNREACHABLE, ReasonCode.SOURCE_ERROR),
        (MissingCause.GARBLED, ReasonCode.SOURCE_ERROR),
        (MissingCause.WRONG_IDENTITY, ReasonCode.SOURCE_ERROR),
        (MissingCause.BREAKER_OPEN, ReasonCode.SOURCE_ERROR),
        (MissingCause.SKIPPED, ReasonCode.SOURCE_ERROR),
        (MissingCause.PENDING, ReasonCode.SOURCE_PENDING),
        (MissingCause.NOT_CONFIGURED, ReasonCode.SOURCE_ERROR),
    ],
)
def test_every_missing_cause_has_a_code(why: MissingCause, code: ReasonCode) -> None:
    reason = World(silent={"balance": why}).method("BALANCE").reason
    assert reason is not None
    assert reason.code is code


def test_a_pending_source_has_no_retry_remedy() -> None:
    method = World(silent={"balance": MissingCause.PENDING}).method("BALANCE")
    assert method.availability is UNDETERMINED
    assert method.reason is not None
    assert (method.reason.source, method.reason.remedy) == ("balance", None)


def test_a_refusal_stands_while_another_source_is_silent() -> None:
    frozen = World(
        cards=(card("CMB", status=CardStatus.FROZEN),),
        silent={"channel": MissingCause.TIMEOUT, "quota": MissingCause.TIMEOUT},
    )
    assert frozen.method("QUICK_PAY:c_CMB").availability is UNAVAILABLE
    closed = World(
        channels=(channel(Kind.WALLET, "A", status=ChannelStatus.CLOSED),), silent={"quota": MissingCause.TIMEOUT}
    )
    assert closed.method("WALLET:A").availability is UNAVAILABLE
    short = World(accounts=(account(1),), silent={"quota": MissingCause.TIMEOUT})
    assert short.method("BALANCE:b_1").availability is UNAVAILABLE
    unverified = World(
        silent={"card": MissingCause.TIMEOUT, "balance": MissingCause.TIMEOUT}, member=member(kyc_level=0)
    )
    assert unverified.method("BALANCE").availability is UNAVAILABLE
    assert unverified.method("QUICK_PAY").availability is UNAVAILABLE


def test_each_card_is_listed_while_only_the_gateway_is_silent() -> None:
    world = World(cards=(card("CMB"), card("ICBC")), silent={"channel": MissingCause.UNREACHABLE})
    found = {method.method_id: method for method in world.methods() if method.kind is Kind.QUICK_PAY}
    assert set(found) == {"QUICK_PAY:c_CMB", "QUICK_PAY:c_ICBC"}
    for method in found.values():
        assert (method.availability, method.amount, method.health) == (UNDETERMINED, None, Health.UNKNOWN)


def test_while_the_quotas_are_silent_prices_and_other_limits_are_shown() -> None:
    method = one_of_each(silent={"quota": MissingCause.TIMEOUT}).method("WALLET:ALIPAY")
    assert method.amount is not None
    assert method.limits is not None
    assert method.limits.daily_remaining is None


def test_an_option_is_undetermined_while_the_quotas_are_silent() -> None:
    world = World(
        channels=(channel(Kind.VA, "A"), channel(Kind.VA, "B", status=ChannelStatus.CLOSED)),
        silent={"quota": MissingCause.TIMEOUT},
    )
    assert world.option("VA", "A").availability is UNDETERMINED
    assert world.option("VA", "B").availability is UNAVAILABLE
    assert world.method("VA").availability is UNDETERMINED


def test_a_split_payment_is_undetermined_while_the_gateway_or_the_quotas_are_silent() -> None:
    world = World(cards=(card("CMB"),), accounts=(account(4_000),), channels=(channel(Kind.QUICK_PAY, "CMB"),))
    assert world.method("BALANCE:b_1+QUICK_PAY").availability is AVAILABLE
    for source in ("channel", "quota"):
        method = world.but(silent={source: MissingCause.TIMEOUT}).method("BALANCE:b_1+QUICK_PAY")
        assert method.availability is UNDETERMINED
        assert method.reason is not None
        assert method.reason.source == source


def test_silent_marketing_removes_the_discounts_and_nothing_else() -> None:
    world = one_of_each(quotas=(quota(Kind.WALLET, single=20_000),))
    assert world.but(silent={"marketing": MissingCause.TIMEOUT}).methods() == world.methods()
