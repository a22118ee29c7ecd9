"""Changes since the offer: each type, no false ones, and none for what could not be checked."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from cashier.domain.facts import CardStatus, ChannelStatus
from cashier.domain.money import Money
from cashier.domain.offer_diff import AcceptedOffer, Change, ChangeType, CurrentOffer, changes, unverified
from cashier.domain.order import Blocked, Product, Terminal
from cashier.domain.pay_method import Availability, Kind, PayMethod, ReasonCode
from cashier.domain.payment_request import PaymentChoice
from cashier.source_errors import MissingCause
from cashier.tokens.consult_token import ConsultClaims, ConsultTokens, OfferedPrice
from cashier.tokens.jws import Keyring
from tests.domain.builders import World, account, agreement, card, channel, cny, order, promotion, quota
from tests.domain.world_strategies import worlds

TOKENS = ConsultTokens(Keyring(["s" * 32]))


def consult_claims(world: World) -> ConsultClaims:
    """The offer as acceptance receives it, in a consult token."""
    now_s = int(world.now.timestamp())
    ends_s = int(world.order.expires_at.timestamp())
    return TOKENS.read(TOKENS.sign(world.request, world.order.amount, ends_s, world.methods(), now_s, 600))


def choice_of(world: World, method_id: str, option_id: str | None = None, **changed: Any) -> PaymentChoice:
    """The payer's choice, with the price and the promotions as shown."""
    method = next((method for method in world.methods() if method.method_id == method_id), None)
    option = (
        None
        if method is None
        else next((candidate for candidate in method.options if candidate.option_id == option_id), None)
    )
    amounts = None if method is None else method.amount if option is None else option.amount
    return structs.replace(
        PaymentChoice(
            order_id="o_1",
            user_id="u_1",
            merchant_id="m_1",
            product=Product.STANDARD_CASHIER,
            terminal=Terminal.APP,
            method_id=method_id,
            option_id=option_id,
            promotion_ids=() if amounts is None else tuple(discount.promotion_id for discount in amounts.discounts),
            expected_payable=cny(1) if amounts is None else amounts.payable,
        ),
        **changed,
    )


def accepted_offer(world: World, choice: PaymentChoice) -> AcceptedOffer:
    return AcceptedOffer(world.order.amount, consult_claims(world).find_price(choice.method_id, choice.option_id))


def current_offer(world: World, **changed: Any) -> CurrentOffer:
    return structs.replace(
        CurrentOffer(world.order.amount, world.methods(), None, world.case().promotion_gap), **changed
    )


def find_changes(
    earlier: World, later: World, method_id: str, option_id: str | None = None, **changed: Any
) -> tuple[Change, ...]:
    choice = choice_of(earlier, method_id, option_id, **changed)
    return changes(choice, accepted_offer(earlier, choice), current_offer(later))


def find_unverified(earlier: World, later: World, method_id: str, option_id: str | None = None) -> tuple[str, ...]:
    choice = choice_of(earlier, method_id, option_id)
    return unverified(choice, accepted_offer(earlier, choice), current_offer(later))


SHOP = World(
    cards=(card("CMB"), card("ICBC")),
    accounts=(account(50_000), account(4_000, "b_2")),
    agreements=(agreement(),),
    channels=(
        channel(Kind.QUICK_PAY, "CMB"),
        channel(Kind.QUICK_PAY, "ICBC", fee_bps=100),
        channel(Kind.AGREEMENT, "UNIONPAY"),
        channel(Kind.VA, "BCA"),
        channel(Kind.VA, "BNI", fee_bps=50),
        channel(Kind.WALLET, "ALIPAY"),
    ),
    promotions=(promotion("p_1", 500), promotion("p_2", 300, banks=frozenset({"ICBC"}))),
)
COMBINED = "BALANCE:b_2+QUICK_PAY"
FEELESS = cny(0)


def but(**changed: Any) -> World:
    return SHOP.but(**changed)


def test_an_unchanged_offer_has_no_changes() -> None:
    for method in SHOP.methods():
        for option_id in (None, *(option.option_id for option in method.options)):
            if method.availability is Availability.AVAILABLE:
                assert find_changes(SHOP, SHOP, method.method_id, option_id) == ()


