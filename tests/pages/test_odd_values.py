"""Values that sources and browsers may send and that no shop has thought of."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest

from cashier.domain.order import epoch_s
from cashier.domain.pan import looks_like_pan
from cashier.web.problem import RequestRefused
from cashier.wire.transport import Request, Response
from tests.pages.page_shop import PageShop
from tests.pages.till_shop import till_shop

pytestmark = pytest.mark.virtual_time
ORDER = "/cashier/o_1001"
OFFSETS = [timezone(timedelta(minutes=minutes)) for minutes in (-1_439, -60, 0, 480)]
# "Never" and "no time", as programs write them by their own clock.
NEVER = [datetime.max.replace(tzinfo=offset) for offset in OFFSETS]
NO_TIME = [datetime.min.replace(tzinfo=offset) for offset in OFFSETS]
BUILDS = [f"Mozilla/5.0 (Linux; Android 14) ShopApp/7.1 Build/202611020800{second:02d}" for second in range(60)]


def ending(shop: PageShop, ends: datetime) -> None:
    shop.checkout.world.population._orders["o_1001"]["expires_at"] = ends.isoformat()


@pytest.mark.parametrize("at", NEVER + NO_TIME)
def test_seconds_of_any_time_are_a_time_again(at: datetime) -> None:
    again = datetime.fromtimestamp(epoch_s(at), UTC)
    assert abs(again - at) < timedelta(days=1)


@pytest.mark.parametrize("ends", NEVER)
async def test_an_order_without_an_end_is_paid_and_seen_from_a_second_device(shop: PageShop, ends: datetime) -> None:
    ending(shop, ends)
    first = await shop.payer("chinese_shop")
    second = await shop.payer("chinese_shop")
    await first.choose("WALLET:ALIPAY")
    assert first.document.view == "action"
    await second.choose("QUICK_PAY:c_2")
    assert second.document.view == "action"
    assert shop.checkout.count("submit") == 1
    await second.submit("/replace")
    assert second.document.view == "checkout"


@pytest.mark.parametrize("ends", NO_TIME)
async def test_an_order_that_ended_before_all_time_has_no_form(shop: PageShop, ends: datetime) -> None:
    ending(shop, ends)
    browser = await shop.payer("chinese_shop")
    assert browser.answers[-1].status == 200
    assert not browser.document.has_form("/pay")


# As networks issue them, with the right check digit; then numbers like those of most ids.
CARD_LIKE = ["4111111111111111", "6212345678901232", "5105105105105100", "378282246310005", "a:4111111111111111"]
PLAIN = ["1111111111111117", "2811111111111111119", "20261130411111111111", "4111111111111112", "x4111111111111111"]


@pytest.mark.parametrize("field", ["order_id", "user_id", "merchant_id"])
async def test_a_link_whose_payments_would_be_refused_is_refused_itself(shop: PageShop, field: str) -> None:
    for number in CARD_LIKE:
        with pytest.raises(RequestRefused) as refused:
            shop.link("chinese_shop", return_url=None, **{field: number})
        assert [(each.field, each.code) for each in refused.value.problem.errors or ()] == [(field, "LOOKS_LIKE_PAN")]
        assert number not in str(refused.value.problem)
    for number in PLAIN:
        assert shop.link("chinese_shop", return_url=None, **{field: number})


async def test_an_order_of_a_till_that_could_not_be_paid_is_none() -> None:
    async with till_shop() as shop:
        for number in CARD_LIKE:
            shop.orders_are = number
            browser = await shop.sale()
            assert browser.answers[-1].status == 503
            assert browser.document.view == "till"


@pytest.mark.parametrize("sum_", [{"value": value} for value in (0, 23_499_999, 25_000_000)] + [{"currency": "CNY"}])
async def test_no_account_is_shown_with_another_sum_than_the_payer_agreed_to(
    shop: PageShop, sum_: dict[str, Any]
) -> None:
    async def with_another_sum(request: Request) -> Response:
        response = await shop.checkout._sandbox(request)
        answer = msgspec.json.decode(response.body)
        if "next_action" in answer:
            answer["next_action"]["amount"] |= sum_
        return Response(response.status, msgspec.json.encode(answer))

    shop.checkout.replies = {"submit": with_another_sum, "look_up": with_another_sum}
    browser = await shop.payer("indonesian_shop")
    await browser.choose("VA", "BCA")
    (sent,) = shop.checkout.submissions
    assert sent["amount"] == {"currency": "IDR", "value": 23_500_000}
    for _ in range(2):
        assert browser.document.view == "result"
        assert "wait" in browser.document.state
        assert browser.document.has_form("/cancel")
        await browser.reload()


@pytest.mark.parametrize("build", [build for build in BUILDS if looks_like_pan(build)][:2])
async def test_a_browser_whose_name_has_the_digits_of_a_card_can_pay(shop: PageShop, build: str) -> None:
    browser = await shop.payer("chinese_shop")
    browser.headers["user-agent"] = build
    await browser.choose("WALLET:ALIPAY")
    assert browser.document.view == "action"
    devices = [body["device"] for name, body in shop.checkout.bodies if name == "decide"]
    assert devices == [{"ip": "203.0.113.7"}]


@pytest.mark.parametrize(("number", "is_shown"), [(CARD_LIKE[1], False), (PLAIN[3], True)])
async def test_a_card_has_a_row_if_a_payment_can_name_it(shop: PageShop, number: str, is_shown: bool) -> None:
    """Else each press would be refused, and say that something is to be checked."""
    ask, sources = shop.checkout._sources["card"], dict(shop.checkout._sources)

    async def renamed(**inputs: Any) -> Any:
        return msgspec.json.decode(msgspec.json.encode(await ask(**inputs)).replace(b'"c_2"', f'"{number}"'.encode()))

    sources["card"] = renamed
    shop.checkout.__dict__["_sources"] = sources
    browser = await shop.payer("chinese_shop")
    choices = {value for _, value, _ in browser.document.form("/pay").choices}
    assert (f"QUICK_PAY:{number}" in choices, number in choices) == (is_shown, is_shown)
    assert {"QUICK_PAY:c_1", "c_1"} <= choices
    if is_shown:
        await browser.choose(f"QUICK_PAY:{number}")
        assert browser.document.view != "checkout"


@pytest.mark.parametrize(("cards", "name"), [(190, "Bank"), (256, "招" * 20), (24, "招" * 300), (12, "🏦" * 900)])
async def test_a_form_is_taken_however_many_methods_it_names_and_however_long_they_are(
    shop: PageShop, cards: int, name: str
) -> None:
    ask, sources = shop.checkout._sources["card"], dict(shop.checkout._sources)

    async def many(**inputs: Any) -> Any:
        answer = msgspec.to_builtins(await ask(**inputs))
        (card,) = [each for each in answer["cards"] if each["card_id"] == "c_2"]
        card |= {"bank_name": name, "bank_names": None}
        answer["cards"] = [{**card, "card_id": f"c_{number}", "last4": f"{number:04}"} for number in range(cards)]
        return answer

    sources["card"] = many
    shop.checkout.__dict__["_sources"] = sources
    browser = await shop.payer("chinese_shop")
    available = sum(can for name, _, can in browser.document.form("/pay").choices if name == "method")
    assert available > cards
    await browser.choose("QUICK_PAY:c_2")
    assert browser.document.view == "challenge"


# More than a request may choose, than a page lists, and than a submit may name.
MANY = [f"many_{number}" for number in range(33)]
ODD_COUPONS = [CARD_LIKE[:2], ["a coupon with a very long name " * 5], ["a\nb"], MANY[:17], MANY, CARD_LIKE + MANY]


def offering(shop: PageShop, promotion_ids: list[str]) -> None:
    """Coupons of 0.50 that all count together, beside one of 1.00."""
    ask, sources = shop.checkout._sources["marketing"], dict(shop.checkout._sources)
    worth = dict.fromkeys(promotion_ids, 50) | {"plain": 100}
    coupons = [
        {
            "promotion_id": promotion_id,
            "type": "COUPON",
            "title": "A coupon",
            "threshold": {"currency": "CNY", "value": 0},
            "amount_off": {"currency": "CNY", "value": value},
            "kinds": [],
            "group": f"group {number}",
            "stackable": True,
        }
        for number, (promotion_id, value) in enumerate(worth.items())
    ]

    async def with_coupons(**inputs: Any) -> Any:
        return {**msgspec.json.decode(msgspec.json.encode(await ask(**inputs))), "promotions": coupons}

    sources["marketing"] = with_coupons
    shop.checkout.__dict__["_sources"] = sources


def coupons_sent(shop: PageShop) -> set[str]:
    (sent,) = shop.checkout.submissions
    return {leg["id"] for leg in sent["legs"] if leg["type"] == "PROMOTION"}


@pytest.mark.parametrize("promotion_ids", ODD_COUPONS)
async def test_coupons_that_a_submit_cannot_name_count_all_the_same(shop: PageShop, promotion_ids: list[str]) -> None:
    offering(shop, promotion_ids)
    browser = await shop.payer("chinese_shop")
    await browser.choose("WALLET:ALIPAY")
    assert coupons_sent(shop) == {"plain", *promotion_ids}


@pytest.mark.parametrize("promotion_ids", ODD_COUPONS)
async def test_every_choice_among_the_listed_coupons_can_be_paid(shop: PageShop, promotion_ids: list[str]) -> None:
    offering(shop, promotion_ids)
    browser = await shop.payer("chinese_shop")
    listed = [value for name, value, _ in browser.document.form(ORDER).choices if name == "coupon"]
    assert "plain" in listed
    assert set(listed).isdisjoint(CARD_LIKE)
    for chosen in (listed, listed[:-1] or listed, ["plain"]):
        await browser.open(f"{ORDER}?{urlencode([('coupon', each) for each in chosen])}")
        assert browser.document.view == "checkout"
    await browser.choose("WALLET:ALIPAY")
    assert coupons_sent(shop) == {"plain"}
