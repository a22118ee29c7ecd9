"""Promotions as the payer's choice: prices, what is listed, and what counts as a change."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, structs

from cashier.domain.assembly import assemble
from cashier.domain.offer_diff import Change, ChangeType, CurrentOffer, changes, unverified
from cashier.domain.pay_method import Kind, PayMethod
from cashier.domain.ranking import rank_offers
from cashier.source_errors import MissingCause
from tests.domain.builders import World, account, card, channel, cny, order, promotion
from tests.domain.test_offer_diff import accepted_offer, choice_of
from tests.domain.world_strategies import worlds

WALLET = "WALLET:W"
# Of one group, or not to be combined: only one of x, y; z with either; alone never with another.
COUPONS = (
    promotion("x", 1_000, group="g"),
    promotion("y", 600, group="g"),
    promotion("z", 300),
    promotion("alone", 900, stackable=False),
    promotion("cards", 50, kinds=[Kind.QUICK_PAY]),
)
SHOP = World(channels=(channel(Kind.WALLET, "W"),), promotions=COUPONS)


def choosing(world: World, *promotion_ids: str) -> World:
    return world.but(request=structs.replace(world.request, chosen_promotions=promotion_ids))


def applied(method: PayMethod) -> dict[str, int]:
    assert method.amount is not None
    return {discount.promotion_id: discount.amount.value for discount in method.amount.discounts}


def test_a_chosen_set_is_priced_as_far_as_it_is_legal_and_fits() -> None:
    def priced(*promotion_ids: str) -> dict[str, int]:
        return applied(choosing(SHOP, *promotion_ids).method(WALLET))

    assert applied(SHOP.method(WALLET)) == {"x": 1_000, "z": 300}
    assert priced() == {}
    assert priced("y") == {"y": 600}
    assert priced("z", "y") == {"y": 600, "z": 300}
    assert priced("x", "y") == {"x": 1_000}, "of one group"
    assert priced("alone", "z") == {"alone": 900}
    assert priced("cards", "unknown") == {}, "not for this kind, or not the payer's"


def test_a_method_lists_what_applies_whatever_was_chosen_and_marks_the_best_set() -> None:
    for world in (SHOP, choosing(SHOP), choosing(SHOP, "y")):
        listed = world.method(WALLET).promotions
        assert listed is not UNSET
        assert [(each.promotion_id, each.amount, each.best) for each in listed] == [
            ("x", cny(1_000), True),
            ("alone", cny(900), False),
            ("y", cny(600), False),
            ("z", cny(300), True),
        ]


def test_a_list_is_in_steps_and_of_the_methods_own_kind_and_bank() -> None:
    world = World(
        cards=(card("CMB"), card("ICBC")),
        channels=(channel(Kind.QUICK_PAY, "CMB", step=100), channel(Kind.QUICK_PAY, "ICBC")),
        promotions=(promotion("odd", 250), promotion("small", 99), promotion("cmb", 70, banks=frozenset({"ICBC"}))),
    )

    def listed(method_id: str) -> list[tuple[str, int]]:
        promotions = world.method(method_id).promotions
        return [] if promotions is UNSET else [(each.promotion_id, each.amount.value) for each in promotions]

    assert listed("QUICK_PAY:c_CMB") == [("odd", 200)]
    assert listed("QUICK_PAY:c_ICBC") == [("odd", 250), ("small", 99), ("cmb", 70)]


def test_a_list_is_of_the_methods_own_kind_and_bank_whatever_was_chosen() -> None:
    """The price is then the same for all methods; the lists are not."""
    own = (
        promotion("any", 100),
        promotion("wallets", 70, kinds=[Kind.WALLET]),
        promotion("bank", 50, banks=frozenset({"CMB"})),
    )
    shop = World(
        cards=(card("CMB"), card("ICBC")),
        channels=(
            channel(Kind.WALLET, "W"),
            channel(Kind.VA, "V"),
            channel(Kind.QUICK_PAY, "CMB"),
            channel(Kind.QUICK_PAY, "ICBC"),
        ),
        promotions=own,
    )
    lists = {
        WALLET: ["any", "wallets"],
        "VA": ["any"],
        "QUICK_PAY:c_CMB": ["any", "bank"],
        "QUICK_PAY:c_ICBC": ["any"],
    }
    for chosen in ((), ("any",), ("wallets",), ("bank",), ("any", "bank", "wallets")):
        case = choosing(shop, *chosen).case()
        for method in rank_offers(case, assemble(case), shop.weights):
            assert [each.promotion_id for each in method.promotions or ()] == lists[method.method_id], chosen
            assert method.amount is not None
            assert list(case.applying_values(method.amount)) == lists[method.method_id], chosen


def test_without_promotions_the_answer_is_as_it_was() -> None:
    for world in (SHOP.but(promotions=()), SHOP.but(promotions=COUPONS[4:])):
        assert b"promotions" not in msgspec.json.encode(world.methods())


def test_a_long_list_keeps_the_best_set() -> None:
    many = tuple(promotion(f"p_{index}", 1_000 - index, stackable=False) for index in range(100))
    stack = tuple(promotion(f"s_{index}", 150) for index in range(20))
    listed = SHOP.but(promotions=(*many, *stack)).method(WALLET).promotions
    assert listed is not UNSET
    assert len(listed) == 32
    assert [each.promotion_id for each in listed if each.best] == [f"s_{index}" for index in sorted(range(20), key=str)]


def unlisted(world: World) -> list[PayMethod]:
    return [structs.replace(method, promotions=UNSET) for method in world.methods()]


@given(worlds(), st.data())
def test_a_choice_is_priced_as_if_there_were_no_other_promotions(world: World, data: st.DataObject) -> None:
    ids = [each.promotion_id for each in world.promotions]
    chosen = data.draw(st.lists(st.sampled_from([*ids, "unknown"]), unique=True))
    restricted = world.but(promotions=[each for each in world.promotions if each.promotion_id in chosen])
    assert unlisted(choosing(world, *chosen)) == unlisted(restricted)
    assert choosing(world, *ids).methods() == world.methods()


@given(worlds())
def test_the_marked_set_is_the_one_that_is_priced(world: World) -> None:
    for method in world.methods():
        if method.amount is not None:
            listed = () if method.promotions is UNSET else method.promotions
            assert {each.promotion_id for each in listed if each.best} == set(applied(method))


def current(world: World) -> CurrentOffer:
    """As in acceptance, the case that was assembled answers."""
    case = world.case()
    methods = rank_offers(case, assemble(case), world.weights)
    return CurrentOffer(world.order.amount, methods, None, case.promotion_gap, applying_values=case.applying_values)


def found(consulted: World, later: World, chosen: tuple[str, ...] | None, **changed: Any) -> tuple[Change, ...]:
    """The changes when the payer submits with this choice at its right price before the change."""
    priced = consulted.but(request=structs.replace(consulted.request, chosen_promotions=chosen))
    choice = choice_of(priced, WALLET, **{"chosen_promotions": chosen, **changed})
    after = later.but(request=structs.replace(later.request, chosen_promotions=chosen))
    return changes(choice, accepted_offer(consulted, choice), current(after))


def test_any_choice_at_its_right_price_is_accepted_whatever_was_consulted() -> None:
    choices = ((), ("x",), ("y",), ("z", "y"), ("alone",), ("x", "y", "z", "alone"), ("unknown",))
    for consulted in (SHOP, choosing(SHOP), choosing(SHOP, "y"), choosing(SHOP, "x", "z")):
        for chosen in choices:
            assert found(consulted, SHOP, chosen) == ()
            assert found(consulted, SHOP, chosen, promotion_ids=("x", "z")) == () or "x" in chosen


def test_without_a_choice_another_price_than_shown_is_no_lost_promotion() -> None:
    for consulted in (choosing(SHOP), choosing(SHOP, "y"), choosing(SHOP, "alone")):
        choice = choice_of(consulted, WALLET)
        reported = changes(choice, accepted_offer(consulted, choice), current(SHOP))
        assert {change.what for change in reported} == {ChangeType.PRICE_CHANGED}


def test_a_chosen_promotion_that_counted_and_no_longer_applies_is_gone() -> None:
    later = SHOP.but(promotions=[each for each in COUPONS if each.promotion_id != "x"])
    for consulted in (SHOP, choosing(SHOP, "x"), choosing(SHOP, "x", "z")):
        reported = found(consulted, later, ("x", "z"))
        gone = [change for change in reported if change.what is ChangeType.PROMOTION_GONE]
        assert gone == [Change(what=ChangeType.PROMOTION_GONE, before=cny(1_000), after=None, subject="x")]
        assert ChangeType.PRICE_CHANGED in {change.what for change in reported}
    assert found(SHOP, later, ("z",)) == (), "x was not chosen"


def test_a_valid_promotion_that_does_not_count_any_more_is_another_price() -> None:
    more = SHOP.but(promotions=(*COUPONS, promotion("w", 2_000, stackable=False)))
    choice = choice_of(SHOP, WALLET)
    reported = changes(choice, accepted_offer(SHOP, choice), current(more))
    assert {change.what for change in reported} == {ChangeType.PRICE_CHANGED}
    assert {change.subject for change in reported} == {None, "w", "x", "z"}


def test_a_named_promotion_that_applies_and_does_not_count_is_no_lost_one() -> None:
    choice = choice_of(SHOP, WALLET, promotion_ids=("y",))
    reported = changes(choice, accepted_offer(SHOP, choice), current(SHOP))
    assert reported == (Change(what=ChangeType.PRICE_CHANGED, before=cny(600), after=None, subject="y"),)


def test_an_order_paid_by_promotions_alone_may_be_paid_without_them() -> None:
    free = SHOP.but(promotions=(promotion("all", 10_000),))
    assert free.ids() == ["FREE"]
    listed = free.method("FREE").promotions
    assert listed is not UNSET
    assert [each.promotion_id for each in listed] == ["all"]
    without = choosing(free)
    assert without.ids() == [WALLET]
    choice = choice_of(free, "FREE", chosen_promotions=())
    reported = changes(choice, accepted_offer(free, choice), current(without))
    assert {change.what for change in reported} == {ChangeType.METHOD_CLOSED}


def silent(world: World) -> World:
    return world.but(silent={"marketing": MissingCause.TIMEOUT})


def test_the_silence_of_marketing_leaves_open_only_what_was_chosen() -> None:
    def unchecked(consulted: World, chosen: tuple[str, ...] | None, **changed: Any) -> tuple[str, ...]:
        priced = consulted.but(request=structs.replace(consulted.request, chosen_promotions=chosen))
        choice = choice_of(priced, WALLET, **{"chosen_promotions": chosen, "promotion_ids": (), **changed})
        later = silent(priced)
        return unverified(choice, accepted_offer(consulted, choice), current(later))

    assert unchecked(SHOP, None) == ("marketing",)
    assert unchecked(SHOP, ()) == ()
    assert unchecked(SHOP, (), promotion_ids=("x",)) == ()
    assert unchecked(SHOP, ("x",)) == ("marketing",)
    assert unchecked(choosing(SHOP), ("x",)) == ("marketing",), "its price says that x counts"
    assert unchecked(silent(SHOP), ("x",)) == (), "the payer saw the full price and agreed to it"
    assert unchecked(silent(SHOP), None) == ()


def test_a_split_payment_may_be_paid_without_its_promotions() -> None:
    world = World(
        order=order(10_000),
        cards=(card("CMB"),),
        accounts=(account(4_000),),
        channels=(channel(Kind.QUICK_PAY, "CMB"),),
        promotions=(promotion("both", 500, kinds=[Kind.QUICK_PAY, Kind.BALANCE]),),
    )
    method = choosing(world).method("BALANCE:b_1+QUICK_PAY")
    assert [leg.amount for leg in method.legs] == [cny(4_000), cny(6_000)]
    choice = choice_of(choosing(world), method.method_id, chosen_promotions=())
    assert changes(choice, accepted_offer(world, choice), current(choosing(world))) == ()
