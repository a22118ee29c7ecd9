"""A payer at the command line: chooses a payment method, pays, answers challenges, follows to the
end.

Reads the JSON of the responses, as any client does. Printing is in `payment_printer`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from msgspec import Struct

from cashier.cli.service_client import PaymentsClient, ServiceReply
from cashier.domain.payment_state import FINAL

# How long one status request waits at the service.
WAIT_MS = 20_000
# The pause after a status request that returned at once without a change.
PAUSE_S = 0.5
# Codes after which the payment may not exist. The same key means the same payment, so the submit is
# repeated.
_RETRIED = frozenset({"IN_FLIGHT", "ENGINE_UNAVAILABLE"})
SUBMITS = 4
# Failed status requests in a row after which following ends.
MOST_FAILED_POLLS = 5
_CLAIMS = ("order_id", "user_id", "merchant_id", "product", "terminal", "country", "locale", "chosen_promotions")


class CannotPay(Exception):
    """The order cannot be paid as requested. The text is for the command line's user."""


class PayerPreference(Struct, frozen=True, kw_only=True):
    """How the payer wants to pay. None takes the consultation's offer.

    That is the first available method, preferably one that needs what the payer brings; its
    discounts; its first option where it needs one.
    """

    method_id: str | None = None
    option_id: str | None = None
    promotion_ids: tuple[str, ...] | None = None
    card_token: str | None = None
    auth_code: str | None = None
    return_url: str | None = None


class SelectedMethod(NamedTuple):
    """A payment method, its price (a JSON `Amounts`), and the body that submits it."""

    method: dict[str, Any]
    amount: dict[str, Any]
    body: dict[str, Any]


class CheckoutStep(NamedTuple):
    """One request to the service and its reply. `action`: `submit`, `challenge`, `status` or
    `cancel`."""

    action: str
    reply: ServiceReply


class Payer(Struct, frozen=True, kw_only=True):
    """What the payer does outside the service.

    `answer_challenge` returns the answer to a challenge. `act` performs a payment's `next_action`;
    None leaves it to the user. `cancel_after_s`: when the payment is cancelled, once; None: never.
    """

    answer_challenge: Callable[[dict[str, Any]], str]
    act: Callable[[dict[str, Any]], Awaitable[None]] | None = None
    cancel_after_s: float | None = None


Show = Callable[[CheckoutStep], None]


def choose(request: dict[str, Any], answer: dict[str, Any], choice: PayerPreference) -> SelectedMethod:
    """The method to pay by. `answer` is the consultation for `request`. Raises `CannotPay`."""
    if answer["blocked"]:
        raise CannotPay(f"{answer['blocked']['code']}: {answer['blocked']['message']}")
    method = _method(answer["methods"], choice)
    option = _option(method, choice)
    amount = (option and option["amount"]) or method["amount"]
    for name in _missing_fields(method, choice):
        raise CannotPay(f"{method['method_id']} needs --{name.replace('_', '-')}: {_FIELD_HINTS[name]}")
    body = {name: request[name] for name in _CLAIMS if name in request}
    body["method_id"] = method["method_id"]
    if option:
        body["option_id"] = option["option_id"]
    body |= {"consult_token": answer["consult_token"], "expected_payable": amount["payable"]}
    # The token has the discounts. A submit may name 16 at most, none that looks like a card number.
    fields = {name: getattr(choice, name) for name in ("promotion_ids", "card_token", "auth_code", "return_url")}
    return SelectedMethod(method, amount, body | {name: value for name, value in fields.items() if value is not None})


async def pay(payments: PaymentsClient, body: dict[str, Any], key: str, payer: Payer, show: Show) -> ServiceReply:
    """Submit and follow. Returns the last reply, maybe a problem. Raises `RequestFailed`."""
    return await follow(payments, await _submit(payments, body, key, show), payer, show)


async def follow(payments: PaymentsClient, reply: ServiceReply, payer: Payer, show: Show) -> ServiceReply:
    """Follow a payment from `reply` to its end.

    A problem ends it too; a 5xx only after `MOST_FAILED_POLLS` in a row.
    """
    cancellation = _Cancellation(payer.cancel_after_s)
    payment, acted_on, failed_polls = reply.body, None, 0
    while "code" not in reply.body and payment["status"] not in FINAL:
        if payer.act is not None and payment["next_action"] not in (None, acted_on):
            acted_on = payment["next_action"]
            await payer.act(payment)
        step = await _next_step(payments, payment, payer, cancellation)
        reply = step.reply
        if "code" in reply.body:
            show(step)
            failed_polls += 1
            if reply.status >= 500 and failed_polls < MOST_FAILED_POLLS:
                await asyncio.sleep(reply.retry_after_s or PAUSE_S)
                reply = ServiceReply(202, payment, 0.0)
            continue
        failed_polls, before, payment = 0, payment, reply.body
        if step.action != "status" or _visibly_changed(before, payment):
            show(step)
        elif reply.took_ms < PAUSE_S * 1000:
            await asyncio.sleep(PAUSE_S)
    return reply


