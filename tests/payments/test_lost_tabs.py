"""A payer whose tab is lost finds, resumes, closes or replaces the attempt from any device."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from datetime import timedelta
from itertools import combinations
from typing import Any

import msgspec
import pytest

from cashier.domain.order import Blocked
from cashier.domain.payment_id import payment_id
from cashier.domain.payment_message import MessageCode
from cashier.domain.payment_resource import Payment
from cashier.domain.payment_state import FINAL, PaymentStatus
from cashier.payments.errors import AcceptError, Invalid, NoSuchAttempt, NotResumable, OrderBusy, StatusUnavailable
from cashier.sandbox import CASES
from cashier.wire.transport import Request, Response
from tests.payments.checkout import Checkout, Reply, SharedStore, attempt_request, checkout

pytestmark = pytest.mark.virtual_time
CASE = "chinese_shop"
WALLET, OTHER = "WALLET:ALIPAY", "WALLET:WECHAT_PAY"
# Each kind whose payer leaves the shop's page, and what lives on there.
LONG_LIVED = [
    ("on_a_computer", "NET_BANKING", "CMB"),
    ("indonesian_shop", "VA", "BCA"),
    ("japanese_shop", "OTC", "LAWSON"),
    ("scan_to_pay", "MERCHANT_QR:ALIPAY", None),
    (CASE, WALLET, None),
]


def changed(shop: Checkout, call: str, change: Callable[[dict[str, Any]], None]) -> Reply:
    """The sandbox's answer to this call with other fields."""

    async def reply(request: Request) -> Response:
        response = await shop._sandbox(request)
        body = json.loads(response.body)
        change(body)
        return Response(response.status, json.dumps(body).encode())

    shop.replies[call] = reply
    return reply


def without(*names: str) -> Callable[[dict[str, Any]], None]:
    def change(body: dict[str, Any]) -> None:
        for name in names:
            body.pop(name, None)

    return change


@pytest.mark.parametrize(("case", "method_id", "option_id"), LONG_LIVED)
async def test_a_payer_finds_the_attempt_with_its_action_and_resumes_it_elsewhere(
    case: str, method_id: str, option_id: str | None
) -> None:
    async with checkout(workers=2) as shop:
        lost = await shop.pay(case, method_id, option_id)
        shop.reset_counts()
        found = await shop.find(case)
        assert shop.calls == ["result", "look_up"]
        assert (found.payment_id, found.method_id, found.option_id) == (lost.payment_id, method_id, option_id)
        assert (found.status, found.next_action, found.amount) == (lost.status, lost.next_action, lost.amount)
        assert found.can_resume
        assert not hasattr(found, "payment_token")
        shop.reset_counts()
        resumed = await shop.resume(case, lost.payment_id)
        assert sorted(shop.calls) == ["look_up", "result"]
        assert resumed.payment_token != lost.payment_token
        assert (resumed.status, resumed.next_action, resumed.amount) == (lost.status, lost.next_action, lost.amount)
        assert found.expires_at == resumed.expires_at
        shop.settle(lost)
        for payment in (resumed, lost):
            assert (await shop.look(payment)).status is PaymentStatus.SUCCEEDED
        assert (await shop.resume(case, lost.payment_id)).status is PaymentStatus.SUCCEEDED
        assert (await shop.find(case)).can_resume is False


async def test_a_second_device_closes_the_attempt_and_the_order_is_free() -> None:
    async with checkout(workers=2, store=SharedStore()) as shop:
        lost = await shop.pay(CASE, WALLET)
        resumed = await shop.resume(CASE, lost.payment_id)
        closed = await shop.payments_of(shop.workers[1]).cancel(resumed.payment_id, resumed.payment_token)
        assert closed.status is PaymentStatus.CLOSED
        assert (await shop.look(lost)).status is PaymentStatus.CLOSED
        paid = await shop.pay(CASE, OTHER, key="k2")
        shop.settle(paid)
        assert (await shop.look(paid)).status is PaymentStatus.SUCCEEDED


