"""All kinds on all three products, through the payer's action to the acquirer's result."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import pytest

from cashier.domain.next_action import Action, Await, DisplayCode, DisplayQr, DisplayVa, Redirect
from cashier.domain.pay_method import Kind
from cashier.domain.payment_message import MessageCode
from cashier.domain.payment_state import PaymentStatus
from tests.payments.checkout import Checkout

pytestmark = pytest.mark.virtual_time


class Scenario(NamedTuple):
    """`action`: what the payer must do after the risk check; None if the engine settles at once."""

    case: str
    method_id: str
    option_id: str | None = None
    action: type[Action] | None = None
    product: str | None = None
    terminal: str | None = None
    card_token: str | None = None
    auth_code: str | None = None

    @property
    def fields(self) -> dict[str, str]:
        fields = {
            name: value
            for name, value in self._asdict().items()
            if name not in ("case", "method_id", "option_id", "action") and value
        }
        return fields if self.product is None else {**fields, "order_id": EMBEDDED_ORDERS[self.case]}


EMBEDDED = "EMBEDDED_CASHIER"
# The same goods in the shop's own page, by the case that they are like.
EMBEDDED_ORDERS = {
    "chinese_shop": "o_1020",
    "on_a_computer": "o_1020",
    "balance_is_enough": "o_1021",
    "indonesian_shop": "o_6203",
    "japanese_shop": "o_8103",
}
SCENARIOS = [
    Scenario("chinese_shop", "QUICK_PAY:c_2"),
    Scenario("kuwaiti_shop", "QUICK_PAY:c_9651"),
    Scenario("japanese_shop", "QUICK_PAY:c_811", product=EMBEDDED),
    Scenario("chinese_shop", "AGREEMENT:ag_1", action=Await),
    Scenario("chinese_shop", "AGREEMENT:ag_1", action=Await, product=EMBEDDED),
    Scenario("chinese_shop", "CARD", card_token="tok_1"),
    Scenario("chinese_shop", "CARD", card_token="tok_3ds_1", action=Redirect),
    Scenario("kuwaiti_shop", "CARD", card_token="tok_3ds_1", action=Redirect),
    Scenario("indonesian_shop", "CARD", card_token="tok_1", product=EMBEDDED),
    Scenario("on_a_computer", "NET_BANKING", "CMB", action=Redirect),
    Scenario("on_a_computer", "NET_BANKING", "ICBC", action=Redirect, product=EMBEDDED),
    Scenario("kuwaiti_shop", "NET_BANKING", "KFH", action=Redirect),
    Scenario("indonesian_shop", "VA", "BCA", action=DisplayVa),
    Scenario("indonesian_shop", "VA", "PERMATA", action=DisplayVa, product=EMBEDDED),
    Scenario("indonesian_shop", "OTC", "ALFAMART", action=DisplayCode),
    Scenario("japanese_shop", "OTC", "LAWSON", action=DisplayCode, product=EMBEDDED),
    Scenario("chinese_shop", "WALLET:WECHAT_PAY", action=Redirect),
    Scenario("indonesian_shop", "WALLET:GOPAY", action=Redirect, product=EMBEDDED),
    Scenario("balance_is_enough", "BALANCE:acc_1"),
    Scenario("balance_is_enough", "BALANCE:acc_1", product=EMBEDDED),
    Scenario("japanese_shop", "BALANCE:acc_812+QUICK_PAY"),
    Scenario("scan_to_pay", "MERCHANT_QR:ALIPAY", action=DisplayQr),
    Scenario("scan_to_pay", "MERCHANT_QR:UNIONPAY", action=DisplayQr, terminal="PC"),
    Scenario("scan_to_pay", "CONSUMER_QR", auth_code="280123456789012340"),
    Scenario("scan_to_pay", "CONSUMER_QR", auth_code="280123456789012348", action=Await),
    Scenario("in_instalments", "INSTALMENT:FLEXI_PAY", "t_3", action=Redirect),
    Scenario("in_instalments", "INSTALMENT:FLEXI_PAY", "t_6", action=Redirect),
    Scenario("nothing_to_pay", "FREE"),
    Scenario("discounted_to_zero", "FREE"),
]


def test_all_kinds_are_covered() -> None:
    assert {scenario.method_id.partition(":")[0] for scenario in SCENARIOS} == set(Kind)
    assert {scenario.product for scenario in SCENARIOS if scenario.case != "scan_to_pay"} == {None, EMBEDDED}


@pytest.mark.parametrize(
    "scenario",
    SCENARIOS,
    ids=lambda scenario: "-".join(
        str(part) for part in (scenario.method_id, scenario.product, scenario.terminal) if part
    ),
)
async def test_a_kind_is_paid_through_to_the_acquirers_result(shop: Checkout, scenario: Scenario) -> None:
    payment = await shop.pay(scenario.case, scenario.method_id, scenario.option_id, **scenario.fields)
    payment_id = payment.payment_id
    if payment.status is PaymentStatus.CHALLENGE:
        payment = await shop.answer(payment)
    if scenario.action is None:
        assert (payment.status, payment.next_action, payment.poll_after_ms) == (PaymentStatus.SUCCEEDED, None, None)
    else:
        assert isinstance(payment.next_action, scenario.action)
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


async def test_an_agreement_is_processing_without_a_payer_until_the_bank_settles(shop: Checkout) -> None:
    payment = await shop.pay("chinese_shop", "AGREEMENT:ag_1")
    assert (payment.status, payment.message.code) == (PaymentStatus.PROCESSING, MessageCode.PROCESSING)
    assert (await shop.look(payment)).status is PaymentStatus.PROCESSING
    assert (await shop.look(payment)).status is PaymentStatus.SUCCEEDED
    assert shop.count("verify") == 0


@pytest.mark.parametrize(
    ("case", "method_id", "option_id"), [("indonesian_shop", "VA", "BCA"), ("indonesian_shop", "OTC", "ALFAMART")]
)
async def test_an_underpaid_transfer_goes_back_and_the_payment_stays_open(
    shop: Checkout, case: str, method_id: str, option_id: str
) -> None:
    payment = await shop.pay(case, method_id, option_id)
    requested = payment.amount.value
    shop.settle(payment, paid=requested - 1)
    assert (await shop.look(payment)).status is PaymentStatus.ACTION_REQUIRED
    shop.settle(payment, paid=requested)
    assert (await shop.look(payment)).status is PaymentStatus.SUCCEEDED
    assert sum(value for source, value in shop.net_taken().items() if source.startswith("CHANNEL")) == requested


@pytest.mark.parametrize(
    ("case", "method_id", "option_id"), [("indonesian_shop", "VA", "BCA"), ("indonesian_shop", "OTC", "ALFAMART")]
)
async def test_an_overpaid_transfer_pays_and_the_rest_goes_back(
    shop: Checkout, case: str, method_id: str, option_id: str
) -> None:
    payment = await shop.pay(case, method_id, option_id)
    shop.settle(payment, paid=payment.amount.value + 50_000)
    assert (await shop.follow_to_end(payment)).status is PaymentStatus.SUCCEEDED
    assert (
        sum(value for source, value in shop.net_taken().items() if source.startswith("CHANNEL")) == payment.amount.value
    )


@pytest.mark.parametrize(
    ("case", "method_id", "option_id"), [("indonesian_shop", "VA", "BCA"), ("japanese_shop", "OTC", "LAWSON")]
)
async def test_an_expired_code_is_closed_and_late_money_goes_back(
    shop: Checkout, case: str, method_id: str, option_id: str
) -> None:
    payment = await shop.pay(case, method_id, option_id)
    await asyncio.sleep(86_400 - 60)
    assert (await shop.look(payment)).status is PaymentStatus.ACTION_REQUIRED
    await asyncio.sleep(61)
    assert (await shop.look(payment)).status is PaymentStatus.CLOSED
    shop.settle(payment)
    assert (await shop.look(payment)).status is PaymentStatus.CLOSED
    assert shop.net_taken() == {}
    assert shop.payments_that_paid(payment.order_id) == []


async def test_an_expired_wallet_page_takes_nothing(shop: Checkout) -> None:
    payment = await shop.pay("chinese_shop", "WALLET:ALIPAY")
    await asyncio.sleep(839)
    assert (await shop.look(payment)).status is PaymentStatus.ACTION_REQUIRED
    await asyncio.sleep(2)
    closed = await shop.look(payment)
    assert (closed.status, closed.message.code) == (PaymentStatus.CLOSED, MessageCode.CLOSED)
    assert shop.net_taken() == {}
