"""The kinds of payment method: titles, options, refusals of kind, instrument, channel."""

from __future__ import annotations

from datetime import timedelta, timezone
from typing import Any

import pytest

from cashier.domain.facts import AccountType, CardStatus, CardType, ChannelStatus
from cashier.domain.kinds import KINDS
from cashier.domain.money import Money
from cashier.domain.order import Product, Terminal
from cashier.domain.pay_method import (
    Availability,
    Health,
    Instrument,
    Kind,
    NextAction,
    PayMethod,
    ReasonCode,
    Remedy,
    RemedyType,
)
from cashier.source_errors import MissingCause
from tests.domain.builders import (
    NOW,
    World,
    account,
    agreement,
    card,
    channel,
    cny,
    member,
    merchant,
    one_of_each,
    order,
    request,
    with_terms,
)

AVAILABLE, UNAVAILABLE = Availability.AVAILABLE, Availability.UNAVAILABLE
WAYS = {
    Kind.QUICK_PAY: "QUICK_PAY:c_CMB",
    Kind.AGREEMENT: "AGREEMENT:a_1",
    Kind.CARD: "CARD",
    Kind.NET_BANKING: "NET_BANKING",
    Kind.VA: "VA",
    Kind.OTC: "OTC",
    Kind.WALLET: "WALLET:ALIPAY",
    Kind.BALANCE: "BALANCE:b_1",
    Kind.MERCHANT_QR: "MERCHANT_QR:WECHAT",
    Kind.CONSUMER_QR: "CONSUMER_QR",
    Kind.INSTALMENT: "INSTALMENT:FLEXI",
    Kind.FREE: "FREE",
}


def code(method: PayMethod) -> ReasonCode | None:
    return None if method.reason is None else method.reason.code


def cmb(**changes: Any) -> World:
    """One CMB card and its bank's channel."""
    return World(cards=(card("CMB"),), channels=(channel(Kind.QUICK_PAY, "CMB"),)).but(**changes)


def test_every_kind_can_be_available() -> None:
    methods = [*one_of_each().methods(), *one_of_each(order=order(0)).methods()]
    assert {method.kind: method.method_id for method in methods} == WAYS
    assert {method.availability for method in methods} == {AVAILABLE}
    payable = {method.kind: None if method.amount is None else method.amount.payable for method in methods}
    assert payable == dict.fromkeys(Kind, cny(10_000)) | {Kind.FREE: cny(0)}


def test_a_card_is_shown_with_its_bank_its_type_and_its_last_four() -> None:
    method = cmb(cards=(card("CMB", "c_9", type=CardType.CREDIT, last4="1017", brand="VISA"),)).method("QUICK_PAY:c_9")
    assert method.title == "CMB Bank credit card (1017)"
    assert method.icon == "bank/cmb"
    assert method.instrument == Instrument("c_9", "CMB", "CMB Bank", "1017", "CREDIT", "VISA")
    assert method.next_action is NextAction.CHALLENGE


def test_an_account_is_shown_with_its_balance() -> None:
    world = World(accounts=(account(20_000, "b_7", type=AccountType.MONEY_FUND),))
    method = world.method("BALANCE:b_7")
    assert (method.title, method.icon, method.health) == ("Money fund", "account/money_fund", Health.UP)
    assert method.instrument == Instrument("b_7", type="MONEY_FUND", available=cny(20_000))


def test_each_wallet_is_a_method_of_its_own() -> None:
    world = World(channels=(channel(Kind.WALLET, "ALIPAY"), channel(Kind.WALLET, "WECHAT")))
    assert world.ids() == ["WALLET:ALIPAY", "WALLET:WECHAT"]
    wallet = world.method("WALLET:WECHAT")
    assert (wallet.title, wallet.icon, wallet.instrument) == ("WECHAT Pay", "wallet/wechat", Instrument("WECHAT"))