@pytest.mark.parametrize(("case", "method_id", "option_id"), LONG_LIVED)
@pytest.mark.parametrize("shared", [False, True])
async def test_a_replaced_attempt_is_over_and_another_is_paid(
    case: str, method_id: str, option_id: str | None, shared: bool
) -> None:
    async with checkout(workers=2, store=SharedStore() if shared else None) as shop:
        lost = await shop.pay(case, method_id, option_id)
        replaced = await shop.replace(case, lost.payment_id)
        assert (replaced.status, replaced.message.code) == (PaymentStatus.CLOSED, MessageCode.CANCELLED)
        assert replaced.consultation is not None
        assert replaced.consultation.payable
        method = next(each for each in replaced.consultation.methods if each.method_id == method_id)
        again = await shop.submit(shop.request_for(case, replaced.consultation, method.method_id, option_id), "k2")
        assert again.payment_id != lost.payment_id
        assert again.status is PaymentStatus.ACTION_REQUIRED
        assert (await shop.look(lost)).status is PaymentStatus.CLOSED
        shop.settle(again)
        assert (await shop.look(again)).status is PaymentStatus.SUCCEEDED
        assert shop.payments_that_paid(lost.order_id) == [again.payment_id]


@pytest.mark.parametrize(
    "named", ["", "pay_", "pay_x/../../orders/o_1", "pay_" + "a" * 26 + "?x", "PAY_" + "A" * 26, "pay_" + "\u0661" * 26]
)
async def test_what_is_no_id_of_ours_reaches_no_service(shop: Checkout, named: str) -> None:
    for act in (shop.resume, shop.replace):
        with pytest.raises(NoSuchAttempt):
            await act(CASE, named)
    assert shop.calls == []


async def test_replacing_twice_and_at_once_gives_the_same_end(shop: Checkout) -> None:
    lost = await shop.pay(CASE, WALLET)
    at_once = await asyncio.gather(*(shop.replace(CASE, lost.payment_id) for _ in range(5)))
    again = await shop.replace(CASE, lost.payment_id)
    assert {replaced.status for replaced in (*at_once, again)} == {PaymentStatus.CLOSED}
    assert all(replaced.consultation and replaced.consultation.payable for replaced in (*at_once, again))


@pytest.mark.parametrize("fault", [{"engine": "pay_first"}, {}])
async def test_money_that_arrives_while_an_attempt_is_replaced_pays_the_order_once(
    shop: Checkout, fault: dict[str, str]
) -> None:
    lost = await shop.pay(CASE, WALLET)
    if fault:
        shop.inject("engine", "pay_first", on="reverse")
    else:
        shop.settle(lost)
    replaced = await shop.replace(CASE, lost.payment_id)
    assert (replaced.status, replaced.consultation) == (PaymentStatus.SUCCEEDED, None)
    assert shop.payments_that_paid(lost.order_id) == [lost.payment_id]


async def test_money_for_an_order_that_closed_meanwhile_is_told_as_going_back(shop: Checkout) -> None:
    lost = await shop.pay(CASE, WALLET)
    shop.world.acquirer.close("o_1001")
    shop.settle(lost)
    replaced = await shop.replace(CASE, lost.payment_id)
    assert (replaced.status, replaced.consultation) == (PaymentStatus.CLOSED_REFUNDING, None)


