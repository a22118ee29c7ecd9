"""Tampered, expired, foreign and retired tokens are refused with a code, and nothing is sent."""

from __future__ import annotations

import asyncio
from base64 import urlsafe_b64decode
from collections.abc import Callable

import msgspec
import pytest

from cashier.domain.payment_state import PaymentStatus
from cashier.tokens.jws import TokenRefused
from tests.payments.checkout import Checkout, cached_configuration, checkout

pytestmark = pytest.mark.virtual_time

CASE, METHOD = "balance_is_enough", "BALANCE:acc_1"
OLD, NEW = "o" * 32, "n" * 32


def _tampered(token: str) -> str:
    head, claims, signature = token.split(".")
    changed = "A" if claims[20] != "A" else "B"
    return ".".join((head, claims[:20] + changed + claims[21:], signature))


TOKENS: dict[str, Callable[[str], str]] = {
    "TOKEN_MALFORMED": lambda token: token[:40],
    "TOKEN_TAMPERED": _tampered,
}


@pytest.mark.parametrize("code", TOKENS)
async def test_a_tampered_consult_token_is_refused_without_a_call(shop: Checkout, code: str) -> None:
    request = await shop.new_request(CASE, METHOD)
    shop.reset_counts()
    with pytest.raises(TokenRefused) as refused:
        await shop.submit(msgspec.structs.replace(request, consult_token=TOKENS[code](request.consult_token)))
    assert refused.value.code == code
    assert shop.calls == []


@pytest.mark.parametrize(
    ("other", "code"),
    [
        ({"order_id": "o_1001"}, "TOKEN_OTHER_ORDER"),
        ({"merchant_id": "m_2"}, "TOKEN_OTHER_ORDER"),
        ({"user_id": "u_2"}, "TOKEN_OTHER_USER"),
    ],
)
async def test_a_consult_token_of_another_order_or_user_is_refused_without_a_call(
    shop: Checkout, other: dict[str, str], code: str
) -> None:
    request = await shop.new_request(CASE, METHOD)
    shop.reset_counts()
    with pytest.raises(TokenRefused) as refused:
        await shop.submit(msgspec.structs.replace(request, **other))
    assert refused.value.code == code
    assert shop.calls == []


async def test_an_expired_consult_token_is_refused_after_the_look_up_only(shop: Checkout) -> None:
    request = await shop.new_request(CASE, METHOD)
    await asyncio.sleep(901)
    shop.reset_counts()
    with pytest.raises(TokenRefused) as refused:
        await shop.submit(request)
    assert refused.value.code == "TOKEN_EXPIRED"
    assert shop.calls == ["look_up"]


async def test_an_existing_payment_is_reported_although_the_consult_token_has_expired(shop: Checkout) -> None:
    request = await shop.new_request(CASE, METHOD)
    await shop.submit(request)
    await asyncio.sleep(901)
    assert (await shop.submit(request)).status is PaymentStatus.SUCCEEDED


async def test_the_consult_token_of_a_blocked_order_is_expired(shop: Checkout) -> None:
    request = await shop.new_request(CASE, METHOD)
    blocked = await shop.consult("order_closed")
    closed = msgspec.structs.replace(request, order_id="o_1004", consult_token=blocked.consult_token)
    with pytest.raises(TokenRefused) as refused:
        await shop.submit(closed)
    assert refused.value.code == "TOKEN_EXPIRED"


async def test_a_retired_key_is_refused_for_both_kinds_of_token() -> None:
    async with checkout(secrets=(OLD,)) as shop:
        request = await shop.new_request("chinese_shop", "QUICK_PAY:c_2")
        payment = await shop.submit(request)
        rotated = shop.add_worker(cached_configuration((NEW, OLD)))
        retired = shop.add_worker(cached_configuration((NEW,)))
        async with rotated, retired:
            assert (
                await shop.payments_of(rotated).look(payment.payment_id, payment.payment_token)
            ).status is PaymentStatus.CHALLENGE
            with pytest.raises(TokenRefused) as refused:
                await shop.payments_of(retired).submit(request, "k1")
            assert refused.value.code == "TOKEN_UNKNOWN_KEY"
            with pytest.raises(TokenRefused) as refused:
                await shop.payments_of(retired).answer(payment.payment_id, payment.payment_token, "246810")
            assert refused.value.code == "TOKEN_UNKNOWN_KEY"
        assert shop.count("verify") == shop.count("submit") == 0


@pytest.mark.parametrize("call", ["look", "answer", "cancel", "follow"])
@pytest.mark.parametrize(
    "code", ["TOKEN_OTHER_PAYMENT", "TOKEN_TAMPERED", "TOKEN_MALFORMED", "TOKEN_WRONG_TYPE", "TOKEN_EXPIRED"]
)
async def test_every_call_refuses_a_bad_payment_token(shop: Checkout, call: str, code: str) -> None:
    request = await shop.new_request("chinese_shop", "QUICK_PAY:c_2")
    payment = await shop.submit(request)
    other = await shop.pay("balance_is_enough", "BALANCE:acc_1")
    tokens = {
        "TOKEN_OTHER_PAYMENT": other.payment_token,
        "TOKEN_TAMPERED": _tampered(payment.payment_token),
        "TOKEN_MALFORMED": "a.b",
        "TOKEN_WRONG_TYPE": request.consult_token,
        "TOKEN_EXPIRED": payment.payment_token,
    }
    if code == "TOKEN_EXPIRED":
        await asyncio.sleep(8 * 86_400)
    shop.reset_counts()
    with pytest.raises(TokenRefused) as refused:
        await _call(shop, call, payment.payment_id, tokens[code])
    assert refused.value.code == code
    assert shop.calls == []


async def test_a_payment_token_is_not_a_consult_token(shop: Checkout) -> None:
    request = await shop.new_request("chinese_shop", "QUICK_PAY:c_2")
    payment = await shop.submit(request)
    with pytest.raises(TokenRefused) as refused:
        await shop.submit(msgspec.structs.replace(request, consult_token=payment.payment_token), "k2")
    assert refused.value.code == "TOKEN_WRONG_TYPE"


async def test_a_payment_token_is_valid_for_seven_days(shop: Checkout) -> None:
    payment = await shop.pay(CASE, METHOD)
    await asyncio.sleep(7 * 86_400)
    assert (await shop.look(payment)).status is PaymentStatus.SUCCEEDED


async def test_a_payment_token_hides_card_token_and_return_url(shop: Checkout) -> None:
    payment = await shop.pay(
        "chinese_shop", "CARD", card_token="tok_secret_1", return_url="https://shop.example/session-7"
    )
    readable = msgspec.json.encode(payment) + b"".join(_decoded(part) for part in payment.payment_token.split(".")[:2])
    assert b"tok_secret_1" not in readable
    assert b"session-7" not in readable
    assert (await shop.answer(payment)).status is PaymentStatus.SUCCEEDED
    assert (
        next(leg for leg in shop.submissions[0]["legs"] if leg["type"] == "CHANNEL")["instrument_id"] == "tok_secret_1"
    )
    assert shop.submissions[0]["return_url"] == "https://shop.example/session-7"


def _decoded(part: str) -> bytes:
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))


async def _call(shop: Checkout, call: str, payment_id: str, token: str) -> None:
    if call == "follow":
        await anext(shop.payments.follow(payment_id, token))
    elif call == "answer":
        await shop.payments.answer(payment_id, token, "246810")
    elif call == "cancel":
        await shop.payments.cancel(payment_id, token)
    else:
        await shop.payments.look(payment_id, token)
