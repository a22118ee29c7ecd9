"""A payer at the command line: chooses a way to pay from a consultation, pays by it, proves who they are, and waits for the last word.

Works on what came over the wire, as any client would. What is shown, and how, is in `terminal_payment`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from msgspec import Struct

from cashier.cli.service_client import PaymentsClient, ServiceReply
from cashier.domain.payment_state import FINAL

# As long as one look waits at the service, and how long to leave it alone where one came back at once with nothing new.
WAIT_MS = 20_000
PAUSE_S = 0.5
# These say that the submit may not have come through; with the same key it is the same payment, so it may be sent again.
_ASK_AGAIN = frozenset({"IN_FLIGHT", "ENGINE_UNAVAILABLE"})
SUBMITS = 4
# So many looks in a row may fail before nobody looks any more.
LOOKS_LOST = 5
_CLAIMS = ("order_id", "user_id", "merchant_id", "product", "terminal", "country", "locale")


class CannotPay(Exception):
    """It cannot be paid like that. The text is for whoever typed the command."""


class PaymentChoice(Struct, frozen=True, kw_only=True):
    """How the payer wants to pay. What is None is taken from the consultation: the first way that can be used, and before that one that
    takes what the payer brings; its discounts, its first option where it takes one."""

    method_id: str | None = None
    option_id: str | None = None
    promotion_ids: tuple[str, ...] | None = None
    card_token: str | None = None
    auth_code: str | None = None
    return_url: str | None = None


class ChosenMethod(NamedTuple):
    """A way to pay, what it costs (`Amounts` of the wire), and the body that submits it."""

    method: dict[str, Any]
    amount: dict[str, Any]
    body: dict[str, Any]


class Step(NamedTuple):
    """What was asked of the service, and what it said."""

    asked: str
    told: ServiceReply


class Payer(Struct, frozen=True, kw_only=True):
    """`prove` answers a challenge; `act` does elsewhere what a payment's `next_action` asks for. None: whoever reads the screen does.

    `cancels_after_s`: then the payment is asked to end, once. None: never.
    """

    prove: Callable[[dict[str, Any]], str]
    act: Callable[[dict[str, Any]], Awaitable[None]] | None = None
    cancels_after_s: float | None = None


Show = Callable[[Step], None]


def choose(request: dict[str, Any], answer: dict[str, Any], wish: PaymentChoice) -> ChosenMethod:
    """From a consultation that was asked for with `request`. Raises `CannotPay`."""
    if answer["blocked"]:
        raise CannotPay(f"{answer['blocked']['code']}: {answer['blocked']['message']}")
    method = _method(answer["methods"], wish)
    option = _option(method, wish)
    amount = (option and option["amount"]) or method["amount"]
    promotions = wish.promotion_ids
    if promotions is None:
        promotions = tuple(discount["promotion_id"] for discount in amount["discounts"])
    brought = {name: getattr(wish, name) for name in ("card_token", "auth_code", "return_url")}
    for name in _lacking(method, wish):
        raise CannotPay(f"{method['method_id']} takes --{name.replace('_', '-')}: {_EXAMPLES[name]}")
    named = {"method_id": method["method_id"], "option_id": option["option_id"] if option else None}
    body = {name: request[name] for name in _CLAIMS if name in request} | {
        name: value for name, value in named.items() if value
    }
    body |= {
        "consult_token": answer["consult_token"],
        "promotion_ids": promotions,
        "expected_payable": amount["payable"],
    }
    return ChosenMethod(method, amount, body | {name: value for name, value in brought.items() if value is not None})


async def pay(payments: PaymentsClient, body: dict[str, Any], key: str, payer: Payer, show: Show) -> ServiceReply:
    """To the last word, or to the problem that ended it. Every step is handed to `show`. Raises `NoAnswer`."""
    return await follow(payments, await _submit(payments, body, key, show), payer, show)


async def follow(payments: PaymentsClient, told: ServiceReply, payer: Payer, show: Show) -> ServiceReply:
    """From what was said last to the last word. A problem ends it, but for one that a later look may not meet."""
    cancel = _Cancel(payer.cancels_after_s)
    payment, acted_on, lost = told.body, None, 0
    while "code" not in told.body and payment["status"] not in FINAL:
        if payer.act is not None and payment["next_action"] not in (None, acted_on):
            acted_on = payment["next_action"]
            await payer.act(payment)
        step = await _next(payments, payment, payer, cancel)
        told = step.told
        if "code" in told.body:
            show(step)
            lost += 1
            if told.status >= 500 and lost < LOOKS_LOST:
                await asyncio.sleep(told.retry_after_s or PAUSE_S)
                told = ServiceReply(202, payment, 0.0)
            continue
        lost, before, payment = 0, payment, told.body
        if step.asked != "look" or _shows_else(before, payment):
            show(step)
        elif told.took_ms < PAUSE_S * 1000:
            await asyncio.sleep(PAUSE_S)
    return told


class _Cancel:
    """When to ask for the end, by the loop's clock; it is asked for once."""

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