@pytest.mark.parametrize("kind", [Kind.NET_BANKING, Kind.VA, Kind.OTC])
def test_banks_and_chains_are_options_of_one_method(kind: Kind) -> None:
    closed = channel(kind, "ABC", status=ChannelStatus.CLOSED)
    [method] = World(channels=(closed, channel(kind, "ICBC"), channel(kind, "BOC"))).methods()
    assert (method.method_id, method.availability, method.reason) == (kind, AVAILABLE, None)
    assert [option.option_id for option in method.options] == ["BOC", "ICBC", "ABC"]
    assert [option.title for option in method.options] == ["BOC Pay", "ICBC Pay", "ABC Pay"]
    last = method.options[-1]
    assert last.availability is UNAVAILABLE
    assert last.reason is not None
    assert last.reason.code is ReasonCode.CHANNEL_CLOSED


def test_a_method_with_options_shows_the_price_of_its_best_option() -> None:
    world = World(channels=(channel(Kind.OTC, "A", fee_bps=100), channel(Kind.OTC, "B", fee_bps=50)))
    [method] = world.methods()
    assert method.amount is not None
    assert method.amount.fee == cny(50)
    prices = {option.option_id: option.amount.fee.value for option in method.options if option.amount is not None}
    assert prices == {"A": 100, "B": 50}


def test_a_method_without_a_usable_option_is_unavailable_for_the_reason_of_the_best_option() -> None:
    world = World(channels=(channel(Kind.VA, "A", status=ChannelStatus.CLOSED), channel(Kind.VA, "B", least=20_000)))
    [method] = world.methods()
    assert (method.availability, code(method)) == (UNAVAILABLE, ReasonCode.BELOW_MIN)


@pytest.mark.parametrize("kind", [Kind.CARD, Kind.CONSUMER_QR])
def test_a_kind_over_several_channels_is_one_method(kind: Kind) -> None:
    world = one_of_each(
        channels=(channel(kind, "A"), channel(kind, "B"), channel(kind, "A", "another")),
        cards=(),
        agreements=(),
        accounts=(),
    )
    [method] = world.methods()
    assert (method.method_id, method.availability, method.instrument) == (kind, AVAILABLE, None)


def test_the_channel_cheapest_for_the_payer_sets_the_price() -> None:
    dear = channel(Kind.WALLET, "ALIPAY", "w_1", fee_bps=100, cost_bps=0)
    cheap = channel(Kind.WALLET, "ALIPAY", "w_2", fee_bps=20, cost_bps=500)
    [method] = World(channels=(dear, cheap)).methods()
    assert method.amount is not None
    assert method.amount.fee == cny(20)


def test_of_channels_at_one_price_a_failing_one_is_not_preferred_for_a_lower_cost() -> None:
    failing = channel(Kind.WALLET, "ALIPAY", "w_1", cost_bps=10, success_bps=4_000)
    sound = channel(Kind.WALLET, "ALIPAY", "w_2", cost_bps=60)
    [method] = World(channels=(failing, sound)).methods()
    assert method.health is Health.UP


def test_a_provider_with_several_names_shows_one_independent_of_channel_order() -> None:
    channels = (
        channel(Kind.WALLET, "A", "w_1", provider_name="One"),
        channel(Kind.WALLET, "A", "w_2", provider_name="Two"),
    )
    banks = (channel(Kind.VA, "A", "v_1", provider_name="One"), channel(Kind.VA, "A", "v_2", provider_name="Two"))
    for found in (World(channels=(*channels, *banks)), World(channels=(*channels[::-1], *banks[::-1]))):
        assert found.method("WALLET:A").title == "One"
        assert found.option("VA", "A").title == "One"


def test_a_closed_channel_does_not_matter_while_another_is_open() -> None:
    [method] = World(
        channels=(channel(Kind.WALLET, "A", "w_1", status=ChannelStatus.CLOSED), channel(Kind.WALLET, "A", "w_2"))
    ).methods()
    assert method.availability is AVAILABLE


def test_agreements_with_other_merchants_are_not_shown() -> None:
    theirs = agreement(agreement_id="a_2", merchant_id="m_2")
    world = World(agreements=(agreement(), theirs), channels=(channel(Kind.AGREEMENT, "UNIONPAY"),))
    assert world.ids() == ["AGREEMENT:a_1"]
    assert world.methods()[0].title == "Automatic debit, UNIONPAY Pay"


