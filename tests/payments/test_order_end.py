"""Whatever is shown or promised ends with the order, and slow kinds are refused in time."""

from __future__ import annotations

import asyncio
import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from cashier.domain.next_action import expiry
from cashier.domain.offer_diff import ChangeType
from cashier.domain.order import Blocked
from cashier.domain.pay_method import Availability, Kind, ReasonCode
from cashier.domain.payment_resource import Payment
from cashier.domain.payment_state import PaymentStatus
from cashier.payments.attempt import DEFAULT_LIFE_S
from cashier.payments.errors import ConsultChanged, OrderBusy
from cashier.sandbox import CASES
from cashier.tokens.jws import Keyring, sign
from cashier.wire.transport import Request, Response
from tests.payments.checkout import Checkout, checkout, method_by_id
from tests.payments.test_each_kind import SCENARIOS, Scenario

pytestmark = pytest.mark.virtual_time

DAYS_LATER = timedelta(days=30)
# One of each kind, with the actions that its engine may ask for.
OF_EACH_KIND = list({scenario.method_id.partition(":")[0]: scenario for scenario in SCENARIOS}.values())
LIFETIMES_S = (1, 29, 30, 89, 90, 119, 120, 599.5, 600, 1_799, 1_800, 86_400, 172_800.25)


def set_order_end(shop: Checkout, case: str, left_s: float, order_id: str | None = None) -> datetime:
    order = shop.world.population._orders[order_id or CASES[case].request["order_id"]]
    ends_at = shop.world.clock() + timedelta(seconds=left_s)
    order["expires_at"] = ends_at.astimezone(UTC).isoformat()
    return ends_at


def promise_more(shop: Checkout) -> None:
    """Let risk and the engine promise a month more, in every answer."""

    async def later(request: Request) -> Response:
        response = await shop._sandbox(request)
        body = msgspec.json.decode(response.body)
        for part in (body, body.get("challenge"), body.get("next_action")):
            for name in part or {}:
                if name in ("expires_at", "until"):
                    part[name] = (datetime.fromisoformat(part[name]) + DAYS_LATER).isoformat()
        return msgspec.structs.replace(response, body=msgspec.json.encode(body))

    shop.replies |= dict.fromkeys(("decide", "submit", "look_up"), later)


def ends_shown(payment: Payment) -> list[datetime]:
    ends = [payment.expires_at]
    if payment.challenge is not None:
        ends.append(payment.challenge.expires_at)
    if payment.status is PaymentStatus.ACTION_REQUIRED and (end := expiry(payment.next_action)) is not None:
        ends.append(end)
    return ends


def lifetime_of(shop: Checkout, kind: Kind) -> tuple[int | None, int]:
    terms = shop.payments.policy.catalog.methods[kind]
    return terms.expires_in_s, terms.needs_s