@pytest.mark.parametrize("silent", ["engine", "acquirer"])
async def test_an_end_that_is_not_confirmed_leaves_the_order_busy_with_the_old_action(silent: str) -> None:
    async with checkout(look_ms=200) as shop:
        lost = await shop.pay(CASE, WALLET)
        if silent == "engine":

            async def no_answer(request: Request) -> Response:
                return Response(500, b"{}")

            shop.replies["reverse"] = no_answer
        else:
            shop.inject("acquirer", "error", always=True)
        with pytest.raises(OrderBusy) as busy:
            await shop.replace(CASE, lost.payment_id)
        assert busy.value.payment_id == lost.payment_id
        assert busy.value.next_action == lost.next_action
        assert busy.value.expires_at is not None
        assert busy.value.expires_at <= lost.expires_at
        shop.clear_faults()
        shop.replies.clear()
        assert (await shop.replace(CASE, lost.payment_id)).status is PaymentStatus.CLOSED


async def test_a_silent_engine_proves_nothing_and_nothing_is_disclosed() -> None:
    async with checkout(look_ms=200) as shop:
        lost = await shop.pay(CASE, WALLET)
        shop.inject("engine", "error", always=True)
        for request in (shop.find(CASE), shop.resume(CASE, lost.payment_id), shop.replace(CASE, lost.payment_id)):
            with pytest.raises(StatusUnavailable) as unavailable:
                await request
            assert unavailable.value.silent == ("engine",)
        shop.clear_faults()
        shop.inject("acquirer", "error", always=True)
        with pytest.raises(StatusUnavailable) as unavailable:
            await shop.find(CASE)
        assert unavailable.value.silent == ("acquirer",)
        shop.clear_faults()
        assert (await shop.look(lost)).status is PaymentStatus.ACTION_REQUIRED, "no refused request ended it"


async def test_an_acquirer_that_still_counts_the_attempt_keeps_the_order_busy(shop: Checkout) -> None:
    lost = await shop.pay(CASE, WALLET)

    def still_paying(body: dict[str, Any]) -> None:
        body |= {"status": "PAYING", "payment_id": lost.payment_id}

    changed(shop, "result", still_paying)
    with pytest.raises(OrderBusy):
        await shop.replace(CASE, lost.payment_id)
    shop.replies.clear()
    assert (await shop.replace(CASE, lost.payment_id)).status is PaymentStatus.CLOSED


STRANGERS: list[dict[str, str]] = [
    {"user_id": "u_2"},
    {"user_id": "u_10"},
    {"merchant_id": "m_2"},
    {"order_id": "o_1002"},
    {"user_id": "u_2", "order_id": "o_1002"},
]


@pytest.mark.parametrize("fields", STRANGERS, ids=str)
async def test_a_foreign_payer_merchant_or_order_gets_the_answer_of_no_attempt(
    shop: Checkout, fields: dict[str, str]
) -> None:
    lost = await shop.pay(CASE, WALLET)
    for request in (
        shop.find(CASE, **fields),
        shop.resume(CASE, lost.payment_id, **fields),
        shop.replace(CASE, lost.payment_id, **fields),
    ):
        with pytest.raises(NoSuchAttempt):
            await request
    assert shop.count("reverse") == 0
    assert (await shop.look(lost)).status is PaymentStatus.ACTION_REQUIRED


async def test_an_order_without_an_attempt_has_none_to_find(shop: Checkout) -> None:
    with pytest.raises(NoSuchAttempt):
        await shop.find(CASE)
    with pytest.raises(NoSuchAttempt):
        await shop.find("order_unknown")
    assert shop.count("look_up") == 0


@pytest.mark.parametrize("named", ["pay_elsewhere", "../members/u_1", "pay_" + "A" * 26, "pay_" + "a" * 27])
async def test_a_payment_of_another_system_goes_into_no_request(shop: Checkout, named: str) -> None:
    changed(shop, "result", lambda body: body.update(status="PAYING", payment_id=named))
    with pytest.raises((NoSuchAttempt, StatusUnavailable)):
        await shop.find(CASE)
    assert shop.count("look_up") == 0


