"""Whole consultations in virtual time: examples, then properties over random source behaviours."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cashier.consultation.answer import Consultation, OrderUnknown, RequiredSourceUnavailable
from cashier.consultation.flow import ConsultSettings
from cashier.consultation.source_table import ALWAYS_GIVEN, SOURCE_NAMES, SOURCE_SPECS
from cashier.domain.order import Blocked
from cashier.domain.pay_method import Availability, Kind, PayMethod
from cashier.fanout.ask import SourceStatus
from cashier.sandbox import CASES
from cashier.tokens.token_service import TokenService
from tests.support.virtual_consultation import DEADLINE_MS, FAULTS, NEVER_MS, Behaviour, ConsultOutcome, ask, request
from tests.support.virtual_time import run_in_virtual_time

BLOCKED = [name for name in CASES if name.upper() in set(Blocked)]
# The sources that could refuse a method of each kind, beyond the required ones.
COULD_REFUSE = {kind: {"channel", "quota"} for kind in Kind} | {
    Kind.QUICK_PAY: {"card", "channel", "quota"},
    Kind.AGREEMENT: {"card", "channel", "quota"},
    Kind.BALANCE: {"balance", "quota"},
    Kind.FREE: set(),
}
ABOUT_PAYERS = {spec.source.name for spec in SOURCE_SPECS if "user_id" in spec.needs}
HANGS = Behaviour(NEVER_MS)
PATIENT = ConsultSettings(grace_ms=50)


def consult(behaviours: dict[str, Behaviour], case: str = "chinese_shop", **fields: Any) -> Consultation:
    consultation = run_in_virtual_time(ask(behaviours, request(case, **fields))).consultation
    assert isinstance(consultation, Consultation), consultation
    return consultation


def methods_by_id(consultation: Consultation) -> dict[str, PayMethod]:
    return {method.method_id: method for method in consultation.methods}


def could_refuse(method: PayMethod) -> set[str]:
    return COULD_REFUSE[method.kind] | ({"card", "channel"} if method.method_id.endswith("+QUICK_PAY") else set())


def statuses(consultation: Consultation) -> dict[str, SourceStatus]:
    return {report.name: report.status for report in consultation.sources}


def silent_sources(consultation: Consultation, case: str) -> set[str]:
    """The sources without a fresh answer, of those that were asked: for a walk-in not all are."""
    unasked = ABOUT_PAYERS if request(case).user_id is None else set()
    return {name for name, status in statuses(consultation).items() if status is not SourceStatus.FRESH} - unasked


@pytest.mark.parametrize("case", BLOCKED)
def test_an_order_that_cannot_be_paid_is_an_answer(case: str) -> None:
    consultation = consult({}, case)
    blocked = consultation.blocked
    assert blocked is not None
    assert (consultation.payable, blocked.code, consultation.methods, consultation.degraded) == (
        False,
        case.upper(),
        (),
        False,
    )
    assert blocked.message


def test_every_block_has_a_case() -> None:
    assert {name.upper() for name in BLOCKED} == set(Blocked)


def test_an_unknown_order_is_an_error() -> None:
    assert isinstance(run_in_virtual_time(ask({}, request("order_unknown"))).consultation, OrderUnknown)


def test_an_order_of_another_party_hides_title_and_amount() -> None:
    for case in ("order_user_mismatch", "order_merchant_mismatch"):
        order = consult({}, case).order
        assert (order.title, order.amount.value, order.merchant_name, order.country) == ("", 0, None, None)


def test_the_token_of_an_order_of_another_party_hides_the_amount() -> None:
    for case in ("order_user_mismatch", "order_merchant_mismatch"):
        claims = TokenService(["s" * 32]).read_consult_token(consult({}, case).consult_token)
        assert (claims.amount, claims.methods) == (0, ())


def test_a_paid_order_waits_for_no_source() -> None:
    outcome = run_in_virtual_time(
        ask(dict.fromkeys(("merchant", "member", "card", "quota"), HANGS), request("order_paid"))
    )
    assert outcome.after_ms < 2
    assert isinstance(outcome.consultation, Consultation)
    assert statuses(outcome.consultation)["quota"] is SourceStatus.SKIPPED


@pytest.mark.parametrize("name", ["order", "merchant", "member"])
@pytest.mark.parametrize("fault", [*FAULTS, None])
def test_without_a_required_source_there_is_no_answer(name: str, fault: str | None) -> None:
    outcome = run_in_virtual_time(ask({name: Behaviour(1, fault) if fault else HANGS}, request("chinese_shop")))
    assert isinstance(outcome.consultation, RequiredSourceUnavailable)
    assert outcome.consultation.failed == (name,)
    assert outcome.after_ms <= DEADLINE_MS


@pytest.mark.parametrize("name", ["card", "balance", "channel", "quota"])
def test_a_method_that_a_silent_source_could_refuse_is_undetermined_and_names_it(name: str) -> None:
    consultation = consult({name: HANGS})
    undetermined = [method for method in consultation.methods if method.availability is Availability.UNDETERMINED]
    assert undetermined
    for method in undetermined:
        assert method.reason is not None
        assert (method.reason.code, method.reason.source) == ("SOURCE_TIMEOUT", name)
        assert name in could_refuse(method)
    assert consultation.degraded
    assert statuses(consultation)[name] is SourceStatus.TIMEOUT


def test_a_method_that_a_silent_source_cannot_refuse_stays_available() -> None:
    assert methods_by_id(consult({"card": HANGS}))["BALANCE:acc_2"].availability is Availability.AVAILABLE
    assert methods_by_id(consult({"channel": HANGS}))["BALANCE:acc_2"].availability is Availability.AVAILABLE
    assert methods_by_id(consult({"balance": HANGS}))["QUICK_PAY:c_2"].availability is Availability.AVAILABLE


def test_silent_marketing_costs_the_grace_and_the_discounts() -> None:
    outcome = run_in_virtual_time(ask({"marketing": HANGS}, request("chinese_shop")))
    assert isinstance(outcome.consultation, Consultation)
    assert outcome.after_ms == pytest.approx(1 + 15)  # the other sources, then the grace
    assert outcome.consultation.degraded
    best = outcome.consultation.methods[0]
    assert best.availability is Availability.AVAILABLE
    assert best.amount is not None
    assert best.amount.discounts == ()


def test_a_definite_refusal_stands_while_another_source_is_silent() -> None:
    for name in ("balance", "channel", "quota"):
        expired = methods_by_id(consult({name: HANGS}))["QUICK_PAY:c_3"]
        assert expired.reason is not None
        assert (expired.availability, expired.reason.code) == (Availability.UNAVAILABLE, "CARD_EXPIRED")


def test_without_claims_only_the_sources_that_need_the_order_wait_for_it() -> None:
    behaviours = {"order": Behaviour(30)}
    claimed, bare = request("chinese_shop"), request("nothing_claimed")
    assert run_in_virtual_time(ask(behaviours, claimed)).after_ms == pytest.approx(30)
    outcome = run_in_virtual_time(ask(behaviours, bare))
    assert outcome.after_ms == pytest.approx(31)
    assert isinstance(outcome.consultation, Consultation)
    started = {report.name: round(report.started_ms) for report in outcome.consultation.sources}
    waiting = {spec.source.name for spec in SOURCE_SPECS if not {*spec.needs} <= {*ALWAYS_GIVEN}}
    assert waiting >= {"channel", "quota", "marketing"}
    assert started == {name: 30 if name in waiting else 0 for name in SOURCE_NAMES}


def test_claims_change_only_the_time() -> None:
    bare, claimed = consult({}, "nothing_claimed"), consult({}, "chinese_shop", locale=None)
    assert bare.methods == claimed.methods


def test_the_deadline_counts_from_the_start_of_the_callers_wait() -> None:
    outcome = run_in_virtual_time(ask({"card": HANGS}, request("chinese_shop", deadline_ms=40), waited_ms=30))
    assert outcome.after_ms == pytest.approx(7)


def test_the_callers_deadline_applies_up_to_the_configured_maximum() -> None:
    behaviours = dict.fromkeys(("card", "balance", "channel", "quota", "marketing"), HANGS)
    assert run_in_virtual_time(ask(behaviours, request("chinese_shop", deadline_ms=40))).after_ms == pytest.approx(37)
    behaviours["order"] = HANGS
    assert run_in_virtual_time(ask(behaviours, request("chinese_shop", deadline_ms=60_000))).after_ms <= 1_000


def test_an_answer_expires_with_the_order_at_the_latest() -> None:
    consultation = consult({})
    assert consultation.expires_at > consultation.consulted_at
    assert consultation.expires_at <= consultation.order.expires_at


any_behaviour = st.builds(
    Behaviour,
    st.sampled_from([0, 1, 5, 20, 79, 99, 101, 130, 149, NEVER_MS]),
    st.sampled_from([None, None, None, *FAULTS]),
)
required_sources = ("order", "merchant", "member")
optional_behaviours = st.fixed_dictionaries(
    dict.fromkeys(("card", "balance", "channel", "quota", "marketing"), any_behaviour)
)
cases = st.sampled_from([name for name in CASES if name not in BLOCKED and name != "order_unknown"])


@given(
    optional_behaviours,
    st.fixed_dictionaries(dict.fromkeys(required_sources, any_behaviour)),
    cases,
    st.sampled_from([5, 20, 90, 150, 300]),
)
def test_every_answer_comes_by_the_deadline(
    optional: dict[str, Behaviour], required: dict[str, Behaviour], case: str, deadline_ms: int
) -> None:
    outcome = run_in_virtual_time(ask({**optional, **required}, request(case, deadline_ms=deadline_ms)))
    assert outcome.after_ms <= deadline_ms
    assert isinstance(outcome.consultation, (Consultation, RequiredSourceUnavailable))
    assert set(outcome.calls.values()) <= {1}


@given(optional_behaviours, cases)
def test_no_method_is_available_that_a_silent_source_could_refuse(optional: dict[str, Behaviour], case: str) -> None:
    consultation = run_in_virtual_time(ask(optional, request(case))).consultation
    assert isinstance(consultation, Consultation)
    silent = silent_sources(consultation, case)
    for method in consultation.methods:
        if method.availability is Availability.AVAILABLE:
            assert not silent & could_refuse(method), method.method_id
        if method.availability is Availability.UNDETERMINED:
            assert method.reason is not None
            assert method.reason.source in silent & could_refuse(method)


@given(optional_behaviours, cases)
def test_sums_add_up(optional: dict[str, Behaviour], case: str) -> None:
    consultation = run_in_virtual_time(ask(optional, request(case))).consultation
    assert isinstance(consultation, Consultation)
    for method in consultation.methods:
        for amount in filter(None, (method.amount, *(option.amount for option in method.options))):
            discounts = sum(discount.amount.value for discount in amount.discounts)
            assert amount.order == consultation.order.amount
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
    names = (*required_sources, "card", "balance", "channel", "quota", "marketing")
    fault = dict.fromkeys(broken, "unreachable")
    in_turn = {name: Behaviour(delay, fault.get(name)) for name, delay in zip(names, delays, strict=True)}
    at_once = {name: Behaviour(1, fault.get(name)) for name in names}
    spread, together = (
        run_in_virtual_time(ask(behaviours, request(case), PATIENT)) for behaviours in (in_turn, at_once)
    )
    assert content(spread) == content(together)


def content(outcome: ConsultOutcome) -> bytes:
    """An answer without its times and token."""
    answer = outcome.consultation
    assert isinstance(answer, Consultation)
    return msgspec.json.encode((answer.order.order_id, answer.payable, answer.blocked, answer.degraded, answer.methods))
