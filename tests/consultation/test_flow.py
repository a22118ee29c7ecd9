"""What holds for whole consultations: examples by name, then properties over random worlds in virtual time."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cashier.consultation.flow import Consultation, ConsultSettings, OrderUnknown, RequiredSourceUnavailable
from cashier.domain.order import Blocked
from cashier.domain.pay_method import Availability, Kind, PayMethod
from cashier.fanout.ask import SourceStatus
from cashier.sandbox import CASES
from cashier.tokens.token_service import TokenService
from tests.fanout.scripted_sources import in_virtual_time
from tests.support.virtual_consultation import DEADLINE_MS, FAULTS, NEVER_MS, ConsultOutcome, Behaviour, ask, request

BLOCKED = [name for name in CASES if name.upper() in set(Blocked)]
# Who could refuse a way of each kind, beyond the required sources.
COULD_REFUSE = {kind: {"channel", "quota"} for kind in Kind} | {
    Kind.QUICK_PAY: {"card", "channel", "quota"},
    Kind.AGREEMENT: {"card", "channel", "quota"},
    Kind.BALANCE: {"balance", "quota"},
}
HANGS = Behaviour(NEVER_MS)
PATIENT = ConsultSettings(grace_ms=50)


def consulted(fates: dict[str, Behaviour], case: str = "chinese_shop", **other: Any) -> Consultation:
    found = in_virtual_time(ask(fates, request(case, **other))).consultation
    assert isinstance(found, Consultation), found
    return found


def by_id(consultation: Consultation) -> dict[str, PayMethod]:
    return {method.method_id: method for method in consultation.methods}


def could_refuse(method: PayMethod) -> set[str]:
    return COULD_REFUSE[method.kind] | ({"card", "channel"} if method.method_id.endswith("+QUICK_PAY") else set())


def statuses(consultation: Consultation) -> dict[str, SourceStatus]:
    return {report.name: report.status for report in consultation.sources}


@pytest.mark.parametrize("case", BLOCKED)
def test_an_order_that_cannot_be_paid_is_an_answer(case: str) -> None:
    found = consulted({}, case)
    assert found.blocked is not None
    assert (found.payable, found.blocked.code, found.methods, found.degraded) == (False, case.upper(), (), False)
    assert found.blocked.message


def test_all_blocked_cases_are_shown() -> None:
    assert {name.upper() for name in BLOCKED} == set(Blocked)


def test_an_order_that_nobody_knows_is_an_error() -> None:
    assert isinstance(in_virtual_time(ask({}, request("order_unknown"))).consultation, OrderUnknown)


def test_of_somebody_elses_order_nothing_is_told() -> None:
    for case in ("order_user_mismatch", "order_merchant_mismatch"):
        found = consulted({}, case)
        assert (found.order.title, found.order.amount.value) == ("", 0)


def test_the_token_tells_nothing_of_somebody_elses_order_either() -> None:
    for case in ("order_user_mismatch", "order_merchant_mismatch"):
        claims = TokenService(["s" * 32]).read_consult_token(consulted({}, case).consult_token)
        assert (claims.amount, claims.methods) == (0, ())


def test_a_paid_order_waits_for_nobody() -> None:
    asked = in_virtual_time(ask(dict.fromkeys(("merchant", "member", "card", "quota"), HANGS), request("order_paid")))
    assert asked.after_ms < 2
    assert isinstance(asked.consultation, Consultation)
    assert statuses(asked.consultation)["quota"] is SourceStatus.SKIPPED


@pytest.mark.parametrize("name", ["order", "merchant", "member"])
@pytest.mark.parametrize("fault", [*FAULTS, None])
def test_without_a_required_source_there_is_no_answer(name: str, fault: str | None) -> None:
    asked = in_virtual_time(ask({name: Behaviour(1, fault) if fault else HANGS}, request("chinese_shop")))
    assert isinstance(asked.consultation, RequiredSourceUnavailable)
    assert asked.consultation.failed == (name,)
    assert asked.after_ms <= DEADLINE_MS


@pytest.mark.parametrize("name", ["card", "balance", "channel", "quota"])
def test_what_a_silent_source_could_refuse_is_undetermined_and_says_who_was_silent(name: str) -> None:
    found = consulted({name: HANGS})
    undetermined = [method for method in found.methods if method.availability is Availability.UNDETERMINED]
    assert undetermined
    for method in undetermined:
        assert method.reason is not None
        assert (method.reason.code, method.reason.source) == ("SOURCE_TIMEOUT", name)
        assert name in could_refuse(method)
    assert found.degraded
    assert statuses(found)[name] is SourceStatus.TIMEOUT


def test_what_a_silent_source_has_no_say_in_stays_available() -> None:
    assert by_id(consulted({"card": HANGS}))["BALANCE:acc_2"].availability is Availability.AVAILABLE
    assert by_id(consulted({"channel": HANGS}))["BALANCE:acc_2"].availability is Availability.AVAILABLE
    assert by_id(consulted({"balance": HANGS}))["QUICK_PAY:c_2"].availability is Availability.AVAILABLE


def test_marketing_may_be_silent_and_then_nothing_is_cheaper() -> None:
    asked = in_virtual_time(ask({"marketing": HANGS}, request("chinese_shop")))
    assert isinstance(asked.consultation, Consultation)
    assert asked.after_ms == pytest.approx(1 + 15)  # the others, and then the grace
    assert asked.consultation.degraded
    best = asked.consultation.methods[0]
    assert best.availability is Availability.AVAILABLE
    assert best.amount is not None
    assert best.amount.discounts == ()


def test_a_definite_refusal_stands_whoever_is_silent() -> None:
    for name in ("balance", "channel", "quota"):
        expired = by_id(consulted({name: HANGS}))["QUICK_PAY:c_3"]
        assert expired.reason is not None
        assert (expired.availability, expired.reason.code) == (Availability.UNAVAILABLE, "CARD_EXPIRED")


def test_without_claims_only_what_needs_the_order_waits_for_it() -> None:
    fates = {"order": Behaviour(30)}
    claimed, bare = request("chinese_shop"), request("nothing_claimed")
    assert in_virtual_time(ask(fates, claimed)).after_ms == pytest.approx(30)
    found = in_virtual_time(ask(fates, bare))
    assert found.after_ms == pytest.approx(31)
    assert isinstance(found.consultation, Consultation)
    started = {report.name: round(report.started_ms) for report in found.consultation.sources}
    assert started == {
        "order": 0,
        "merchant": 0,
        "member": 0,
        "card": 0,
        "balance": 0,
        "channel": 30,
        "quota": 30,
        "marketing": 30,
    }


def test_claims_change_nothing_but_the_time() -> None:
    bare, claimed = consulted({}, "nothing_claimed"), consulted({}, "chinese_shop", locale=None)
    assert bare.methods == claimed.methods


def test_the_deadline_counts_from_when_the_caller_began_to_wait() -> None:
    asked = in_virtual_time(ask({"card": HANGS}, request("chinese_shop", deadline_ms=40), waited_ms=30))
    assert asked.after_ms == pytest.approx(7)


def test_the_callers_deadline_is_kept_and_the_configured_maximum_caps_it() -> None:
    fates = dict.fromkeys(("card", "balance", "channel", "quota", "marketing"), HANGS)
    assert in_virtual_time(ask(fates, request("chinese_shop", deadline_ms=40))).after_ms == pytest.approx(37)
    fates["order"] = HANGS
    assert in_virtual_time(ask(fates, request("chinese_shop", deadline_ms=60_000))).after_ms <= 1_000


def test_an_answer_offers_what_its_token_says_and_no_longer() -> None:
    found = consulted({})
    assert found.expires_at > found.consulted_at
    assert found.expires_at <= found.order.expires_at


fates = st.builds(
    Behaviour, st.sampled_from([0, 1, 5, 20, 79, 99, 101, 130, 149, NEVER_MS]), st.sampled_from([None, None, None, *FAULTS])
)
healthy = ("order", "merchant", "member")
worlds = st.fixed_dictionaries(dict.fromkeys(("card", "balance", "channel", "quota", "marketing"), fates))
cases = st.sampled_from([name for name in CASES if name not in BLOCKED and name != "order_unknown"])


@given(worlds, st.fixed_dictionaries(dict.fromkeys(healthy, fates)), cases, st.sampled_from([5, 20, 90, 150, 300]))
def test_every_answer_comes_by_the_deadline(
    some: dict[str, Behaviour], required: dict[str, Behaviour], case: str, deadline_ms: int
) -> None:
    asked = in_virtual_time(ask({**some, **required}, request(case, deadline_ms=deadline_ms)))
    assert asked.after_ms <= deadline_ms
    assert isinstance(asked.consultation, (Consultation, RequiredSourceUnavailable))
    assert set(asked.calls.values()) <= {1}


@given(worlds, cases)
def test_no_method_is_available_that_a_silent_source_could_refuse(some: dict[str, Behaviour], case: str) -> None:
    found = in_virtual_time(ask(some, request(case))).consultation
    assert isinstance(found, Consultation)
    silent = {name for name, status in statuses(found).items() if status is not SourceStatus.FRESH}
    for method in found.methods:
        if method.availability is Availability.AVAILABLE:
            assert not silent & could_refuse(method), method.method_id
        if method.availability is Availability.UNDETERMINED:
            assert method.reason is not None
            assert method.reason.source in silent & could_refuse(method)


@given(worlds, cases)
def test_sums_add_up(some: dict[str, Behaviour], case: str) -> None:
    found = in_virtual_time(ask(some, request(case))).consultation
    assert isinstance(found, Consultation)
    for method in found.methods:
        for amount in filter(None, (method.amount, *(option.amount for option in method.options))):
            discounts = sum(discount.amount.value for discount in amount.discounts)
            assert amount.order == found.order.amount
            assert amount.payable.value == amount.order.value - discounts + amount.fee.value
        if method.legs:
            assert method.amount is not None
            assert sum(leg.amount.value for leg in method.legs) == method.amount.payable.value


@given(
    st.permutations([0, 3, 6, 9, 12, 15, 18, 21]),
    st.sets(st.sampled_from(["card", "balance", "channel", "quota", "marketing"])),
    cases,
)
def test_any_order_of_arrival_gives_the_same_answer(delays: list[int], broken: set[str], case: str) -> None:
    names = (*healthy, "card", "balance", "channel", "quota", "marketing")
    fault = dict.fromkeys(broken, "unreachable")
    in_turn = {name: Behaviour(delay, fault.get(name)) for name, delay in zip(names, delays, strict=True)}
    at_once = {name: Behaviour(1, fault.get(name)) for name in names}
    one, other = (in_virtual_time(ask(given, request(case), PATIENT)) for given in (in_turn, at_once))
    assert told(one) == told(other)


def told(asked: ConsultOutcome) -> bytes:
    """What an answer says, but for times."""
    assert isinstance(asked.consultation, Consultation)
    found = asked.consultation
    return msgspec.json.encode((found.order.order_id, found.payable, found.blocked, found.degraded, found.methods))