async def test_an_engine_that_answers_another_payment_gives_nothing_away(shop: Checkout) -> None:
    lost = await shop.pay(CASE, WALLET)
    changed(shop, "look_up", lambda body: body.update(payment_id="pay_" + "b" * 26))
    for request in (shop.find(CASE), shop.resume(CASE, lost.payment_id), shop.replace(CASE, lost.payment_id)):
        with pytest.raises(NoSuchAttempt):
            await request
    shop.replies.clear()
    assert (await shop.cancel(lost)).status is PaymentStatus.CLOSED


async def test_a_payer_is_never_the_user_that_a_lying_engine_leaves_out(shop: Checkout) -> None:
    lost = await shop.pay(CASE, WALLET)
    changed(shop, "look_up", without("user_id"))
    with pytest.raises(NoSuchAttempt):
        await shop.find(CASE)
    for request in (shop.resume(CASE, lost.payment_id), shop.replace(CASE, lost.payment_id)):
        with pytest.raises(NotResumable) as refused:
            await request
        assert refused.value.missing == "user_id"
    assert shop.count("reverse") == 0
    shop.replies.clear()
    assert (await shop.cancel(lost)).status is PaymentStatus.CLOSED


@pytest.mark.parametrize("method_id", [None, "", "alipay", "wallet:ALIPAY", "WALLET:\n", "WALLET:" + "x" * 200])
async def test_an_engine_that_does_not_report_the_method_is_named_as_the_cause(
    shop: Checkout, method_id: str | None
) -> None:
    lost = await shop.pay(CASE, WALLET)
    changed(shop, "look_up", lambda body: body.update(method_id=method_id))
    for request in (shop.find(CASE), shop.resume(CASE, lost.payment_id), shop.replace(CASE, lost.payment_id)):
        with pytest.raises(NotResumable) as refused:
            await request
        assert refused.value.missing == "method_id"
    shop.replies.clear()
    assert (await shop.cancel(lost)).status is PaymentStatus.CLOSED


async def test_user_and_method_are_enough_for_the_rest_the_order_is_asked(shop: Checkout) -> None:
    lost = await shop.pay(CASE, WALLET)
    left_out = without("merchant_id", "amount", "expires_at", "submitted_at", "fingerprint", "option_id", "order_id")
    changed(shop, "look_up", left_out)
    resumed = await shop.resume(CASE, lost.payment_id)
    assert (resumed.status, resumed.next_action) == (lost.status, lost.next_action)
    assert resumed.amount.value == 12_800, "the order's amount"
    assert (await shop.find(CASE)).payment_id == lost.payment_id
    for fields in ({"merchant_id": "m_2"}, {"user_id": "u_2"}):
        with pytest.raises(NoSuchAttempt):
            await shop.resume(CASE, lost.payment_id, **fields)
    shop.settle(lost)
    assert (await shop.look(resumed)).status is PaymentStatus.SUCCEEDED


async def test_a_challenge_that_was_never_sent_cannot_be_resumed_but_replaced(shop: Checkout) -> None:
    challenged = await shop.pay(CASE, "QUICK_PAY:c_2")
    assert challenged.status is PaymentStatus.CHALLENGE
    with pytest.raises(NoSuchAttempt):
        await shop.find(CASE)
    with pytest.raises(NotResumable) as refused:
        await shop.resume(CASE, challenged.payment_id)
    assert refused.value.missing is None
    replaced = await shop.replace(CASE, challenged.payment_id)
    assert (replaced.status, replaced.payment_token) == (PaymentStatus.CLOSED, None)
    assert replaced.consultation is not None
    assert replaced.consultation.payable
    assert (await shop.replace(CASE, challenged.payment_id)).status is PaymentStatus.CLOSED
    late = await shop.answer(challenged)
    assert late.status is PaymentStatus.CLOSED, "its engine refuses it for good"
    assert shop.count("submit") == 0
    paid = await shop.submit(shop.request_for(CASE, replaced.consultation, WALLET), "k2")
    shop.settle(paid)
    assert (await shop.look(paid)).status is PaymentStatus.SUCCEEDED