def test_an_agreement_that_was_ended_outside_is_terminated() -> None:
    world = World(agreements=(agreement(status="TERMINATED"),), channels=(channel(Kind.AGREEMENT, "UNIONPAY"),))
    assert code(world.method("AGREEMENT:a_1")) is ReasonCode.AGREEMENT_TERMINATED


def test_an_agreement_does_not_go_over_a_channel_of_another_kind() -> None:
    world = World(agreements=(agreement("WALLET:ALIPAY"),), channels=(channel(Kind.WALLET, "ALIPAY"),))
    method = world.method("AGREEMENT:a_1")
    assert (method.availability, code(method)) == (UNAVAILABLE, ReasonCode.NO_CHANNEL)


def test_an_agreement_with_a_limit_in_another_currency_is_refused() -> None:
    world = World(agreements=(agreement(single_max=Money("JPY", 1)),), channels=(channel(Kind.AGREEMENT, "UNIONPAY"),))
    method = world.method("AGREEMENT:a_1")
    assert (method.availability, code(method)) == (UNAVAILABLE, ReasonCode.CURRENCY_NOT_SUPPORTED)
    assert method.limits is not None
    assert method.limits.single == cny(5_000_000)


def test_a_payer_without_a_card_is_asked_to_bind_one_if_cards_are_accepted() -> None:
    method = cmb(cards=()).method("QUICK_PAY")
    assert (method.availability, code(method)) == (UNAVAILABLE, ReasonCode.CARD_UNBOUND)
    assert method.reason is not None
    assert method.reason.remedy == Remedy(RemedyType.BIND_CARD)
    assert World(channels=(channel(Kind.WALLET, "ALIPAY"),)).ids() == ["WALLET:ALIPAY"]


def test_a_payer_without_a_card_is_asked_to_bind_one_while_the_gateway_is_silent() -> None:
    assert code(World(silent={"channel": MissingCause.TIMEOUT}).method("QUICK_PAY")) is ReasonCode.CARD_UNBOUND


@pytest.mark.parametrize(
    ("changes", "reason", "remedy"),
    [
        ({"status": CardStatus.FROZEN}, ReasonCode.CARD_FROZEN, None),
        ({"status": CardStatus.UNBOUND}, ReasonCode.CARD_UNBOUND, Remedy(RemedyType.BIND_CARD)),
        ({"expiry": "2026-04"}, ReasonCode.CARD_EXPIRED, Remedy(RemedyType.UPDATE_CARD)),
        ({"status": CardStatus.FROZEN, "expiry": "2020-01"}, ReasonCode.CARD_FROZEN, None),
        ({"bank": "ICBC"}, ReasonCode.NO_CHANNEL, None),
    ],
)
def test_an_unusable_card_has_a_reason_and_a_remedy(
    changes: dict[str, Any], reason: ReasonCode, remedy: Remedy | None
) -> None:
    method = cmb(cards=(card(card_id="c_CMB", **changes),)).method("QUICK_PAY:c_CMB")
    assert method.availability is UNAVAILABLE
    assert method.reason is not None
    assert (method.reason.code, method.reason.remedy) == (reason, remedy)


@pytest.mark.parametrize("hours_later", [0, 12])
@pytest.mark.parametrize(
    ("expiry", "availability"), [("2026-05", AVAILABLE), ("2026-06", AVAILABLE), ("2026-04", UNAVAILABLE)]
)
def test_a_card_is_valid_until_its_last_month_ends_everywhere(
    expiry: str, availability: Availability, hours_later: int
) -> None:
    """At UTC−12 the month ends twelve hours after UTC."""
    last_second = NOW.replace(day=31, hour=23, minute=59, second=59) + timedelta(hours=hours_later)
    world = cmb(
        cards=(card("CMB", expiry=expiry),), now=last_second, order=order(expires_at=last_second + timedelta(hours=1))
    )
    assert world.method("QUICK_PAY:c_CMB").availability is availability


