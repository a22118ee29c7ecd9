"""Instalments: a method per provider, an option per term, each with its own fee and price."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from cashier.domain.channel_candidates import ChosenMethod, candidates
from cashier.domain.facts import MAX_INSTALMENTS, MAX_TERMS, Channel, ChannelStatus, InstalmentTerm, Promotion
from cashier.domain.legs import EngineLeg, EngineLegType, legs
from cashier.domain.money import MAX_VALUE, instalments, share_half_up
from cashier.domain.offer_diff import Change, ChangeType
from cashier.domain.pay_method import Availability, InstalmentTerms, Kind, NextAction, Option, PayMethod, ReasonCode
from cashier.source_errors import Garbled, MissingCause
from cashier.sources.channel import CHANNEL
from tests.domain.builders import World, channel, cny, order, promotion, quota, request, with_terms
from tests.domain.test_offer_diff import TOKENS, consult_claims, find_changes
from tests.domain.world_strategies import promotions, worlds

AVAILABLE, UNAVAILABLE, UNDETERMINED = Availability.AVAILABLE, Availability.UNAVAILABLE, Availability.UNDETERMINED
T_3, T_6, T_12 = (
    InstalmentTerm("t_3", 3, 230, 1_370),
    InstalmentTerm("t_6", 6, 450, 1_527),
    InstalmentTerm("a_12", 12, 750, 1_359),
)
FLEXI = "INSTALMENT:FLEXI"


def rail(*terms: InstalmentTerm, channel_id: str = "ch_1", **changes: Any) -> Channel:
    return channel(Kind.INSTALMENT, "FLEXI", channel_id, terms=terms or (T_3, T_6, T_12), **changes)


def world(*rails: Channel, **changes: Any) -> World:
    return World(channels=rails or (rail(),)).but(**changes)


def method(*rails: Channel, **changes: Any) -> PayMethod:
    return world(*rails, **changes).method(FLEXI)


def codes(found: PayMethod) -> dict[str, ReasonCode | None]:
    return {option.option_id: None if option.reason is None else option.reason.code for option in found.options}


@given(st.integers(0, MAX_VALUE), st.integers(2, MAX_INSTALMENTS))
def test_instalments_add_up_and_only_the_last_differs(value: int, count: int) -> None:
    each, last = instalments(value, count)
    assert each * (count - 1) + last == value
    assert 0 <= last - each < count


@given(worlds())
def test_the_terms_of_every_option_add_up_to_its_price(world: World) -> None:
    for found in world.methods():
        for option in found.options:
            assert (option.terms is not None) is (found.kind is Kind.INSTALMENT)
            if option.terms is not None:
                assert option.amount is not None
                terms, payable = option.terms, option.amount.payable
                assert {terms.per_instalment.currency, terms.last_instalment.currency} == {payable.currency}
                assert terms.per_instalment.value * (terms.count - 1) + terms.last_instalment.value == payable.value
                assert option.availability is not AVAILABLE or terms.per_instalment.value or not payable.value


def test_a_provider_is_one_method_with_an_option_per_term_fewest_instalments_first() -> None:
    found = method()
    assert (found.title, found.icon, found.next_action) == (
        "Instalments, FLEXI Pay",
        "instalment/flexi",
        NextAction.REDIRECT,
    )
    assert (found.required_fields, found.availability) == (("option_id",), AVAILABLE)
    assert [(option.option_id, option.title, option.terms) for option in found.options] == [
        ("t_3", "3 × CN¥34.10", InstalmentTerms(3, cny(3_410), cny(3_410), 1_370)),
        ("t_6", "6 × CN¥17.41", InstalmentTerms(6, cny(1_741), cny(1_745), 1_527)),
        ("a_12", "12 × CN¥8.95", InstalmentTerms(12, cny(895), cny(905), 1_359)),
    ]
    assert [option.amount and option.amount.fee for option in found.options] == [cny(230), cny(450), cny(750)]
    assert found.amount == found.options[0].amount, "the figures of the method are those of its cheapest term"


def test_in_chinese_a_term_is_named_by_its_count_and_amount() -> None:
    found = method(request=request(locale="zh-CN"))
    assert (found.title, found.options[0].title) == ("分期付款（FLEXI Pay）", "¥34.10 × 3期")


def test_a_discount_is_taken_before_the_fee() -> None:
    [option] = method(rail(T_3), promotions=(promotion("p_1", 1_000),)).options
    assert option.amount is not None
    assert (option.amount.fee, option.amount.payable) == (cny(207), cny(9_207))
    assert option.terms == InstalmentTerms(3, cny(3_069), cny(3_069), 1_370)


def test_of_several_channels_each_term_has_the_best_quote() -> None:
    found = method(rail(T_3, structs.replace(T_6, fee_bps=100)), rail(T_6, T_12, channel_id="ch_2"))
    assert [option.amount and option.amount.fee.value for option in found.options] == [230, 100, 750]
    closed = rail(structs.replace(T_3, fee_bps=0), channel_id="ch_0", status=ChannelStatus.CLOSED)
    [option] = method(closed, rail(T_3)).options
    assert (option.availability, option.amount and option.amount.fee.value) == (AVAILABLE, 230)


def test_terms_of_one_count_are_ordered_by_id_and_stay_apart() -> None:
    subsidised = InstalmentTerm("t_3_free", 3, 0, 0)
    found = method(rail(subsidised, T_3))
    assert [option.option_id for option in found.options] == ["t_3", "t_3_free"]
    assert found.amount == found.options[1].amount


@pytest.mark.parametrize("terms", [None, ()])
def test_a_channel_without_terms_offers_nothing(terms: Any) -> None:
    bare = structs.replace(rail(), terms=terms)
    assert world(bare).methods() == ()
    assert [option.option_id for option in method(bare, rail(T_3, channel_id="ch_2")).options] == ["t_3"]


@pytest.mark.parametrize(
    ("limit", "refused"),
    [
        ({"single": 10_449}, {"t_3": None, "t_6": "ABOVE_SINGLE_LIMIT", "a_12": "ABOVE_SINGLE_LIMIT"}),
        ({"daily": (20_000, 9_550)}, {"t_3": None, "t_6": None, "a_12": "DAILY_LIMIT_EXCEEDED"}),
        ({"monthly": (20_000, 9_251)}, {"t_3": None, "t_6": None, "a_12": "MONTHLY_LIMIT_EXCEEDED"}),
        ({"monthly": (10_000, 0)}, dict.fromkeys(("t_3", "t_6", "a_12"), "MONTHLY_LIMIT_EXCEEDED")),
    ],
)
def test_the_credit_limit_is_tested_on_the_payable_amount_of_each_term(limit: Any, refused: dict[str, Any]) -> None:
    found = method(quotas=(quota(Kind.INSTALMENT, bank="FLEXI", **limit),))
    assert codes(found) == refused
    assert found.availability is (AVAILABLE if None in refused.values() else UNAVAILABLE)


def test_the_channels_limits_and_status_refuse_its_terms() -> None:
    assert codes(method(rail(most=10_449))) == {
        "t_3": None,
        "t_6": ReasonCode.ABOVE_SINGLE_LIMIT,
        "a_12": ReasonCode.ABOVE_SINGLE_LIMIT,
    }
    assert set(codes(method(rail(least=20_000))).values()) == {ReasonCode.BELOW_MIN}
    assert set(codes(method(rail(status=ChannelStatus.CLOSED))).values()) == {ReasonCode.CHANNEL_CLOSED}
    assert set(codes(method(rail(terminals=frozenset({"PC"})))).values()) == {ReasonCode.TERMINAL_NOT_SUPPORTED}


def test_a_channel_in_another_currency_has_no_priced_option() -> None:
    found = method(rail(currency="USD"))
    assert (found.options, found.availability) == ((), UNAVAILABLE)
    assert found.reason is not None
    assert found.reason.code is ReasonCode.CURRENCY_NOT_SUPPORTED


def test_no_instalment_is_zero() -> None:
    found = method(rail(InstalmentTerm("t_3", 3, 0, 0), InstalmentTerm("t_6", 6, 0, 0)), order=order(5))
    assert codes(found) == {"t_3": None, "t_6": ReasonCode.BELOW_MIN}
    assert found.options[0].terms == InstalmentTerms(3, cny(1), cny(3), 0)


@pytest.mark.parametrize("source", ["channel", "quota"])
def test_silence_leaves_terms_undetermined(source: str) -> None:
    for found in world(silent={source: MissingCause.TIMEOUT}).methods():
        if found.kind is Kind.INSTALMENT:
            assert found.availability is UNDETERMINED
            assert {option.availability for option in found.options} <= {UNDETERMINED}


def test_a_refused_kind_has_no_options() -> None:
    found = method(catalog=with_terms(Kind.INSTALMENT, offered=False))
    assert (found.availability, found.options) == (UNAVAILABLE, ())


def test_a_fee_of_the_kind_cannot_be_set() -> None:
    [fault] = with_terms(Kind.INSTALMENT, fee_bps=10).faults()
    assert fault.startswith("methods: INSTALMENT.fee_bps cannot be charged")


# Candidates and legs


def found_candidates(world: World, option_id: str | None) -> Any:
    return candidates(world.case(), ChosenMethod(FLEXI, option_id))


def test_only_channels_with_this_term_at_this_price_are_candidates() -> None:
    several = world(
        rail(T_3, T_6, channel_id="ch_1"),
        rail(T_3, channel_id="ch_2"),
        rail(structs.replace(T_3, fee_bps=231), channel_id="ch_dearer"),
        rail(structs.replace(T_3, apr_bps=1_400), channel_id="ch_other_rate"),
        rail(structs.replace(T_3, count=4), channel_id="ch_other_count"),
        rail(T_12, channel_id="ch_other_term"),
    )
    chosen = found_candidates(several, "t_3")
    ids = {found.channel_id for found in chosen.channels}
    [option] = [option for option in several.method(FLEXI).options if option.option_id == "t_3"]
    assert option.terms is not None
    assert ids == {"ch_1", "ch_2"}
    assert (option.terms.count, option.terms.apr_bps, option.amount) == (3, 1_370, chosen.quote.amounts)


@pytest.mark.parametrize("option_id", [None, "t_9", "", "FLEXI"])
def test_a_term_that_is_not_offered_has_no_candidates(option_id: str | None) -> None:
    chosen = found_candidates(world(), option_id)
    assert (chosen.channels, chosen.quote.refusal and chosen.quote.refusal.code) == ((), ReasonCode.NO_CHANNEL)


def test_the_engines_leg_names_the_term() -> None:
    chosen = found_candidates(world(), "t_6")
    assert legs(method(), chosen.quote, "ch_1") == (
        EngineLeg(type=EngineLegType.CHANNEL, id="ch_1", channel_id="ch_1", term_id="t_6", amount=cny(10_450)),
    )
    plain = EngineLeg(type=EngineLegType.CHANNEL, id="ch_1", channel_id="ch_1", amount=cny(1))
    assert b"term_id" not in msgspec.json.encode(plain)


def test_where_a_promotion_for_instalments_pays_for_all_no_term_is_needed() -> None:
    paid = world(promotions=(promotion("p_1", 10_000, kinds=frozenset({Kind.INSTALMENT})),))
    chosen = found_candidates(paid, None)
    assert (chosen.quote.refusal, chosen.channels) == (None, ())
    assert [leg.id for leg in legs(paid.method(FLEXI), chosen.quote, None)] == ["p_1"]  # type: ignore[union-attr]


# What changed since


def changed(term: InstalmentTerm) -> tuple[Change, ...]:
    return find_changes(world(), world(rail(term, T_6, T_12)), FLEXI, "t_3")


def test_an_unchanged_term_is_no_change_whatever_happens_to_the_others() -> None:
    others = rail(T_3, structs.replace(T_6, fee_bps=0, apr_bps=0), InstalmentTerm("t_24", 24, 900, 900))
    assert find_changes(world(), world(others), FLEXI, "t_3") == ()


def test_a_changed_fee_of_the_term_is_a_changed_price() -> None:
    assert changed(structs.replace(T_3, fee_bps=240)) == (
        Change(what=ChangeType.PRICE_CHANGED, before=cny(10_230), after=cny(10_240)),
        Change(what=ChangeType.PRICE_CHANGED, before=cny(230), after=cny(240), subject="fee"),
    )


def test_a_changed_annual_rate_or_count_is_a_change_at_the_same_price() -> None:
    assert changed(structs.replace(T_3, apr_bps=1_400)) == (
        Change(what=ChangeType.PRICE_CHANGED, before="1370", after="1400", subject="apr_bps"),
    )
    assert changed(structs.replace(T_3, count=4)) == (
        Change(what=ChangeType.PRICE_CHANGED, before="3", after="4", subject="count"),
    )


def test_a_term_that_is_gone_is_closed() -> None:
    [change] = find_changes(world(), world(rail(T_6, T_12)), FLEXI, "t_3")
    assert (change.what, change.subject, change.reason) == (ChangeType.METHOD_CLOSED, "t_3", ReasonCode.NOT_OFFERED)


def test_the_token_holds_every_priced_term() -> None:
    [row] = consult_claims(world()).methods
    assert [(option.id, option.payable, option.fee, option.terms) for option in row.options] == [
        ("t_3", 10_230, 230, (3, 1_370)),
        ("t_6", 10_450, 450, (6, 1_527)),
        ("a_12", 10_750, 750, (12, 1_359)),
    ]


@given(promotions("CNY"), st.sampled_from([1, 60, 100]), st.sampled_from([0, 1_000, 10_000]), st.sampled_from([1, 7]))
def test_the_token_gives_back_the_price_of_every_term(
    coupons: tuple[Promotion, ...], least: int, fee_bps: int, step: int
) -> None:
    """Near a channel's minimum the terms have different promotions, elsewhere the same."""
    terms = tuple(InstalmentTerm(f"t_{index}", index + 2, fee_bps * index, 0) for index in range(2))
    here = world(rail(*terms, least=least, step=step), order=order(150), promotions=coupons)
    if (found := next((found for found in here.methods() if found.method_id == FLEXI), None)) is None:
        return
    claims = consult_claims(here)
    for option in found.options:
        row = claims.find_price(FLEXI, option.option_id)
        if found.availability is AVAILABLE and option.amount is not None:
            assert row is not None
            [price] = row.options
            off = tuple((discount.promotion_id, discount.amount.value) for discount in option.amount.discounts)
            assert (price.payable, price.fee, price.promotions) == (
                option.amount.payable.value,
                option.amount.fee.value,
                off,
            )