async def test_a_stranger_replaces_no_challenge(shop: Checkout) -> None:
    challenged = await shop.pay(CASE, "QUICK_PAY:c_2")
    for fields in ({"user_id": "u_2"}, {"merchant_id": "m_2"}):
        with pytest.raises(NoSuchAttempt):
            await shop.replace(CASE, challenged.payment_id, **fields)
    assert shop.count("reverse") == 0
    assert (await shop.answer(challenged)).status is PaymentStatus.SUCCEEDED


@pytest.mark.parametrize("stranger", ["balance_is_enough", "low_kyc", "indonesian_shop", "japanese_shop"])
@pytest.mark.parametrize("moment", ["challenged", "on its way"])
async def test_who_has_another_order_and_knows_the_id_ends_no_attempt(
    shop: Checkout, stranger: str, moment: str
) -> None:
    assert CASES[stranger].request["order_id"] != CASES[CASE].request["order_id"]
    if moment == "challenged":
        attempt = await shop.pay(CASE, "QUICK_PAY:c_2")
    else:
        shop.inject("engine", "arrives_late", on="submit")
        attempt = await shop.pay(CASE, WALLET)
    with pytest.raises(NoSuchAttempt):
        await shop.replace(stranger, attempt.payment_id)
    assert shop.count("reverse") == 0
    if moment == "challenged":
        assert (await shop.answer(attempt)).status is PaymentStatus.SUCCEEDED
    else:
        await asyncio.sleep(6)
        assert (await shop.look(attempt)).status is PaymentStatus.ACTION_REQUIRED


@pytest.mark.parametrize("worker", [0, 1])
async def test_of_an_order_without_a_user_only_the_payer_replaces_a_challenge(worker: int) -> None:
    async with checkout(workers=2) as shop:
        shop.world.population._orders["o_1001"].pop("user_id")
        challenged = await shop.pay(CASE, "QUICK_PAY:c_2")
        first, other = shop.payments, shop.payments_of(shop.workers[1])
        for payments, user_id in ((first, "u_2"), (other, "u_2"), (other, "u_1")):
            with pytest.raises(NoSuchAttempt):
                await payments.replace(challenged.payment_id, attempt_request(CASE, user_id=user_id))
        assert shop.count("reverse") == 0
        if worker:
            assert (await shop.answer(challenged)).status is PaymentStatus.SUCCEEDED
        else:
            replaced = await first.replace(challenged.payment_id, attempt_request(CASE))
            assert replaced.status is PaymentStatus.CLOSED


@pytest.mark.parametrize("reported", ["PAYING", "PENDING"])
@pytest.mark.parametrize("shared", [False, True])
async def test_an_attempt_that_the_acquirer_does_not_name_is_found_by_what_is_known_here(
    shared: bool, reported: str
) -> None:
    async with checkout(workers=2, store=SharedStore() if shared else None) as shop:
        lost = await shop.pay(CASE, WALLET)

        def unnamed(body: dict[str, Any]) -> None:
            body.pop("payment_id", None)
            body["status"] = reported

        changed(shop, "result", unnamed)
        assert (await shop.find(CASE)).payment_id == lost.payment_id
        elsewhere = shop.payments_of(shop.workers[1])
        mine = {"merchant_id": "m_1", "user_id": "u_1"}
        if shared:
            assert (await elsewhere.find("o_1001", **mine)).payment_id == lost.payment_id
        else:
            with pytest.raises(NoSuchAttempt):
                await elsewhere.find("o_1001", **mine)
        for fields in STRANGERS:
            with pytest.raises(NoSuchAttempt):
                await shop.find(CASE, **fields)
        shop.replies.clear()
        assert (await shop.cancel(lost)).status is PaymentStatus.CLOSED
        changed(shop, "result", unnamed)
        with pytest.raises(NoSuchAttempt):
            await shop.find(CASE)