def test_a_card_is_expired_once_its_last_month_is_over_everywhere() -> None:
    over = NOW.replace(day=31, hour=23, minute=59, second=59) + timedelta(hours=12, seconds=1)
    world = cmb(cards=(card("CMB", expiry="2026-05"),), now=over, order=order(expires_at=over + timedelta(hours=1)))
    assert world.method("QUICK_PAY:c_CMB").availability is UNAVAILABLE


@pytest.mark.parametrize(
    ("narrowed", "availability"),
    [
        ({"brands": frozenset({"VISA"})}, UNAVAILABLE),
        ({"brands": frozenset({"VISA", "UNIONPAY"})}, AVAILABLE),
        ({"card_types": frozenset({CardType.CREDIT})}, UNAVAILABLE),
        ({"card_types": frozenset({CardType.DEBIT})}, AVAILABLE),
    ],
)
def test_a_card_needs_a_channel_that_accepts_its_brand_and_type(
    narrowed: dict[str, Any], availability: Availability
) -> None:
    world = cmb(channels=(channel(Kind.QUICK_PAY, "CMB", **narrowed),))
    assert world.method("QUICK_PAY:c_CMB").availability is availability


def test_a_card_does_not_use_the_channel_for_other_brands_beside_one_for_all() -> None:
    cards = (card(brand="VISA"), card(card_id="c_2", brand="UNIONPAY"))
    for_all = channel(Kind.QUICK_PAY, "CMB", "ch_2", fee_bps=100)
    for before_or_after in ("ch_1", "ch_3"):
        for_visa = channel(Kind.QUICK_PAY, "CMB", before_or_after, brands=frozenset({"VISA"}))
        world = cmb(cards=cards, channels=(for_visa, for_all))
        fees = [
            method.amount and method.amount.fee for method in map(world.method, ("QUICK_PAY:c_CMB", "QUICK_PAY:c_2"))
        ]
        assert fees == [cny(0), cny(100)]


def test_a_frozen_account_and_one_in_another_currency_cannot_be_used() -> None:
    world = World(accounts=(account(50_000, "b_1", status="FROZEN"), account(Money("JPY", 50_000), "b_2")))
    assert code(world.method("BALANCE:b_1")) is ReasonCode.ACCOUNT_FROZEN
    assert code(world.method("BALANCE:b_2")) is ReasonCode.CURRENCY_NOT_SUPPORTED


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"status": ChannelStatus.CLOSED}, ReasonCode.CHANNEL_CLOSED),
        ({"status": ChannelStatus.MAINTENANCE}, ReasonCode.CHANNEL_MAINTENANCE),
        ({"terminals": frozenset({Terminal.PC})}, ReasonCode.TERMINAL_NOT_SUPPORTED),
        ({"products": frozenset({Product.SCAN})}, ReasonCode.PRODUCT_NOT_SUPPORTED),
        ({"currencies": frozenset({"USD"})}, ReasonCode.CURRENCY_NOT_SUPPORTED),
        ({"min": Money("JPY", 1)}, ReasonCode.CURRENCY_NOT_SUPPORTED),
        ({"max": Money("JPY", 1)}, ReasonCode.CURRENCY_NOT_SUPPORTED),
    ],
)
@pytest.mark.parametrize("kind", [kind for kind, row in KINDS.items() if row.needs_channel])
def test_a_refusal_of_the_channel_applies_to_every_kind(
    kind: Kind, changes: dict[str, Any], reason: ReasonCode
) -> None:
    world = one_of_each()
    [mine] = [known for known in world.channels if known.kind is kind]
    method = world.but(channels=(channel(kind, mine.provider, **changes),)).method(WAYS[kind])
    assert (method.availability, code(method)) == (UNAVAILABLE, reason)


def test_the_first_refusal_of_a_channel_is_shown() -> None:
    """In the order of `ReasonCode`."""
    refusals: list[tuple[ReasonCode, dict[str, Any]]] = [
        (ReasonCode.PRODUCT_NOT_SUPPORTED, {"products": frozenset({Product.SCAN})}),
        (ReasonCode.TERMINAL_NOT_SUPPORTED, {"terminals": frozenset({Terminal.PC})}),
        (ReasonCode.CURRENCY_NOT_SUPPORTED, {"currencies": frozenset({"USD"})}),
        (ReasonCode.CHANNEL_CLOSED, {"status": ChannelStatus.CLOSED}),
    ]
    changes: dict[str, Any] = {}
    for reason, change in reversed(refusals):
        changes |= change
        assert code(cmb(channels=(channel(Kind.QUICK_PAY, "CMB", **changes),)).method("QUICK_PAY:c_CMB")) is reason


