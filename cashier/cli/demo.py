"""The demonstration: sandbox and service on free ports, one consultation, one payment, and what to try next.

All in one process, nothing left behind.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from secrets import token_urlsafe
from typing import Any

from rich.console import Console
from rich.padding import Padding

from cashier.cli import consultation_printer, demo_payment, service_client
from cashier.consultation.flow import ConsultSettings
from cashier.consultation.plan import SOURCE_NAMES
from cashier.core import Cashier
from cashier.fanout.ask import SourceStatus
from cashier.sandbox import CASES, World, serve, weather_named
from cashier.settings.loader import configuration
from cashier.web.application import app
from cashier.web.server import ServerSettings, make_server


async def run_demo(
    console: Console, request: dict[str, Any], sentence: str, *, seed: int, weather: str, once: bool
) -> None:
    """Show one consultation and pay by its first way, then stay until the service is told to stop (Ctrl-C), or end at once."""
    async with serve(port=0, world=World(seed), weather=weather_named(weather, seed)) as sandbox_port:
        sandbox_url = f"http://127.0.0.1:{sandbox_port}"
        consult = ConsultSettings(deadline_ms=request["deadline_ms"])
        # Here nothing but the deadline ends a call, so that it is the deadline that is seen at work.
        sources = {
            name: {"url": sandbox_url, "timeout_ms": consult.deadline_ms - consult.reserve_ms} for name in SOURCE_NAMES
        }
        sources |= {name: {"url": sandbox_url} for name in ("risk", "engine", "acquirer")}
        table = {
            "consult": {"deadline_ms": consult.deadline_ms},
            "sources": sources,
            "tokens": {"secrets": [token_urlsafe(32)]},
        }
        config = configuration(table, "the demonstration's configuration")
        async with Cashier(config=config) as cashier, _service(cashier) as (url, ended):
            await service_client.consult(url, _another(request))  # the first pays for what later ones find warm
            await show_consultation(console, url, request, sentence)
            await demo_payment.pay(console, url, sandbox_url, request)
            if not once:
                console.print(
                    _what_next(url, sandbox_url), soft_wrap=True
                )  # to be copied, whatever the terminal's width
                await ended


def _another(request: dict[str, Any]) -> dict[str, Any]:
    """An order of somebody else's in another country, so that nothing of the one to be shown is cached."""
    differs = ("user_id", "merchant_id", "country")
    other = next(
        case.request for case in CASES.values() if all(case.request.get(name) != request.get(name) for name in differs)
    )
    return {**other, "deadline_ms": request["deadline_ms"]}


async def show_consultation(console: Console, url: str, request: dict[str, Any], sentence: str = "") -> bool:
    """Ask and print. False where the answer was a problem."""
    answer, total_ms, _ = await service_client.consult(url, request)
    if sentence:
        console.print(Padding(f"[dim]{sentence}[/]", (1, 1, 0, 1)))
    if "code" in answer:
        console.print(consultation_printer.problem(answer))
        return False
    console.print(consultation_printer.consultation(answer, total_ms, request.get("deadline_ms") or 150))
    return True


async def show_stream(console: Console, url: str, request: dict[str, Any]) -> bool:
    """Ask for a stream and print a line for each answer as it comes, then the last one whole. False where it came to a problem."""
    last: dict[str, Any] = {}
    last_ms = 0.0
    console.print()
    async with aclosing(service_client.stream(url, request)) as events:
        async for name, told, after_ms in events:
            if name == "answer":
                last, last_ms = told, after_ms
                console.print(f" [dim]{f'+{after_ms:.0f} ms':>9}[/]  {_in_a_line(told)}")
            elif name == "end":
                console.print(f" [dim]{f'+{after_ms:.0f} ms':>9}[/]  end: {told['reason'].lower()}")
            else:
                console.print(consultation_printer.problem(told))
                return False
    console.print(consultation_printer.consultation(last, last_ms, request.get("deadline_ms") or 150))
    return True


def _in_a_line(answer: dict[str, Any]) -> str:
    if answer["blocked"]:
        return f"answer {answer['seq']}: nothing can be paid, {answer['blocked']['code']}"
    counts = Counter(method["availability"] for method in answer["methods"])
    waiting = ", ".join(source["name"] for source in answer["sources"] if source["status"] == SourceStatus.PENDING)
    return f"answer {answer['seq']}: {counts['AVAILABLE']} ways available, {counts['UNDETERMINED']} undetermined" + (
        f" [dim](waiting for {waiting})[/]" if waiting else ""
    )


@asynccontextmanager
async def _service(cashier: Cashier) -> AsyncIterator[tuple[str, asyncio.Task[None]]]:
    """A real server on a free port. Yields its address and its end."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        listening.listen()  # from here on who connects is heard, if a moment later
        server = make_server(ServerSettings(port=port), lambda: app(cashier))
        ended = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            yield f"http://127.0.0.1:{port}", ended
        finally:
            server.should_exit = True
            await ended


def _what_next(url: str, sandbox_url: str) -> str:
    ask, pay, weather = (
        f"cashier consult --url {url}",
        f"cashier pay --url {url}",
        f"cashier weather --url {sandbox_url}",
    )
    lines = [
        f"service [bold]{url}[/]   sandbox [bold]{sandbox_url}[/]   [dim]Ctrl-C ends both[/]",
        "",
        "[bold]Try next[/], in another terminal:",
        "",
        "  [dim]# the quota service hangs: the answer still comes by the deadline, and says what it does not know[/]",
        f"  {weather} quota hang",
        f"  {ask} --case balance_is_enough",
        f"  {weather} restore",
        "",
        "  [dim]# the engine takes the money and its answer is lost: looked up, not sent twice, never called failed[/]",
        f"  {weather} engine reset --next --on submit",
        f"  {pay} --case balance_is_enough --otp 246810",
        "",
        "  [dim]# two coffees by a code that nobody scans, cancelled after a second; then by the payer's own code[/]",
        f"  {pay} --case scan_to_pay --method MERCHANT_QR:UNIONPAY --cancel-after 1",
        f"  {pay} --case scan_to_pay --auth-code 2800000000000008",
        "",
        "  [dim]# a card over its bank's page: open the address that it prints, and pay or decline[/]",
        f"  {pay} --case guest_order --method CARD --card-token tok_3ds_1",
        "",
        "  [dim]# other orders: a shop in Japan, one that the acquirer has as paid; all: cashier cases[/]",
        f"  {ask} --case japanese_shop",
        f"  {ask} --case order_paid --json",
    ]
    return "\n".join(f" {line}" for line in lines) + "\n"