def test_a_changed_price_is_reported_with_both_amounts() -> None:
    for off, payable in ((400, 9_600), (600, 9_400)):
        reported = find_changes(SHOP, but(promotions=(promotion("p_1", off),)), "WALLET:ALIPAY")
        assert reported == (
            Change(what=ChangeType.PRICE_CHANGED, before=cny(9_500), after=cny(payable)),
            Change(what=ChangeType.PRICE_CHANGED, before=cny(500), after=cny(off), subject="p_1"),
        )


def test_a_price_that_the_payer_never_saw_is_reported_even_if_lower() -> None:
    for expected in (9_499, 9_501):
        reported = find_changes(SHOP, SHOP, "WALLET:ALIPAY", expected_payable=cny(expected))
        assert reported == (Change(what=ChangeType.PRICE_CHANGED, before=cny(expected), after=cny(9_500)),)
    assert find_changes(SHOP, SHOP, "WALLET:ALIPAY", expected_payable=Money("USD", 9_500))[0].before == Money(
        "USD", 9_500
    )


def test_a_higher_fee_is_reported_as_the_fee_and_in_the_price() -> None:
    dearer = but(channels=(*SHOP.channels[2:], channel(Kind.QUICK_PAY, "CMB", fee_bps=200)))
    assert find_changes(SHOP, dearer, "QUICK_PAY:c_CMB") == (
        Change(what=ChangeType.PRICE_CHANGED, before=cny(9_500), after=cny(9_690)),
        Change(what=ChangeType.PRICE_CHANGED, before=FEELESS, after=cny(190), subject="fee"),
    )


def test_a_promotion_that_is_gone_is_reported_with_its_value() -> None:
    reported = find_changes(SHOP, but(promotions=()), "WALLET:ALIPAY")
    assert reported == (
        Change(what=ChangeType.PROMOTION_GONE, before=cny(500), after=None, subject="p_1"),
        Change(what=ChangeType.PRICE_CHANGED, before=cny(9_500), after=cny(10_000)),
    )


def test_a_replaced_promotion_is_reported_even_at_the_same_price() -> None:
    reported = find_changes(SHOP, but(promotions=(promotion("p_9", 500),)), "WALLET:ALIPAY")
    assert reported == (
        Change(what=ChangeType.PROMOTION_GONE, before=cny(500), after=None, subject="p_1"),
        Change(what=ChangeType.PRICE_CHANGED, before=None, after=cny(500), subject="p_9"),
    )


def test_a_requested_promotion_that_was_never_offered_is_gone() -> None:
    reported = find_changes(SHOP, SHOP, "WALLET:ALIPAY", promotion_ids=("p_1", "p_7"))
    assert reported == (Change(what=ChangeType.PROMOTION_GONE, before=None, after=None, subject="p_7"),)


def test_an_insufficient_balance_is_reported_with_its_part_and_its_amount() -> None:
    reported = find_changes(SHOP, but(accounts=(account(9_000),)), "BALANCE:b_1")
    short = ReasonCode.BALANCE_INSUFFICIENT
    assert reported == (
        Change(
            what=ChangeType.BALANCE_SHORT,
            before=cny(9_500),
            after=cny(9_000),
            subject="BALANCE:b_1",
            reason=short,
        ),
    )


@pytest.mark.parametrize("option_id", [None, "c_CMB", "c_ICBC"])
def test_a_smaller_part_of_the_balance_is_reported_with_any_card(option_id: str | None) -> None:
    reported = find_changes(SHOP, but(accounts=(account(3_000, "b_2"),)), COMBINED, option_id)
    assert Change(what=ChangeType.BALANCE_SHORT, before=cny(4_000), after=cny(3_000), subject="b_2") in reported
    named = {change.subject for change in reported} & {"b_2", "c_CMB", "c_ICBC"}
    assert named == ({"b_2"} if option_id == "c_CMB" else {"b_2", "c_ICBC"}), (
        "the offer said only of the cheapest card what it gives"
    )