def test_maintenance_shows_its_end_if_that_is_known_and_ahead() -> None:
    def remedy(until: Any) -> Remedy | None:
        [method] = World(channels=(channel(Kind.WALLET, "A", status=ChannelStatus.MAINTENANCE, until=until),)).methods()
        assert method.reason is not None
        assert method.health is Health.DOWN
        return method.reason.remedy

    later = NOW + timedelta(microseconds=1)
    assert remedy(later) == Remedy(RemedyType.WAIT_UNTIL, until=later)
    assert remedy(NOW) == Remedy(RemedyType.RETRY)
    assert remedy(None) == Remedy(RemedyType.RETRY)


def test_the_text_of_a_maintenance_is_complete_with_and_without_its_end() -> None:
    def message(until: Any) -> str:
        [method] = World(channels=(channel(Kind.WALLET, "A", status=ChannelStatus.MAINTENANCE, until=until),)).methods()
        assert method.reason is not None
        return method.reason.message

    beijing = timezone(timedelta(hours=8))
    assert message(NOW.astimezone(beijing) + timedelta(minutes=30)) == "Under maintenance until May 15, 20:30."
    assert message(NOW + timedelta(minutes=59, seconds=31)) == "Under maintenance.", "a wallet needs 30 s of the order"
    assert message(None) == "Under maintenance."


# Refusals of a whole kind, in the order of checks: the code, and the world that causes it.
KIND_REFUSALS: list[tuple[ReasonCode, dict[str, Any], dict[str, Any]]] = [
    (ReasonCode.NOT_OFFERED, {"offered": False}, {}),
    (ReasonCode.MERCHANT_NOT_PERMITTED, {}, {"merchant": merchant(kinds=frozenset({Kind.BALANCE}))}),
    (ReasonCode.PRODUCT_NOT_SUPPORTED, {"products": frozenset({Product.SCAN})}, {}),
    (ReasonCode.TERMINAL_NOT_SUPPORTED, {"terminals": frozenset({Terminal.POS})}, {}),
    (ReasonCode.COUNTRY_NOT_SUPPORTED, {"countries": frozenset({"JP"})}, {}),
    (ReasonCode.CURRENCY_NOT_SUPPORTED, {"currencies": frozenset({"JPY"})}, {}),
    (ReasonCode.KYC_REQUIRED, {"kyc_level": 3}, {}),
    (ReasonCode.ORDER_EXPIRES_SOON, {"needs_s": 3_601}, {}),
]


@pytest.mark.parametrize(("reason", "terms", "changes"), KIND_REFUSALS, ids=[reason for reason, _, _ in KIND_REFUSALS])
def test_a_kind_is_refused_as_a_whole(reason: ReasonCode, terms: dict[str, Any], changes: dict[str, Any]) -> None:
    method = cmb(catalog=with_terms(Kind.QUICK_PAY, **terms), **changes).method("QUICK_PAY:c_CMB")
    assert (method.availability, code(method)) == (UNAVAILABLE, reason)


def test_the_kyc_level_that_a_kind_requires_is_enough() -> None:
    world = cmb(catalog=with_terms(Kind.QUICK_PAY, kyc_level=3))
    assert world.but(member=member(kyc_level=3)).method("QUICK_PAY:c_CMB").availability is AVAILABLE
    assert code(world.but(member=member(kyc_level=2)).method("QUICK_PAY:c_CMB")) is ReasonCode.KYC_REQUIRED