class _Cancellation:
    """When to cancel, by the loop's clock. It is due once."""

    def __init__(self, after_s: float | None) -> None:
        self._at_s = math.inf if after_s is None else asyncio.get_running_loop().time() + after_s

    @property
    def left_ms(self) -> float:
        return (self._at_s - asyncio.get_running_loop().time()) * 1000

    def due(self) -> bool:
        if self.left_ms > 0:
            return False
        self._at_s = math.inf
        return True


async def _next_step(
    payments: PaymentsClient, payment: dict[str, Any], payer: Payer, cancellation: _Cancellation
) -> CheckoutStep:
    payment_id, token = payment["payment_id"], payment["payment_token"]
    if cancellation.due():
        return CheckoutStep("cancel", await payments.cancel(payment_id, token))
    if payment["status"] == "CHALLENGE":
        value = payer.answer_challenge(payment["challenge"])
        return CheckoutStep("challenge", await payments.answer_challenge(payment_id, token, value))
    wait_ms = max(1, int(min(WAIT_MS, cancellation.left_ms)))
    return CheckoutStep("status", await payments.status(payment_id, token, wait_ms))


async def _submit(payments: PaymentsClient, body: dict[str, Any], key: str, show: Show) -> ServiceReply:
    """Submit, and repeat under the same key while the payment may not exist."""
    for left in reversed(range(SUBMITS)):
        reply = await payments.submit(body, key)
        show(CheckoutStep("submit", reply))
        if reply.body.get("code") not in _RETRIED or not left:
            break
        await asyncio.sleep(reply.retry_after_s or PAUSE_S)
    return reply


def _method(methods: list[dict[str, Any]], choice: PayerPreference) -> dict[str, Any]:
    if choice.method_id is None:
        usable = [
            method
            for method in methods
            if method["availability"] == "AVAILABLE" and not _missing_fields(method, choice)
        ]
        if not usable:
            raise CannotPay("no payment method is available")
        return next((method for method in usable if _needs_given_field(method, choice)), usable[0])
    named = next((method for method in methods if method["method_id"] == choice.method_id), None)
    if named is None:
        offered = ", ".join(method["method_id"] for method in methods)
        raise CannotPay(f"there is no payment method {choice.method_id!r}; the offered methods are {offered}")
    if named["amount"] is None or named["availability"] != "AVAILABLE":
        reason = f": {named['reason']['message']}" if named["reason"] else ""
        raise CannotPay(f"{choice.method_id} is {named['availability'].lower()}{reason}")
    return named


def _option(method: dict[str, Any], choice: PayerPreference) -> dict[str, Any] | None:
    """The option of the choice, else the first available one where the method needs one."""
    options: list[dict[str, Any]] = method["options"]
    usable = [option for option in options if option["availability"] == "AVAILABLE"]
    if choice.option_id is None:
        return usable[0] if usable and "option_id" in method["required_fields"] else None
    named = next((option for option in usable if option["option_id"] == choice.option_id), None)
    if named is None:
        available = ", ".join(option["option_id"] for option in usable) or "none"
        raise CannotPay(
            f"{method['method_id']} has no available option {choice.option_id!r}; the available options are {available}"
        )
    return named


def _needs_given_field(method: dict[str, Any], choice: PayerPreference) -> bool:
    """Whether the payer brings something that only this method needs, and so means this method."""
    return any(name in _FIELD_HINTS and getattr(choice, name) is not None for name in method["required_fields"])


def _missing_fields(method: dict[str, Any], choice: PayerPreference) -> list[str]:
    """The fields that the method needs from the payer and the choice does not have."""
    return [name for name in method["required_fields"] if name in _FIELD_HINTS and getattr(choice, name) is None]


# Fields that no consultation knows, and what the sandbox accepts for each.
_FIELD_HINTS = {
    "card_token": "the card's token from a vault. The sandbox accepts any;"
    " tok_3ds_1 goes through the bank's page, tok_declined_1 fails",
    "auth_code": "the code on the payer's phone. The sandbox accepts 2800000000000001;"
    " for a code that ends in 8 or 9 the payer confirms later",
    "return_url": "the address to which the payer returns",
}


def _visibly_changed(before: dict[str, Any], payment: dict[str, Any]) -> bool:
    return any(before[name] != payment[name] for name in ("status", "message", "next_action", "challenge"))
