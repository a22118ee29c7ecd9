"""All ten kinds on all three products: what each asks of the payer, and then the acquirer's word."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import pytest

from cashier.domain.next_action import Action, Await, DisplayCode, DisplayQr, DisplayVa, Redirect
from cashier.domain.pay_method import Kind
from cashier.domain.payment_message import MessageCode
from cashier.domain.payment_state import PaymentStatus
from tests.payments.checkout import checkout

pytestmark = pytest.mark.looptime


class Way(NamedTuple):
    """`asks`: what is asked of the payer once risk is content; None where the engine is done at once."""

    case: str
    method_id: str
    option_id: str | None = None
    asks: type[Action] | None = None
    product: str | None = None
    terminal: str | None = None
    card_token: str | None = None
    auth_code: str | None = None

    @property
    def other(self) -> dict[str, str]:
        return {
            name: value
            for name, value in self._asdict().items()
            if name not in ("case", "method_id", "option_id", "asks") and value
        }


EMBEDDED = "EMBEDDED_CASHIER"
WAYS = [
    Way("chinese_shop", "QUICK_PAY:c_2"),
    Way("kuwaiti_shop", "QUICK_PAY:c_9651"),
    Way("japanese_shop", "QUICK_PAY:c_811", product=EMBEDDED),
    Way("chinese_shop", "AGREEMENT:ag_1", asks=Await),
    Way("chinese_shop", "AGREEMENT:ag_1", asks=Await, product=EMBEDDED),
    Way("chinese_shop", "CARD", card_token="tok_1"),
    Way("chinese_shop", "CARD", card_token="tok_3ds_1", asks=Redirect),
    Way("kuwaiti_shop", "CARD", card_token="tok_3ds_1", asks=Redirect),
    Way("indonesian_shop", "CARD", card_token="tok_1", product=EMBEDDED),
    Way("on_a_computer", "NET_BANKING", "CMB", asks=Redirect),
    Way("on_a_computer", "NET_BANKING", "ICBC", asks=Redirect, product=EMBEDDED),
    Way("kuwaiti_shop", "NET_BANKING", "KFH", asks=Redirect),
    Way("indonesian_shop", "VA", "BCA", asks=DisplayVa),
    Way("indonesian_shop", "VA", "PERMATA", asks=DisplayVa, product=EMBEDDED),
    Way("indonesian_shop", "OTC", "ALFAMART", asks=DisplayCode),
    Way("japanese_shop", "OTC", "LAWSON", asks=DisplayCode, product=EMBEDDED),
    Way("chinese_shop", "WALLET:WECHAT_PAY", asks=Redirect),
    Way("indonesian_shop", "WALLET:GOPAY", asks=Redirect, product=EMBEDDED),
    Way("balance_is_enough", "BALANCE:acc_1"),
    Way("balance_is_enough", "BALANCE:acc_1", product=EMBEDDED),
    Way("scan_to_pay", "BALANCE:acc_1"),
    Way("japanese_shop", "BALANCE:acc_812+QUICK_PAY"),
    Way("scan_to_pay", "MERCHANT_QR:ALIPAY", asks=DisplayQr),
    Way("scan_to_pay", "MERCHANT_QR:UNIONPAY", asks=DisplayQr, terminal="PC"),
    Way("scan_to_pay", "CONSUMER_QR", auth_code="280123456789012340"),
    Way("scan_to_pay", "CONSUMER_QR", auth_code="280123456789012348", asks=Await),
]


def test_all_ten_are_here() -> None:
    assert {way.method_id.partition(":")[0] for way in WAYS} == set(Kind)
    assert {way.product for way in WAYS if way.case != "scan_to_pay"} == {None, EMBEDDED}


@pytest.mark.parametrize(
    "way", WAYS, ids=lambda way: "-".join(str(part) for part in (way.method_id, way.product, way.terminal) if part)
)
async def test_a_kind_goes_through_to_the_acquirers_final_word(way: Way) -> None:
    async with checkout() as shop:
        payment = await shop.pay(way.case, way.method_id, way.option_id, **way.other)
        payment_id = payment.payment_id
        if payment.status is PaymentStatus.CHALLENGE:
            payment = await shop.answer(payment)
        if way.asks is None:
            assert (payment.status, payment.next_action, payment.poll_after_ms) == (PaymentStatus.SUCCEEDED, None, None)
        else:
            assert isinstance(payment.next_action, way.asks)
            assert payment.poll_after_ms is not None
        if payment.status is PaymentStatus.ACTION_REQUIRED:
            await asyncio.sleep(30)
            assert (await shop.look(payment)).status is PaymentStatus.ACTION_REQUIRED
            shop.settle(payment)
        last = await shop.follow_to_end(payment)
        assert (last.payment_id, last.status, last.message.code) == (
            payment_id,
            PaymentStatus.SUCCEEDED,
            MessageCode.SUCCEEDED,
        )
        assert (last.next_action, last.poll_after_ms, last.challenge) == (None, None, None)
        result = shop.world.acquirer.result(last.order_id)
        assert result is not None
        assert (result["status"], result["payment_id"]) == ("PAID", payment_id)
        assert result["paid"]["value"] == last.amount.value
        assert shop.count("submit") == 1


async def test_an_agreement_is_processing_without_a_payer_until_the_bank_has_done_it() -> None:
    async with checkout() as shop:
        payment = await shop.pay("chinese_shop", "AGREEMENT:ag_1")
        assert (payment.status, payment.message.code) == (PaymentStatus.PROCESSING, MessageCode.PROCESSING)
        assert (await shop.look(payment)).status is PaymentStatus.PROCESSING
        assert (await shop.look(payment)).status is PaymentStatus.SUCCEEDED
        assert shop.count("verify") == 0


@pytest.mark.parametrize(
    ("case", "method_id", "option_id"), [("indonesian_shop", "VA", "BCA"), ("indonesian_shop", "OTC", "ALFAMART")]
)
async def test_too_little_by_transfer_goes_back_and_it_is_still_to_be_paid(
    case: str, method_id: str, option_id: str
) -> None:
    async with checkout() as shop:
        payment = await shop.pay(case, method_id, option_id)
        asked = payment.amount.value
        shop.settle(payment, paid=asked - 1)
        assert (await shop.look(payment)).status is PaymentStatus.ACTION_REQUIRED
        shop.settle(payment, paid=asked)
        assert (await shop.look(payment)).status is PaymentStatus.SUCCEEDED
        assert sum(value for source, value in shop.net_taken().items() if source.startswith("CHANNEL")) == asked


@pytest.mark.parametrize(
    ("case", "method_id", "option_id"), [("indonesian_shop", "VA", "BCA"), ("indonesian_shop", "OTC", "ALFAMART")]
)
async def test_too_much_by_transfer_pays_and_the_rest_goes_back(case: str, method_id: str, option_id: str) -> None:
    async with checkout() as shop:
        payment = await shop.pay(case, method_id, option_id)
        shop.settle(payment, paid=payment.amount.value + 50_000)
        assert (await shop.follow_to_end(payment)).status is PaymentStatus.SUCCEEDED
        assert (
            sum(value for source, value in shop.net_taken().items() if source.startswith("CHANNEL"))
            == payment.amount.value
        )


@pytest.mark.parametrize(
    ("case", "method_id", "option_id"), [("indonesian_shop", "VA", "BCA"), ("japanese_shop", "OTC", "LAWSON")]
)
async def test_a_code_that_has_expired_is_closed_and_money_that_comes_late_goes_back(
    case: str, method_id: str, option_id: str
) -> None:
    async with checkout() as shop:
        payment = await shop.pay(case, method_id, option_id)
        await asyncio.sleep(86_400 - 60)
        assert (await shop.look(payment)).status is PaymentStatus.ACTION_REQUIRED
        await asyncio.sleep(61)
        assert (await shop.look(payment)).status is PaymentStatus.CLOSED
        shop.settle(payment)
        assert (await shop.look(payment)).status is PaymentStatus.CLOSED
        assert shop.net_taken() == {}
        assert shop.payments_that_paid(payment.order_id) == []


async def test_money_that_comes_after_a_wallets_page_ran_out_takes_nothing() -> None:
    async with checkout() as shop:
        payment = await shop.pay("chinese_shop", "WALLET:ALIPAY")
        await asyncio.sleep(839)
        assert (await shop.look(payment)).status is PaymentStatus.ACTION_REQUIRED
        await asyncio.sleep(2)
        closed = await shop.look(payment)
        assert (closed.status, closed.message.code) == (PaymentStatus.CLOSED, MessageCode.CLOSED)
        assert shop.net_taken() == {}
