"""The page of the bank, wallet or counter to which a payer is sent. No faults apply.

`GET /bank/{payment_id}` shows it. `POST /bank/{payment_id}` with `choice` settles the payment at
the engine: `pay`, `decline`, by transfer also `pay_less` and `pay_more`. The browser then returns
to the `return_url` of the submit, and to no other place.
"""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from cashier.sandbox.acquirer import SimulatedAcquirer
from cashier.sandbox.bank_page import PAGE_HEADERS, BankPage, format_amount, render_page
from cashier.sandbox.engine import BY_TRANSFER, LIVE, SimulatedAttempt, SimulatedEngine
from cashier.sandbox.seed_data import Population

_CHOICES = ("pay", "pay_less", "pay_more", "decline")


def bank_routes(engine: SimulatedEngine, acquirer: SimulatedAcquirer, population: Population) -> list[web.RouteDef]:
    def find(request: web.Request) -> SimulatedAttempt:
        engine.expire()
        attempt = engine.attempt(request.match_info["payment_id"])
        if attempt is None:
            raise web.HTTPNotFound(text="There is no such payment.")
        return attempt

    def render(attempt: SimulatedAttempt) -> web.Response:
        text = render_page(_bank_page(attempt, acquirer, population))
        return web.Response(text=text, content_type="text/html", headers=PAGE_HEADERS)

    async def show(request: web.Request) -> web.StreamResponse:
        return render(find(request))

    async def act(request: web.Request) -> web.StreamResponse:
        attempt = find(request)
        choice = (await request.post()).get("choice")
        if not isinstance(choice, str) or choice not in _CHOICES:
            raise web.HTTPBadRequest(text=f"choice must be one of {', '.join(_CHOICES)}.")
        if choice in buttons(attempt):
            _settle(engine, attempt, choice)
        if attempt.submission.return_url and attempt.status not in LIVE:
            # Safe to follow: it came with the submit, not from the browser, and is a web address.
            raise web.HTTPSeeOther(attempt.submission.return_url, headers=PAGE_HEADERS)
        return render(attempt)

    return [web.get("/bank/{payment_id}", show), web.post("/bank/{payment_id}", act)]


def buttons(attempt: SimulatedAttempt) -> Mapping[str, str]:
    """The payer's remaining choices: label by the value that the button sends."""
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


def _status_text(attempt: SimulatedAttempt) -> str:
    match attempt.status:
        case "SUCCEEDED":
            return "This payment is complete."
        case "FAILED" if attempt.takes_transfers:
            return "The time to pay is over. Money that arrives now is sent back."
        case "FAILED":
            return "This payment is over. Nothing was paid."
    return ""


def _settle(engine: SimulatedEngine, attempt: SimulatedAttempt, choice: str) -> None:
    payment_id, due = attempt.submission.payment_id, attempt.carried.value
    match choice:
        case "decline":
            engine.settle(payment_id, "FAILED")
        case "pay":
            engine.settle(payment_id, "SUCCEEDED")
        case _:
            engine.settle(payment_id, "SUCCEEDED", max(0, due - 1) if choice == "pay_less" else due + 1)


def _bank_page(attempt: SimulatedAttempt, acquirer: SimulatedAcquirer, population: Population) -> BankPage:
    submission, amount = attempt.submission, attempt.carried
    merchant = population.merchant(submission.merchant_id)
    return BankPage(
        bank=str(attempt.channel["provider_name"]) if attempt.channel else "Balance",
        payee=str(merchant["name"]) if merchant else submission.merchant_id,
        title=str((acquirer.order(submission.order_id) or {})["title"]),
        amount=format_amount(amount.value, amount.currency),
        currency=amount.currency,
        payment_id=submission.payment_id,
        status_text=_status_text(attempt),
        buttons=buttons(attempt),
        return_url=submission.return_url,
    )