def test_the_first_refusal_of_a_kind_is_shown() -> None:
    for index, (reason, _, _) in enumerate(KIND_REFUSALS):
        terms: dict[str, Any] = {}
        changes: dict[str, Any] = {}
        for _, its_terms, its_changes in KIND_REFUSALS[index:]:
            terms |= its_terms
            changes |= its_changes
        assert code(cmb(catalog=with_terms(Kind.QUICK_PAY, **terms), **changes).method("QUICK_PAY:c_CMB")) is reason


def test_a_refusal_of_the_kind_comes_before_those_of_card_and_channel() -> None:
    world = cmb(
        member=member(kyc_level=0),
        cards=(card("CMB", status=CardStatus.FROZEN),),
        channels=(channel(Kind.QUICK_PAY, "CMB", status=ChannelStatus.CLOSED),),
    )
    assert code(world.method("QUICK_PAY:c_CMB")) is ReasonCode.KYC_REQUIRED
    assert code(world.but(member=member()).method("QUICK_PAY:c_CMB")) is ReasonCode.CARD_FROZEN
    assert code(world.but(member=member(), cards=(card(),)).method("QUICK_PAY:c_CMB")) is ReasonCode.CHANNEL_CLOSED


def test_a_refused_method_still_shows_price_and_limits() -> None:
    method = cmb(cards=(card("CMB", status=CardStatus.FROZEN),)).method("QUICK_PAY:c_CMB")
    assert method.amount is not None
    assert method.amount.payable == cny(10_000)
    assert method.limits is not None


def test_a_refused_kind_is_still_listed_while_the_gateway_is_silent() -> None:
    method = World(silent={"channel": MissingCause.TIMEOUT}, merchant=merchant(kinds=frozenset({Kind.BALANCE}))).method(
        "WALLET"
    )
    assert (method.availability, code(method)) == (UNAVAILABLE, ReasonCode.MERCHANT_NOT_PERMITTED)


def test_scanning_needs_the_scan_product_and_a_terminal_with_a_scanner() -> None:
    world = World(channels=(channel(Kind.CONSUMER_QR, "WECHAT"),))
    assert code(world.method("CONSUMER_QR")) is ReasonCode.PRODUCT_NOT_SUPPORTED
    scan = world.but(request=request(product=Product.SCAN))
    assert code(scan.method("CONSUMER_QR")) is ReasonCode.TERMINAL_NOT_SUPPORTED
    pos = world.but(request=request(product=Product.SCAN, terminal=Terminal.POS)).method("CONSUMER_QR")
    assert (pos.availability, pos.next_action, pos.required_fields) == (AVAILABLE, NextAction.AWAIT, ("auth_code",))


def test_a_wallet_opens_by_its_sdk_on_a_terminal_that_has_one() -> None:
    world = World(channels=(channel(Kind.WALLET, "ALIPAY"),))
    assert world.methods()[0].next_action is NextAction.REDIRECT
    assert world.but(request=request(terminal=Terminal.SDK)).methods()[0].next_action is NextAction.SDK


def test_without_anything_to_pay_no_action_follows_a_submit() -> None:
    methods = one_of_each(order=order(0)).methods()
    assert {method.availability for method in methods} == {AVAILABLE}
    assert {method.next_action for method in methods} == {NextAction.NONE}
    assert all(method.amount is not None and method.amount.payable == cny(0) for method in methods)


def test_an_empty_world_has_no_methods() -> None:
    assert World().methods() == ()


@pytest.mark.parametrize("currency", ["JPY", "KWD"])
def test_currencies_with_other_digits_are_shown_with_their_own_digits(currency: Any) -> None:
    world = World(
        order=order(Money(currency, 5_000)),
        accounts=(account(Money(currency, 1_250)),),
        channels=(channel(Kind.WALLET, "A", currency=currency, fee_bps=150),),
    )
    wallet, balance = world.method("WALLET:A"), world.method("BALANCE:b_1")
    assert wallet.amount is not None
    assert wallet.amount.payable == Money(currency, 5_075)
    assert balance.reason is not None
    available = {"JPY": "¥1,250", "KWD": "KWD\u00a01.250"}[currency]
    assert balance.reason.message == f"Balance too low: {available} available."
    assert balance.reason.remedy == Remedy(RemedyType.TOP_UP, Money(currency, 3_750))
