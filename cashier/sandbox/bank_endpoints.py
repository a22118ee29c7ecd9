"""Where payers are sent: the bank's, the wallet's and the counter's page for one payment. What they press there settles it at the engine.

`GET /bank/{payment_id}` shows it; `POST /bank/{payment_id}` with `choice` acts: `pay`, `decline`, by transfer also `pay_less`, `pay_more`.
The browser then goes back to the `return_url` that the payment was submitted with, and to no other place. No weather befalls these.
"""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from cashier.sandbox.acquirer import SimulatedAcquirer
from cashier.sandbox.bank_page import BankPage, render_page, format_amount
from cashier.sandbox.engine import BY_TRANSFER, LIVE, SimulatedAttempt, SimulatedEngine
from cashier.sandbox.population import Population

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_CHOICES = ("pay", "pay_less", "pay_more", "decline")


def bank_routes(engine: SimulatedEngine, acquirer: SimulatedAcquirer, population: Population) -> list[web.RouteDef]:
    def found(request: web.Request) -> SimulatedAttempt:
        engine.expire()
        attempt = engine.attempt(request.match_info["payment_id"])
        if attempt is None:
            raise web.HTTPNotFound(text="There is no such payment.")
        return attempt

    def shown(attempt: SimulatedAttempt) -> web.Response:
        text = render_page(_slip(attempt, acquirer, population))
        return web.Response(text=text, content_type="text/html", headers=_HEADERS)

    async def show(request: web.Request) -> web.StreamResponse:
        return shown(found(request))

    async def act(request: web.Request) -> web.StreamResponse:
        attempt = found(request)
        choice = (await request.post()).get("choice")
        if not isinstance(choice, str) or choice not in _CHOICES:
            raise web.HTTPBadRequest(text=f"choice has to be one of {', '.join(_CHOICES)}.")
        if choice in buttons(attempt):
            _settle(engine, attempt, choice)
        if attempt.submission.return_url and attempt.status not in LIVE:
            # The engine took it only as a web address; it is the caller's own, not the browser's.
            raise web.HTTPSeeOther(attempt.submission.return_url, headers=_HEADERS)
        return shown(attempt)

    return [web.get("/bank/{payment_id}", show), web.post("/bank/{payment_id}", act)]


def buttons(attempt: SimulatedAttempt) -> Mapping[str, str]:
    """What a payer can still do, by what it sends."""
    if attempt.status not in LIVE:
        return {"pay": "Pay too late"} if attempt.takes_transfers else {}
    if attempt.kind not in BY_TRANSFER:
        return {"pay": "Pay", "decline": "Decline"}
    least = format_amount(1, attempt.carried.currency)
    return {
        "pay": "Pay exactly",
        "pay_less": f"Pay {least} less",
        "pay_more": f"Pay {least} more",
        "decline": "Decline",
    }


def _state(attempt: SimulatedAttempt) -> str:
    match attempt.status:
        case "SUCCEEDED":
            return "This payment is done."
        case "FAILED" if attempt.takes_transfers:
            return "The time to pay is over. What comes now is sent back."
        case "FAILED":
            return "This payment is over. Nothing was paid."
    return ""


def _settle(engine: SimulatedEngine, attempt: SimulatedAttempt, choice: str) -> None:
    payment_id, asked = attempt.submission.payment_id, attempt.carried.value
    match choice:
        case "decline":
            engine.settle(payment_id, "FAILED")
        case "pay":
            engine.settle(payment_id, "SUCCEEDED")
        case _:
            engine.settle(payment_id, "SUCCEEDED", max(0, asked - 1) if choice == "pay_less" else asked + 1)


def _slip(attempt: SimulatedAttempt, acquirer: SimulatedAcquirer, population: Population) -> BankPage:
    submission, amount = attempt.submission, attempt.carried
    merchant = population.merchant(submission.merchant_id)
    return BankPage(
        bank=str(attempt.channel["provider_name"]) if attempt.channel else "Balance",
        payee=str(merchant["name"]) if merchant else submission.merchant_id,
        title=str((acquirer.order(submission.order_id) or {})["title"]),
        amount=format_amount(amount.value, amount.currency),
        currency=amount.currency,
        payment_id=submission.payment_id,
        state=_state(attempt),
        buttons=buttons(attempt),
        way_back=submission.return_url,
    )
