"""The payment of the demonstration, with the sandbox's ledger compared with the offer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from cashier.cli import payment_session, service_client
from cashier.cli.checkout_client import CannotPay, Payer, PayerPreference, SelectedMethod
from cashier.cli.layout import paragraph, write
from cashier.cli.service_client import RequestFailed, ServiceReply
from cashier.domain.money import Money, major_units
from cashier.sandbox.risk import CHALLENGE_ANSWER

# In fair weather a payment takes milliseconds, or one poll of the acquirer where the payer pays
# elsewhere.
TIMEOUT_S = 20.0
_INDENT = 4


async def pay(console: Console, url: str, sandbox_url: str, request: dict[str, Any]) -> None:
    """Pay by the first available method, answer every challenge, and carry out `next_action`."""

    async def act(payment: dict[str, Any]) -> None:
        console.print("    [dim]… done at the sandbox[/]")
        await service_client.settle(sandbox_url, payment["payment_id"])

    payer = Payer(answer_challenge=lambda _: CHALLENGE_ANSWER, act=act)
    try:
        chosen = await payment_session.consult_and_choose(console, url, request, PayerPreference())
        if isinstance(chosen, ServiceReply):
            return
        async with asyncio.timeout(TIMEOUT_S):
            reply = await payment_session.pay(console, url, chosen, payment_session.new_key(), payer)
    except (CannotPay, RequestFailed) as error:
        write(console, paragraph(Text(str(error), style="yellow"), console.width, _INDENT))
    except TimeoutError:
        pass  # the printer has shown how to resume
    else:
        if reply.body["status"] == "SUCCEEDED":
            ledger = await service_client.get_json(sandbox_url, "/ledger")
            write(console, ledger_lines(ledger, reply.body["payment_id"], chosen, console.width))
    console.print()


def ledger_lines(ledger: dict[str, Any], payment_id: str, chosen: SelectedMethod, width: int) -> Iterator[Text]:
    """The money taken, compared with the offer, and the result of the sandbox's audit."""
    entries = [entry for entry in ledger["entries"] if entry["payment_id"] == payment_id and "from" in entry]
    of_payer = [entry for entry in entries if not entry["from"].startswith("PROMOTION:")]
    of_promotions = [entry for entry in entries if entry["from"].startswith("PROMOTION:")]
    order, fee = chosen.amount["order"], chosen.amount["fee"]["value"]
    taken, discounts = _taken(of_payer), _taken(of_promotions)
    agrees = taken == order["value"] - discounts + fee
    taken_text, order_text, discounts_text, fee_text = (
        major_units(Money(order["currency"], value)) for value in (taken, order["value"], discounts, fee)
    )
    sources = ", ".join(dict.fromkeys(entry["from"] for entry in of_payer)) or "no source"
    summary = Text.assemble(
        ("ledger", "dim"),
        "  money taken ",
        (taken_text, "bold"),
        (" = " if agrees else " ≠ ", "green" if agrees else "bold red"),
        f"order {order_text} − discounts {discounts_text} + fee {fee_text}",
        (f"  from {sources}", "dim"),
    )
    yield from paragraph(summary, width, _INDENT, 8)
    faults = "; ".join(ledger["wrong"])
    audit = Text.assemble(("audit   ", "dim"), (faults or "nothing is wrong", "bold red" if faults else ""))
    yield from paragraph(audit, width, _INDENT, 8)


def _taken(entries: Sequence[dict[str, Any]]) -> int:
    """Minor units that left their sources, less those that came back."""
    return sum(entry["amount"]["value"] * (1 if entry["what"] == "TAKEN" else -1) for entry in entries)