@pytest.mark.parametrize("left_s", LIFETIMES_S)
@pytest.mark.parametrize("scenario", OF_EACH_KIND, ids=lambda scenario: scenario.method_id)
async def test_nothing_outlives_the_order(shop: Checkout, scenario: Scenario, left_s: float) -> None:
    """Every kind, over every lifetime, with upstreams that promise more."""
    fields = scenario.fields
    ends_at = set_order_end(shop, scenario.case, left_s, fields.get("order_id"))
    promise_more(shop)
    consulted = {name: fields.pop(name) for name in ("terminal", "product", "order_id") if name in fields}
    consultation = await shop.consult(scenario.case, **consulted)
    method = method_by_id(consultation, scenario.method_id)
    lifetime_s, needs_s = lifetime_of(shop, method.kind)
    assert consultation.expires_at <= ends_at
    assert method.expires_in_s == (None if lifetime_s is None else min(lifetime_s, int(left_s)))
    if method.amount is None:
        # Terms are listed for a kind that can be used only.
        assert left_s < needs_s
        assert method.reason is not None
        assert method.reason.code is ReasonCode.ORDER_EXPIRES_SOON
        return
    request = shop.request_for(
        scenario.case, consultation, scenario.method_id, scenario.option_id, **consulted, **fields
    )
    shop.reset_counts()
    if left_s < needs_s:
        assert method.reason is not None
        assert (method.availability, method.reason.code) == (Availability.UNAVAILABLE, ReasonCode.ORDER_EXPIRES_SOON)
        with pytest.raises(ConsultChanged) as changed:
            await shop.submit(request)
        [change] = [change for change in changed.value.changes if change.what is ChangeType.METHOD_CLOSED]
        assert change.reason is ReasonCode.ORDER_EXPIRES_SOON
        assert shop.count("decide") == shop.count("submit") == 0
        return
    assert method.availability is Availability.AVAILABLE
    payment = await shop.submit(request)
    assert max(ends_shown(payment)) <= ends_at
    if payment.status is PaymentStatus.CHALLENGE:
        payment = await shop.answer(payment)
    assert max(ends_shown(payment)) <= ends_at
    [submission] = shop.submissions
    assert datetime.fromisoformat(submission["expires_at"]) == payment.expires_at
    now_s = shop.world.clock().timestamp()
    assert payment.expires_at.timestamp() - now_s == pytest.approx(
        min(method.expires_in_s or DEFAULT_LIFE_S, left_s), abs=1
    )
    for again in (await shop.look(payment), await shop.submit(request)):
        assert max(ends_shown(again)) <= ends_at
        assert again.expires_at == payment.expires_at
    ticket = shop.payments.issue_stream_ticket(payment.payment_id, payment.payment_token)
    assert ticket.expires_at <= max(ends_at, shop.world.clock() + timedelta(seconds=60))
    await shop.cancel(payment)


async def test_an_order_with_less_than_a_second_offers_nothing(shop: Checkout) -> None:
    set_order_end(shop, "chinese_shop", 0.9)
    methods = (await shop.consult("chinese_shop")).methods
    assert {method.availability for method in methods} == {Availability.UNAVAILABLE}
    set_order_end(shop, "chinese_shop", 0)
    blocked = (await shop.consult("chinese_shop")).blocked
    assert blocked is not None
    assert blocked.code is Blocked.ORDER_EXPIRED


@pytest.mark.parametrize(("waits_s", "sent"), [(29, True), (31, False)])
async def test_a_kind_that_has_become_too_slow_is_refused(shop: Checkout, waits_s: int, sent: bool) -> None:
    set_order_end(shop, "chinese_shop", 60)
    request = await shop.new_request("chinese_shop", "WALLET:ALIPAY")
    await asyncio.sleep(waits_s)
    shop.reset_counts()
    if sent:
        await shop.cancel(await shop.submit(request))
        return
    with pytest.raises(ConsultChanged) as changed:
        await shop.submit(request)
    assert [(change.what, change.reason) for change in changed.value.changes] == [
        (ChangeType.METHOD_CLOSED, ReasonCode.ORDER_EXPIRES_SOON)
    ]
    assert shop.count("submit") == 0


@pytest.mark.parametrize("method_id", ["BALANCE:acc_1", "AGREEMENT:ag_1"])
async def test_an_order_that_ends_while_risk_decides_is_not_sent(shop: Checkout, method_id: str) -> None:
    """Neither with an acceptance nor with a challenge."""
    case = "balance_is_enough" if method_id.startswith("BALANCE") else "chinese_shop"
    set_order_end(shop, case, 1.5)
    request = await shop.new_request(case, method_id)

    async def slowly(asked: Request) -> Response:
        await asyncio.sleep(1.6)
        return await shop._sandbox(asked)

    shop.replies["decide"] = slowly
    with pytest.raises(ConsultChanged) as changed:
        await shop.submit(request)
    [change] = changed.value.changes
    assert (change.what, change.after) == (ChangeType.ORDER_STATE, Blocked.ORDER_EXPIRED)
    assert change.message == "订单已超时，请重新下单"
    consultation = changed.value.consultation
    assert (consultation.payable, consultation.methods) == (False, ())
    assert shop.count("submit") == 0