def test_an_empty_balance_and_a_sufficient_one_are_different_changes() -> None:
    [dry] = find_changes(SHOP, but(accounts=(account(0, "b_2"),)), COMBINED)
    assert (dry.what, dry.before, dry.after) == (ChangeType.BALANCE_SHORT, cny(4_000), cny(0))
    [enough] = find_changes(SHOP, but(accounts=(account(90_000, "b_2"),)), COMBINED)
    assert enough.what is ChangeType.METHOD_CLOSED
    [cardless] = find_changes(SHOP, but(cards=()), COMBINED)
    assert cardless.what is ChangeType.CARD_UNBOUND


@pytest.mark.parametrize(
    ("limit", "reason", "left"),
    [
        ({"single": 9_000}, ReasonCode.ABOVE_SINGLE_LIMIT, 9_000),
        ({"daily": (10_000, 4_000)}, ReasonCode.DAILY_LIMIT_EXCEEDED, 6_000),
        ({"monthly": (10_000, 5_000)}, ReasonCode.MONTHLY_LIMIT_EXCEEDED, 5_000),
    ],
)
def test_a_reached_limit_is_reported_with_its_rest(limit: dict[str, Any], reason: ReasonCode, left: int) -> None:
    reported = find_changes(SHOP, but(quotas=(quota(Kind.QUICK_PAY, **limit),)), "QUICK_PAY:c_CMB")
    assert reported == (
        Change(
            what=ChangeType.LIMIT_REACHED,
            before=cny(9_500),
            after=cny(left),
            subject="QUICK_PAY:c_CMB",
            reason=reason,
        ),
    )


def test_a_minimum_that_is_not_reached_is_reported_as_a_limit() -> None:
    [reported] = find_changes(
        SHOP, but(channels=(channel(Kind.WALLET, "ALIPAY", least=20_000),), promotions=SHOP.promotions), "WALLET:ALIPAY"
    )[:1]
    assert (reported.what, reported.reason) == (ChangeType.LIMIT_REACHED, ReasonCode.BELOW_MIN)


@pytest.mark.parametrize("cards", [(), (card("CMB", status=CardStatus.UNBOUND),)])
def test_an_unbound_card_is_reported_whether_or_not_it_is_still_listed(cards: tuple[Any, ...]) -> None:
    reported = find_changes(SHOP, but(cards=cards), "QUICK_PAY:c_CMB")
    assert [(change.what, change.subject) for change in reported] == [(ChangeType.CARD_UNBOUND, "QUICK_PAY:c_CMB")]
    assert find_changes(SHOP, but(cards=(card("ICBC"),)), COMBINED, "c_CMB")[0].what is ChangeType.CARD_UNBOUND


@pytest.mark.parametrize(
    ("method_id", "changed", "reason"),
    [
        ("QUICK_PAY:c_CMB", {"cards": (card("CMB", status=CardStatus.FROZEN),)}, ReasonCode.CARD_FROZEN),
        ("QUICK_PAY:c_CMB", {"cards": (card("CMB", expiry="2026-04"),)}, ReasonCode.CARD_EXPIRED),
        ("AGREEMENT:a_1", {"agreements": (agreement(status="TERMINATED"),)}, ReasonCode.AGREEMENT_TERMINATED),
        ("AGREEMENT:a_1", {"agreements": ()}, ReasonCode.NOT_OFFERED),
        (
            "WALLET:ALIPAY",
            {"channels": (channel(Kind.WALLET, "ALIPAY", status=ChannelStatus.CLOSED),)},
            ReasonCode.CHANNEL_CLOSED,
        ),
        ("WALLET:ALIPAY", {"channels": ()}, ReasonCode.NOT_OFFERED),
    ],
)
def test_a_method_that_became_unusable_is_closed_with_a_reason(
    method_id: str, changed: Any, reason: ReasonCode
) -> None:
    reported = find_changes(SHOP, but(**changed), method_id)
    assert [(change.what, change.reason, change.subject) for change in reported] == [
        (ChangeType.METHOD_CLOSED, reason, method_id)
    ]


