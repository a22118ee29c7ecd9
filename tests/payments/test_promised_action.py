"""A promised action that the engine does not give is logged, and the payer gets what there is."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest
import structlog

from cashier.domain.pay_method import NextAction
from cashier.domain.payment_resource import Payment
from cashier.domain.payment_state import PaymentStatus
from cashier.wire.transport import Request, Response
from tests.payments.checkout import Checkout
from tests.payments.test_each_kind import SCENARIOS, Scenario

pytestmark = pytest.mark.virtual_time

WARNING = "the engine did not give the promised action"
PAGE = {"type": "REDIRECT", "method": "GET", "url": "https://bank.example/"}


def let_engine_say(shop: Checkout, status: str, action: dict[str, Any] | None) -> None:
    """The engine's first answer. What it does is unchanged."""

    async def other(request: Request) -> Response:
        response = await shop._sandbox(request)
        body = msgspec.json.decode(response.body) | {"status": status}
        body.pop("next_action", None)
        body |= {"next_action": action} if action else {}
        return msgspec.structs.replace(response, body=msgspec.json.encode(body))

    shop.replies["submit"] = other


async def paid(shop: Checkout, scenario: Scenario) -> tuple[Payment, list[dict[str, Any]]]:
    with structlog.testing.capture_logs() as entries:
        payment = await shop.pay(scenario.case, scenario.method_id, scenario.option_id, **scenario.fields)
        if payment.status is PaymentStatus.CHALLENGE:
            payment = await shop.answer(payment)
        await shop.look(payment)
    return payment, [dict(entry) for entry in entries if entry["event"] == WARNING]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: f"{scenario.method_id}-{scenario.product}")
async def test_the_sandbox_gives_each_kind_its_promised_action(shop: Checkout, scenario: Scenario) -> None:
    payment, warnings = await paid(shop, scenario)
    assert warnings == []
    await shop.cancel(payment)


WALLET, QR = Scenario("chinese_shop", "WALLET:ALIPAY"), Scenario("scan_to_pay", "MERCHANT_QR:ALIPAY")
CARD = Scenario("chinese_shop", "CARD", card_token="tok_3ds_1")
AGREEMENT = Scenario("chinese_shop", "AGREEMENT:ag_1")


@pytest.mark.parametrize(
    ("scenario", "status", "action", "promised", "given"),
    [
        (WALLET, "PROCESSING", None, NextAction.REDIRECT, NextAction.NONE),
        (WALLET, "ACTION_REQUIRED", {"type": "SDK", "payload": {}}, NextAction.REDIRECT, NextAction.SDK),
        (QR, "ACTION_REQUIRED", PAGE, NextAction.DISPLAY_QR, NextAction.REDIRECT),
        (QR, "USER_PAYING", None, NextAction.DISPLAY_QR, NextAction.NONE),
        (CARD, "PROCESSING", None, NextAction.REDIRECT, NextAction.NONE),
        (AGREEMENT, "ACTION_REQUIRED", PAGE, NextAction.AWAIT, NextAction.REDIRECT),
    ],
)
async def test_another_action_or_none_is_logged_once(
    shop: Checkout,
    scenario: Scenario,
    status: str,
    action: dict[str, Any] | None,
    promised: NextAction,
    given: NextAction,
) -> None:
    let_engine_say(shop, status, action)
    payment, warnings = await paid(shop, scenario)
    kind = scenario.method_id.partition(":")[0]
    wanted = {"payment_id": payment.payment_id, "kind": kind, "promised": promised.value, "given": given.value}
    (warning,) = warnings
    assert {"event": WARNING, "log_level": "warning", "step": "submit", **wanted}.items() <= warning.items()
    assert warning.keys() - wanted.keys() == {"event", "log_level", "step", "order_id", "request_id", "trace_id"}
    assert payment.status in (PaymentStatus.PROCESSING, PaymentStatus.ACTION_REQUIRED)
    await shop.cancel(payment)


async def test_a_lost_first_answer_says_nothing_about_the_action(shop: Checkout) -> None:
    shop.inject("engine", "hang", on="submit")
    payment, warnings = await paid(shop, WALLET)
    assert warnings == []
    assert payment.expires_at - shop.world.clock() > timedelta(0)
    await shop.cancel(payment)