def test_a_token_has_room_for_the_terms_of_many_providers() -> None:
    """A submit has at most 64 KiB. A longer token would refuse every method of the consultation."""
    terms = tuple(InstalmentTerm(f"term_{index}", index + 2, 10 * index, 1_500) for index in range(MAX_TERMS))
    banks = tuple(channel(Kind.INSTALMENT, f"BANK{index}", f"ch_{index}", terms=terms) for index in range(25))
    coupons = tuple(promotion(f"a_coupon_with_a_long_name_{index}", 100) for index in range(5))
    here = World(channels=banks, promotions=coupons)
    row = consult_claims(here).find_price("INSTALMENT:BANK7", "term_9")
    assert row is not None
    assert len(row.options[0].promotions) == len(coupons)
    assert len(TOKENS.sign(here.request, here.order.amount, 0, here.methods(), 0, 600)) < 49_152


# The gateway's answer

ANSWER: dict[str, Any] = {
    "channel_id": "ch_1",
    "kind": "INSTALMENT",
    "provider": "FLEXI",
    "provider_name": "Flexi Pay",
    "status": "OPEN",
    "currencies": ["CNY"],
    "min": {"currency": "CNY", "value": 1},
    "max": {"currency": "CNY", "value": 5_000_000},
    "cost_bps": 30,
    "success_bps": 9_900,
    "terminals": ["APP"],
}
TERM: dict[str, Any] = {"term_id": "t_3", "count": 3, "fee_bps": 230, "apr_bps": 1_370}