def test_the_chosen_option_decides_and_not_its_method() -> None:
    closed = channel(Kind.VA, "BNI", status=ChannelStatus.CLOSED, fee_bps=50)
    without = but(channels=(channel(Kind.VA, "BCA"), closed))
    assert find_changes(SHOP, without, "VA", "BCA") == ()
    [reported] = find_changes(SHOP, without, "VA", "BNI")
    assert (reported.what, reported.subject, reported.reason) == (
        ChangeType.METHOD_CLOSED,
        "BNI",
        ReasonCode.CHANNEL_CLOSED,
    )
    [gone] = find_changes(SHOP, but(channels=(channel(Kind.VA, "BCA"),)), "VA", "BNI")
    assert (gone.what, gone.subject, gone.reason) == (ChangeType.METHOD_CLOSED, "BNI", ReasonCode.NOT_OFFERED)


def test_an_option_has_its_own_price() -> None:
    reported = find_changes(
        SHOP, but(channels=(channel(Kind.VA, "BCA"), channel(Kind.VA, "BNI", fee_bps=60))), "VA", "BNI"
    )
    assert reported[0] == Change(what=ChangeType.PRICE_CHANGED, before=cny(9_548), after=cny(9_557))


def test_a_method_that_was_never_offered_is_a_change_even_if_available_now() -> None:
    assert find_changes(but(channels=()), SHOP, "WALLET:ALIPAY", expected_payable=cny(9_500))[0].before is None
    [reported] = find_changes(SHOP, SHOP, "WALLET:NOBODY")
    assert (reported.what, reported.before, reported.after) == (ChangeType.METHOD_CLOSED, None, None)


def test_a_blocked_order_is_the_only_change() -> None:
    choice = choice_of(SHOP, "WALLET:ALIPAY")
    reported = changes(choice, accepted_offer(SHOP, choice), CurrentOffer(cny(0), (), Blocked.ORDER_PAID))
    assert reported == (Change(what=ChangeType.ORDER_STATE, before="PENDING", after="ORDER_PAID"),)


def test_another_order_amount_is_reported_even_if_discounts_make_up_for_it() -> None:
    reported = find_changes(SHOP, but(order=order(10_100), promotions=(promotion("p_1", 600),)), "WALLET:ALIPAY")
    assert Change(what=ChangeType.PRICE_CHANGED, before=cny(10_000), after=cny(10_100), subject="order") in reported


@pytest.mark.parametrize(
    ("source", "method_id", "option_id"),
    [
        ("quota", "QUICK_PAY:c_CMB", None),
        ("card", "QUICK_PAY:c_CMB", None),
        ("card", "AGREEMENT:a_1", None),
        ("card", COMBINED, None),
        ("balance", COMBINED, "c_CMB"),
        ("balance", "BALANCE:b_1", None),
        ("channel", "VA", "BCA"),
        ("channel", "WALLET:ALIPAY", None),
        ("marketing", "WALLET:ALIPAY", None),
    ],
)
def test_a_silent_source_that_matters_is_unverified(source: str, method_id: str, option_id: str | None) -> None:
    quiet = but(silent={source: MissingCause.TIMEOUT})
    assert find_unverified(SHOP, quiet, method_id, option_id) == (source,)
    if source != "marketing":
        assert {change.what for change in find_changes(SHOP, quiet, method_id, option_id)} <= {
            ChangeType.PRICE_CHANGED,
            ChangeType.PROMOTION_GONE,
        }


def test_a_silent_source_without_say_in_the_chosen_method_is_no_obstacle() -> None:
    assert find_unverified(SHOP, but(silent={"card": MissingCause.TIMEOUT}), "WALLET:ALIPAY") == ()
    assert find_unverified(SHOP, but(silent={"balance": MissingCause.TIMEOUT}), "QUICK_PAY:c_CMB") == ()
    plain = but(promotions=())
    assert find_unverified(plain, plain.but(silent={"marketing": MissingCause.TIMEOUT}), "WALLET:ALIPAY") == ()


def test_a_closed_option_is_closed_even_if_a_source_is_silent_about_others() -> None:
    closed = channel(Kind.VA, "BNI", status=ChannelStatus.CLOSED, fee_bps=50)
    quiet = but(channels=(channel(Kind.VA, "BCA"), closed), silent={"quota": MissingCause.TIMEOUT})
    assert find_unverified(SHOP, quiet, "VA", "BCA") == ("quota",)
    assert find_unverified(SHOP, quiet, "VA", "BNI") == ()
    assert find_changes(SHOP, quiet, "VA", "BNI")[0].reason is ReasonCode.CHANNEL_CLOSED