async def test_a_submit_that_is_still_on_its_way_is_refused_before_the_order_is_free() -> None:
    async with checkout(submit_ms=1_000) as shop:
        shop.inject("engine", "arrives_late", on="submit")
        lost = await shop.pay(CASE, WALLET)
        assert lost.status is PaymentStatus.PROCESSING
        replaced = await shop.replace(CASE, lost.payment_id)
        assert replaced.status is PaymentStatus.CLOSED
        await asyncio.sleep(60)
        assert shop.net_taken() == {}
        assert (await shop.look(lost)).status is PaymentStatus.CLOSED


async def test_without_a_confirmed_seal_the_order_stays_busy() -> None:
    async with checkout(look_ms=200) as shop:
        challenged = await shop.pay(CASE, "QUICK_PAY:c_2")
        shop.inject("engine", "error", "error", "error", "error", "error", on="reverse")
        with pytest.raises(OrderBusy) as busy:
            await shop.replace(CASE, challenged.payment_id)
        assert (busy.value.payment_id, busy.value.next_action) == (challenged.payment_id, None)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("same_payer", [True, False])
async def test_a_busy_order_tells_its_own_payer_what_is_open(shared: bool, same_payer: bool) -> None:
    async with checkout(workers=2, store=SharedStore() if shared else None) as shop:
        second = await shop.new_request(CASE, OTHER)
        first = await shop.pay(CASE, WALLET)
        if not same_payer:
            changed(shop, "look_up", lambda body: body.update(user_id="u_2") if "user_id" in body else None)
        with pytest.raises(OrderBusy) as busy:
            await shop.submit(second, "k2", worker=1)
        assert busy.value.payment_id == first.payment_id
        assert busy.value.next_action == (first.next_action if same_payer else None)
        assert (busy.value.expires_at is not None) is same_payer
        shop.replies.clear()
        assert (await shop.cancel(first)).status is PaymentStatus.CLOSED


async def test_a_resumed_token_has_no_secret_and_sends_nothing(shop: Checkout) -> None:
    challenged = await shop.pay(CASE, "CARD", card_token="tok_3ds_1", return_url="https://shop.example/back")
    lost = await shop.answer(challenged)
    resumed = await shop.resume(CASE, lost.payment_id)
    claims = shop.payments._read_token(resumed.payment_id, resumed.payment_token)
    assert claims.means == msgspec.convert({}, type(claims.means))
    submits = shop.count("submit")
    answered = await shop.payments.answer(resumed.payment_id, resumed.payment_token, "246810")
    assert answered.status is PaymentStatus.ACTION_REQUIRED
    assert shop.count("submit") == submits
    assert (await shop.cancel(resumed)).status is PaymentStatus.CLOSED


async def test_many_who_find_one_order_share_their_calls(shop: Checkout) -> None:
    lost = await shop.pay(CASE, WALLET)
    shop.reset_counts()
    held = shop.held["look_up"] = asyncio.Event()
    searches = [asyncio.create_task(shop.find(CASE)) for _ in range(50)]
    await asyncio.sleep(0.01)
    searches += [asyncio.create_task(shop.find(CASE)) for _ in range(50)]
    await asyncio.sleep(0.01)
    held.set()
    assert {found.payment_id for found in await asyncio.gather(*searches)} == {lost.payment_id}
    assert len(shop.calls) == 4, "one run, and one for those who came after it had begun"
    assert (await shop.cancel(lost)).status is PaymentStatus.CLOSED


async def test_an_expired_attempt_is_found_closed_or_not_at_all_and_is_replaced(shop: Checkout) -> None:
    lost = await shop.pay(CASE, WALLET)
    await asyncio.sleep(901)
    with pytest.raises(NoSuchAttempt):
        await shop.find(CASE)
    resumed = await shop.resume(CASE, lost.payment_id)
    assert resumed.status in FINAL
    replaced = await shop.replace(CASE, lost.payment_id)
    assert replaced.status is PaymentStatus.CLOSED


