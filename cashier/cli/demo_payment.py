"""The demonstration's second half: pays what was consulted, and shows what the sandbox's own books say of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding

from cashier.cli import payment_commands, service_client
from cashier.cli.payer import ChosenMethod, CannotPay, Payer, PaymentChoice
from cashier.cli.service_client import RequestFailed, ServiceReply
from cashier.domain.money import Money, major_units
from cashier.sandbox.risk import ANSWER

# In fair weather a payment takes some milliseconds, and where the payer pays elsewhere as long as the acquirer is polled.
TIMEOUT_S = 20.0


async def pay(console: Console, url: str, sandbox_url: str, request: dict[str, Any]) -> None:
    """Pay by the first way that can be used, as a payer who knows the answer to every challenge and does what is asked for elsewhere."""

    async def act(payment: dict[str, Any]) -> None:
        console.print("    [dim]… and that is done, at the sandbox[/]")
        await service_client.settle(sandbox_url, payment["payment_id"])

    try:
        found = await payment_commands.consult_and_choose(console, url, request, PaymentChoice())
        if isinstance(found, ServiceReply):
            return
        async with asyncio.timeout(TIMEOUT_S):
            told = await payment_commands.pay(
                console, url, found, payment_commands.new_key(), Payer(prove=lambda _: ANSWER, act=act)
            )
    except (CannotPay, RequestFailed) as why:
        console.print(Padding(f"[yellow]{escape(str(why))}[/]", (0, 1, 1, 4)))
    except TimeoutError:
        pass  # how to go on is said already
    else:
        if told.body["status"] == "SUCCEEDED":
            console.print(
                Padding(
                    ledger_summary(await service_client.get_json(sandbox_url, "/ledger"), told.body["payment_id"], found),
                    (0, 1, 1, 4),
                )
            )


def ledger_summary(ledger: dict[str, Any], payment_id: str, found: ChosenMethod) -> str:
    """What was really taken, held against what was offered."""
    entries = [entry for entry in ledger["entries"] if entry["payment_id"] == payment_id and "from" in entry]
    of_payer = [entry for entry in entries if not entry["from"].startswith("PROMOTION:")]
    off = [entry for entry in entries if entry["from"].startswith("PROMOTION:")]
    order, fee = found.amount["order"], found.amount["fee"]["value"]
    agrees = _taken(of_payer) == order["value"] - _taken(off) + fee
    money, ordered, discounts, charged = (
        major_units(Money(order["currency"], value)) for value in (_taken(of_payer), order["value"], _taken(off), fee)
    )
    sources = ", ".join(dict.fromkeys(entry["from"] for entry in of_payer)) or "no source"
    equals = "[green]=[/]" if agrees else "[bold red]≠[/]"
    wrong = escape("; ".join(ledger["wrong"]))
    return (
        f"[dim]ledger[/]  money taken [bold]{money}[/] {equals} order {ordered} − discounts {discounts} + fee {charged}"
        f"  [dim]from {escape(sources)}[/]\n[dim]audit[/]   {f'[bold red]{wrong}[/]' if wrong else 'nothing is wrong'}"
    )


def _taken(entries: Sequence[dict[str, Any]]) -> int:
    """Minor units that left their sources and did not come back."""
    return sum(entry["amount"]["value"] * (1 if entry["what"] == "TAKEN" else -1) for entry in entries)