def test_a_price_that_was_unknown_with_the_offer_is_a_change() -> None:
    quiet = but(silent={"channel": MissingCause.TIMEOUT})
    assert find_changes(quiet, SHOP, "QUICK_PAY:c_CMB", expected_payable=cny(9_500), promotion_ids=("p_1",)) == (
        Change(what=ChangeType.PRICE_CHANGED, before=None, after=cny(9_500)),
    )


def test_a_blocked_order_leaves_nothing_unverified() -> None:
    choice = choice_of(SHOP, "WALLET:ALIPAY")
    assert (
        unverified(choice, accepted_offer(SHOP, choice), CurrentOffer(cny(0), (), Blocked.ORDER_PAID, "marketing"))
        == ()
    )


def test_a_change_has_the_names_of_the_contract() -> None:
    reported = msgspec.to_builtins(Change(what=ChangeType.PRICE_CHANGED, before=cny(1), after=None))
    assert reported == {
        "what": "PRICE_CHANGED",
        "from": {"currency": "CNY", "value": 1},
        "to": None,
        "subject": None,
        "reason": None,
        "message": None,
    }


def every_choice(world: World) -> Iterator[tuple[PayMethod, str | None]]:
    for method in world.methods():
        yield method, None
        for option in method.options:
            yield method, option.option_id


@given(worlds(), st.randoms(use_true_random=False))
def test_an_equal_consultation_in_any_order_has_no_change(world: World, random: Random) -> None:
    shuffled = world.but(
        cards=tuple(random.sample(world.cards, len(world.cards))),
        accounts=tuple(random.sample(world.accounts, len(world.accounts))),
        channels=tuple(random.sample(world.channels, len(world.channels))),
        promotions=tuple(random.sample(world.promotions, len(world.promotions))),
    )
    fresh = current_offer(shuffled, methods=random.sample(shuffled.methods(), len(shuffled.methods())))
    claims = consult_claims(world)
    for method, option_id in every_choice(world):
        choice = choice_of(world, method.method_id, option_id)
        entry = next((option for option in method.options if option.option_id == option_id), method)
        if entry.availability is Availability.AVAILABLE:
            accepted = AcceptedOffer(world.order.amount, claims.find_price(method.method_id, option_id))
            assert changes(choice, accepted, fresh) == ()


@given(worlds(), worlds(), st.integers(0, 400))
def test_without_a_change_the_payment_is_the_offered_one_at_the_expected_price(
    earlier: World, later: World, expected: int
) -> None:
    fresh = current_offer(later)
    rows: dict[str, OfferedPrice] = {row.id: row for row in consult_claims(earlier).methods}
    for method, option_id in [*every_choice(earlier), *every_choice(later)]:
        shown_choice = choice_of(earlier, method.method_id, option_id)
        for choice in (
            shown_choice,
            structs.replace(shown_choice, expected_payable=Money(later.order.amount.currency, expected)),
        ):
            row = rows.get(method.method_id)
            accepted = AcceptedOffer(earlier.order.amount, row)
            if changes(choice, accepted, fresh) or unverified(choice, accepted, fresh):
                continue
            assert row is not None
            [same] = [find_changes for find_changes in fresh.methods if find_changes.method_id == choice.method_id]
            option = next((option for option in same.options if option.option_id == option_id), None)
            assert (option or same).availability is Availability.AVAILABLE
            amounts = same.amount if option is None else option.amount
            assert amounts is not None
            assert amounts.payable == choice.expected_payable
            assert amounts.order == earlier.order.amount
            offer = next((row for row in row.options if row.id == option_id), row)
            assert (offer.payable, offer.fee) == (amounts.payable.value, amounts.fee.value)
            assert {(discount.promotion_id, discount.amount.value) for discount in amounts.discounts} == set(
                offer.promotions
            )


def test_every_type_of_change_occurs() -> None:
    """All seven types; what could not be checked is in `unverified`."""
    assert [what.name for what in ChangeType] == [
        "ORDER_STATE", "CARD_UNBOUND", "METHOD_CLOSED", "BALANCE_SHORT", "LIMIT_REACHED", "PROMOTION_GONE",
        "PRICE_CHANGED",
    ]  # fmt: skip