async def test_a_replaced_attempt_whose_order_closed_offers_no_method(shop: Checkout) -> None:
    lost = await shop.pay(CASE, WALLET)
    shop.world.acquirer.close("o_1001")
    replaced = await shop.replace(CASE, lost.payment_id)
    assert replaced.status is PaymentStatus.CLOSED
    assert replaced.consultation is not None
    assert replaced.consultation.blocked is not None
    assert replaced.consultation.blocked.code is Blocked.ORDER_CLOSED


async def test_a_program_has_to_name_the_user(shop: Checkout) -> None:
    request = attempt_request(CASE, user_id=None)
    for call in (shop.payments.resume, shop.payments.replace):
        with pytest.raises(Invalid):
            await call("pay_" + "a" * 26, request)
    with pytest.raises(msgspec.ValidationError):
        await shop.payments.find("o 1", merchant_id="m_1", user_id="u_1")
    assert issubclass(NoSuchAttempt, AcceptError)
    assert shop.calls == []


async def test_a_submit_that_is_being_checked_is_refused_once_its_attempt_is_replaced(shop: Checkout) -> None:
    request = await shop.new_request(CASE, WALLET)
    held = shop.held["decide"] = asyncio.Event()
    submit = asyncio.create_task(shop.submit(request))
    await asyncio.sleep(0.1)
    lost = payment_id("m_1", "o_1001", "k1")
    replaced = await shop.replace(CASE, lost)
    assert replaced.status is PaymentStatus.CLOSED
    held.set()
    assert (await submit).status is PaymentStatus.CLOSED
    assert shop.net_taken() == {}
    paid = await shop.pay(CASE, OTHER, key="k2")
    shop.settle(paid)
    assert (await shop.look(paid)).status is PaymentStatus.SUCCEEDED


async def test_a_submit_whose_attempt_was_replaced_is_not_sent_beside_the_next_one(shop: Checkout) -> None:
    request, other = await shop.new_request(CASE, WALLET), await shop.new_request(CASE, OTHER)
    held = shop.held["decide"] = asyncio.Event()
    submit = asyncio.create_task(shop.submit(request))
    await asyncio.sleep(0.1)
    await shop.replace(CASE, payment_id("m_1", "o_1001", "k1"))
    del shop.held["decide"]
    paid = await shop.submit(other, "k2")
    held.set()
    with pytest.raises(OrderBusy) as busy:
        await submit
    assert busy.value.payment_id == paid.payment_id
    assert shop.count("submit") == 1
    shop.settle(paid)
    assert (await shop.look(paid)).status is PaymentStatus.SUCCEEDED


FIELDS = ("user_id", "merchant_id", "order_id", "method_id", "amount")
ASKERS: list[dict[str, str]] = [{}, {"user_id": "u_2"}, {"merchant_id": "m_2"}, {"order_id": "o_1002"}]


@pytest.mark.parametrize("asker", ASKERS, ids=str)
async def test_whatever_the_engine_leaves_out_only_the_payer_of_the_attempt_gets_it(
    shop: Checkout, asker: dict[str, str]
) -> None:
    lost = await shop.pay(CASE, WALLET)
    for left_out in (names for count in range(6) for names in combinations(FIELDS, count)):
        changed(shop, "look_up", without(*left_out))
        try:
            resumed = await shop.resume(CASE, lost.payment_id, **asker)
        except (NoSuchAttempt, NotResumable):
            assert asker or {"user_id", "method_id"} & {*left_out}, left_out
        else:
            assert not asker, f"{asker} got it, as {left_out} were left out"
            assert (resumed.status, resumed.next_action) == (lost.status, lost.next_action)
    shop.replies.clear()
    assert shop.count("reverse") == 0
    assert (await shop.cancel(lost)).status is PaymentStatus.CLOSED


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00Z", "2026-11-02T11:00:00Z", "9999-12-31T23:59:59Z"])
@pytest.mark.parametrize("name", ["expires_at", "submitted_at"])
async def test_an_engine_with_odd_times_ends_no_request_in_an_error(shop: Checkout, name: str, at: str) -> None:
    lost = await shop.pay(CASE, WALLET)
    changed(shop, "look_up", lambda body: body.update({name: at}))
    found, resumed = await shop.find(CASE), await shop.resume(CASE, lost.payment_id)
    for payment in (found, resumed):
        assert payment.expires_at <= lost.expires_at + timedelta(days=7)
    assert (await shop.look(resumed)).payment_id == lost.payment_id
    shop.replies.clear()
    assert (await shop.cancel(lost)).status is PaymentStatus.CLOSED