async def _next(payments: PaymentsClient, payment: dict[str, Any], payer: Payer, cancel: _Cancel) -> Step:
    payment_id, token = payment["payment_id"], payment["payment_token"]
    if cancel.due():
        return Step("cancel", await payments.cancel(payment_id, token))
    if payment["status"] == "CHALLENGE":
        return Step("challenge", await payments.prove(payment_id, token, payer.prove(payment["challenge"])))
    return Step("look", await payments.look(payment_id, token, max(1, int(min(WAIT_MS, cancel.left_ms)))))


async def _submit(payments: PaymentsClient, body: dict[str, Any], key: str, show: Show) -> ServiceReply:
    """Again and again where it may not have come through, always under the one key."""
    for left in reversed(range(SUBMITS)):
        told = await payments.submit(body, key)
        show(Step("submit", told))
        if told.body.get("code") not in _ASK_AGAIN or not left:
            break
        await asyncio.sleep(told.retry_after_s or PAUSE_S)
    return told


def _method(methods: list[dict[str, Any]], wish: PaymentChoice) -> dict[str, Any]:
    if wish.method_id is None:
        ways = [one for one in methods if one["availability"] == "AVAILABLE" and not _lacking(one, wish)]
        if not ways:
            raise CannotPay("no way to pay is available")
        return next((one for one in ways if _takes(one, wish)), ways[0])
    found = next((one for one in methods if one["method_id"] == wish.method_id), None)
    if found is None:
        raise CannotPay(f"there is no way {wish.method_id!r}; there are {', '.join(one['method_id'] for one in methods)}")
    if found["amount"] is None or found["availability"] != "AVAILABLE":
        reason = found["reason"]
        raise CannotPay(
            f"{wish.method_id} is {found['availability'].lower()}" + (f": {reason['message']}" if reason else "")
        )
    return found


def _option(method: dict[str, Any], wish: PaymentChoice) -> dict[str, Any] | None:
    """The one that is wished for, else the first that is available where there has to be one."""
    options: list[dict[str, Any]] = method["options"]
    usable = [one for one in options if one["availability"] == "AVAILABLE"]
    if wish.option_id is None:
        return usable[0] if usable and "option_id" in method["required_fields"] else None
    found = next((one for one in usable if one["option_id"] == wish.option_id), None)
    if found is None:
        raise CannotPay(f"{method['method_id']} has no option {wish.option_id!r} that is available; there are "
                    f"{', '.join(one['option_id'] for one in usable) or 'none'}")  # fmt: skip
    return found


def _takes(method: dict[str, Any], wish: PaymentChoice) -> bool:
    """Whether something that the payer brings is for this way: then it is this way that they mean."""
    return any(name in _EXAMPLES and getattr(wish, name) is not None for name in method["required_fields"])


def _lacking(method: dict[str, Any], wish: PaymentChoice) -> list[str]:
    """What this way takes from the payer that no consultation knows, and that is not there."""
    return [name for name in method["required_fields"] if name in _EXAMPLES and getattr(wish, name) is None]


# What is not in a consultation, and what the sandbox takes for it.
_EXAMPLES = {
    "card_token": "the card's token from a vault. At the sandbox any will do; tok_3ds_1 goes over its bank's page, tok_declined_1 fails",
    "auth_code": "the code on the payer's phone. At the sandbox 2800000000000001 will do; one that ends in 8 or 9 lets the payer think",
    "return_url": "where the payer comes back to",
}


def _shows_else(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether a payer would see a difference."""
    return any(before[name] != now[name] for name in ("status", "message", "next_action", "challenge"))