async def test_an_extended_order_has_its_new_end() -> None:
    """The acquirer's order counts, not the end that the consult token remembers."""
    async with checkout() as shop:
        set_order_end(shop, "chinese_shop", 100)
        request = await shop.new_request("chinese_shop", "WALLET:ALIPAY")
        set_order_end(shop, "chinese_shop", 500)
        payment = await shop.submit(request)
        now = shop.world.clock()
        assert timedelta(seconds=499) <= payment.expires_at - now <= timedelta(seconds=500)
        await shop.cancel(payment)


async def test_a_challenge_passed_in_another_tab_ends_with_the_order_too(shop: Checkout) -> None:
    """The older token knows the order's end, and not when the payment was sent."""
    ends_at = set_order_end(shop, "chinese_shop", 400)
    challenged = await shop.pay("chinese_shop", "CARD", card_token="tok_3ds_1")
    assert challenged.status is PaymentStatus.CHALLENGE
    promise_more(shop)
    await shop.answer(challenged)
    latest = await shop.look(challenged)
    assert latest.status is PaymentStatus.ACTION_REQUIRED
    assert max(ends_shown(latest)) <= ends_at
    await asyncio.sleep(401)
    assert (await shop.look(challenged)).status is PaymentStatus.CLOSED


def without_order_end(token: str) -> str:
    """The token as an older version made it."""
    keyring = Keyring(["s" * 32])
    head = msgspec.json.decode(_unb64(token.split(".", maxsplit=1)[0]))
    payload, _ = keyring.verify(token, head["typ"], 65_536)
    claims: dict[str, Any] = msgspec.json.decode(payload)
    assert claims.pop("order_expires_at", None) is not None
    return sign(keyring.header(head["typ"]), msgspec.json.encode(claims), keyring.key)


def _unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


async def test_tokens_of_an_older_version_still_work(shop: Checkout) -> None:
    request = await shop.new_request("chinese_shop", "CARD", card_token="tok_3ds_1")
    request = msgspec.structs.replace(request, consult_token=without_order_end(request.consult_token))
    challenged = await shop.submit(request)
    challenged = msgspec.structs.replace(challenged, payment_token=without_order_end(challenged.payment_token))
    payment = await shop.answer(challenged)
    assert payment.status is PaymentStatus.ACTION_REQUIRED
    again = await shop.submit(request)
    assert again.payment_id == payment.payment_id
    await shop.cancel(msgspec.structs.replace(payment, payment_token=without_order_end(payment.payment_token)))


@pytest.mark.parametrize("promised", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59Z"])
async def test_an_impossible_end_of_the_engine_is_cut_to_the_payments_time(shop: Checkout, promised: str) -> None:
    ends_at = set_order_end(shop, "chinese_shop", 500)
    request = await shop.new_request("chinese_shop", "WALLET:ALIPAY")
    payment = await shop.submit(request)

    async def impossible(asked: Request) -> Response:
        response = await shop._sandbox(asked)
        body = msgspec.json.decode(response.body) | {"expires_at": promised}
        return msgspec.structs.replace(response, body=msgspec.json.encode(body))

    shop.replies["look_up"] = impossible
    again = await shop.submit(request)
    assert shop.world.clock() - timedelta(seconds=1) <= again.expires_at <= ends_at
    shop.replies.clear()
    await shop.cancel(payment)


async def test_the_action_of_a_busy_order_ends_with_the_order(shop: Checkout) -> None:
    """The same payer's second key is shown the live attempt."""
    ends_at = set_order_end(shop, "scan_to_pay", 500)
    request = await shop.new_request("scan_to_pay", "MERCHANT_QR:ALIPAY")
    payment = await shop.submit(request)
    promise_more(shop)
    with pytest.raises(OrderBusy) as busy:
        await shop.submit(request, "k2")
    assert busy.value.next_action is not None
    shown = expiry(busy.value.next_action)
    assert shown is not None
    assert busy.value.expires_at is not None
    assert max(shown, busy.value.expires_at) <= ends_at
    shop.replies.clear()
    await shop.cancel(payment)