async def test_a_busy_order_of_another_merchant_with_the_same_id_is_not_told(shop: Checkout) -> None:
    second = await shop.new_request(CASE, OTHER)
    first = await shop.pay(CASE, WALLET)
    changed(shop, "look_up", lambda body: body.update(merchant_id="m_2") if "user_id" in body else None)
    with pytest.raises(OrderBusy) as busy:
        await shop.submit(second, "k2")
    assert (busy.value.next_action, busy.value.expires_at) == (None, None)
    shop.replies.clear()
    assert (await shop.cancel(first)).status is PaymentStatus.CLOSED


# Faults of the engine that are over after one call.
FAULTS = [
    ("submit", "arrives_late"),
    ("submit", "cut"),
    ("reverse", "error"),
    ("reverse", "pay_first"),
    (None, "error"),
]


@pytest.mark.parametrize("seed", range(12))
async def test_two_devices_in_any_order_pay_at_most_once(seed: int) -> None:
    """Each acts as its payer may: on its own tokens, or on what it finds."""
    chance = random.Random(seed)
    async with checkout(workers=2, store=SharedStore() if seed % 2 else None, submit_ms=500, look_ms=500) as shop:
        held: list[Payment] = []
        ended: set[str] = set()

        async def act(device: int, step: int) -> None:
            payments = shop.payments_of(shop.workers[device])
            match chance.choice(("submit", "resume", "replace", "cancel", "look", "pay")):
                case "submit":
                    consultation = await shop.consult(CASE)
                    if consultation.payable:
                        request = shop.request_for(CASE, consultation, chance.choice((WALLET, OTHER)))
                        held.append(await payments.submit(request, f"k{device}_{step}"))
                case "resume":
                    found = await shop.find(CASE)
                    held.append(await payments.resume(found.payment_id, attempt_request(CASE)))
                case "replace" if held:
                    replaced = await payments.replace(chance.choice(held).payment_id, attempt_request(CASE))
                    if replaced.consultation is not None:
                        ended.add(replaced.payment_id)
                case "cancel" if held:
                    chosen = chance.choice(held)
                    held.append(await payments.cancel(chosen.payment_id, chosen.payment_token))
                case "look" if held:
                    chosen = chance.choice(held)
                    held.append(await payments.look(chosen.payment_id, chosen.payment_token))
                case "pay" if held:
                    shop.world.engine.settle(chance.choice(held).payment_id, "SUCCEEDED")

        for step in range(12):
            if chance.random() < 0.3:
                call, fault = chance.choice(FAULTS)
                shop.inject("engine", fault, on=call)
            outcomes = await asyncio.gather(*(act(device, step) for device in (0, 1)), return_exceptions=True)
            unexpected = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
            assert all(isinstance(error, AcceptError) for error in unexpected), unexpected
            await asyncio.sleep(chance.choice((0, 0.3, 6)))
        shop.clear_faults()
        assert len(shop.payments_that_paid("o_1001")) <= 1
        for payment_id in ended:
            assert payment_id not in shop.payments_that_paid("o_1001"), "it was called over"
        for chosen in {payment.payment_id: payment for payment in held}.values():
            await shop.payments.cancel(chosen.payment_id, chosen.payment_token)