def parse(**changes: Any) -> Any:
    inputs = {"currency": "CNY", "country": "CN"}
    return CHANNEL.parse(200, msgspec.json.encode({"channels": [ANSWER | changes]}), inputs)


@pytest.mark.parametrize(
    "terms",
    [
        [TERM | {"count": 1}],
        [TERM | {"count": 0}],
        [TERM | {"count": MAX_INSTALMENTS + 1}],
        [TERM | {"count": "3"}],
        [TERM | {"fee_bps": -1}],
        [TERM | {"fee_bps": 10_001}],
        [TERM | {"apr_bps": -1}],
        [TERM | {"apr_bps": 12.5}],
        [TERM | {"term_id": ""}],
        [TERM | {"term_id": "t 3"}],
        [{name: value for name, value in TERM.items() if name != "apr_bps"}],
        [TERM, TERM | {"count": 6}],
        [TERM | {"term_id": f"t_{n}"} for n in range(MAX_TERMS + 1)],
        {"t_3": TERM},
        "3,6,12",
    ],
    ids=str,
)
def test_an_invalid_term_makes_the_answer_invalid(terms: Any) -> None:
    with pytest.raises((Garbled, msgspec.ValidationError)):
        parse(terms=terms)


@pytest.mark.parametrize("terms", [None, [], [TERM], [TERM, TERM | {"term_id": "t_3_free", "fee_bps": 0}]], ids=str)
def test_other_terms_are_read(terms: Any) -> None:
    found = parse(terms=terms).by_id["ch_1"].terms
    assert len(found or ()) == len(terms or ())
    assert parse(kind="WALLET").by_id["ch_1"].terms is None


@given(st.integers(0, 10**12), st.integers(2, MAX_INSTALMENTS), st.integers(0, 10_000))
def test_the_fee_of_a_term_is_its_share_of_what_the_channel_carries(value: int, count: int, fee_bps: int) -> None:
    [option] = method(
        rail(InstalmentTerm("t", count, fee_bps, 0), least=0, most=10**15), order=order(value or 1)
    ).options
    assert isinstance(option, Option)
    assert option.amount is not None
    assert option.amount.fee.value == share_half_up(value or 1, fee_bps)
