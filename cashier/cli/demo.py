"""The demonstration: a sandbox and a service, one consultation, one payment, commands to try next.

Runs in one process on free ports, and leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from secrets import token_urlsafe
from typing import Any

from rich.console import Console
from rich.text import Text

from cashier.asgi import reporting
from cashier.cli import consultation_printer, demo_payment, service_client
from cashier.cli.layout import command, paragraph, write
from cashier.consultation.flow import ConsultSettings
from cashier.consultation.source_table import SOURCE_NAMES
from cashier.core import Cashier
from cashier.fanout.ask import SourceStatus
from cashier.ops.run_directory import worker_store
from cashier.ops.server import operations_port
from cashier.pages import Pages
from cashier.sandbox import CASES, World, serve, weather_named
from cashier.sandbox.storefront import MERCHANT_ID, TILL
from cashier.settings.loader import configuration
from cashier.web.application import app
from cashier.web.server import ServerSettings, make_server


async def run_demo(
    console: Console,
    request: dict[str, Any],
    sentence: str,
    *,
    seed: int,
    weather: str,
    once: bool,
    open_page: Callable[[str], object] | None = None,
) -> None:
    """Consult once and pay by the first method. Then end if `once`, else serve until stopped.

    `open_page`: opens the address of a cashier page in a browser.
    """
    world = World(seed)
    async with serve(port=0, world=world, weather=weather_named(weather, seed)) as sandbox_port:
        sandbox_url = f"http://127.0.0.1:{sandbox_port}"
        consult = ConsultSettings(deadline_ms=request["deadline_ms"])
        # Only the deadline ends a call, so that the demonstration shows the deadline at work.
        sources = {
            name: {"url": sandbox_url, "timeout_ms": consult.deadline_ms - consult.reserve_ms} for name in SOURCE_NAMES
        }
        sources |= {name: {"url": sandbox_url} for name in ("risk", "engine", "acquirer")}
        table = {
            "consult": {"deadline_ms": consult.deadline_ms},
            "sources": sources,
            "tokens": {"secrets": [token_urlsafe(32)]},
            "operations": {"port": 0, "sandbox": sandbox_url},
            "pages": {
                "enabled": True,
                "order_url": f"{sandbox_url}/orders",
                "vault": {"url": f"{sandbox_url}/vault"},
                "codes": {TILL["merchant_id"]: {"name": "早点铺 Breakfast Stall", "currency": TILL["currency"]}},
            },
            "merchants": {MERCHANT_ID: {"origins": [sandbox_url]}},
        }
        config = configuration(table, "the demonstration's configuration")
        with operations_port(config, None) as operations:
            cashier = Cashier(config=config, metrics=worker_store(operations.run_directory))
            reports = reporting(cashier, operations.run_directory)
            async with cashier, reports, _service(cashier) as (url, served):
                # The first consultation opens connections and warms code paths.
                await service_client.consult(url, _warm_up_request(request))
                await show_consultation(console, url, request, sentence)
                await demo_payment.pay(console, url, sandbox_url, request)
                if not once:
                    write(console, _next_commands(url, sandbox_url, operations.url, console.width))
                    world.storefront.cashier_url = url
                    write(console, _addresses(url, sandbox_url, operations.url))
                    if open_page is not None:
                        open_page(f"{sandbox_url}/shop/pay")
                    await served


def _warm_up_request(request: dict[str, Any]) -> dict[str, Any]:
    """An order of another user, shop and country, so that nothing of `request` is cached."""
    differing = ("user_id", "merchant_id", "country")
    other = next(
        case.request
        for case in CASES.values()
        if all(case.request.get(name) != request.get(name) for name in differing)
    )
    return {**other, "deadline_ms": request["deadline_ms"]}


async def show_consultation(console: Console, url: str, request: dict[str, Any], sentence: str = "") -> bool:
    """Consult and print. False where the response is a problem."""
    answer, total_ms = await service_client.consult(url, request)
    if sentence:
        console.print()
        write(console, paragraph(Text(sentence, style="dim"), console.width, 1))
    if "code" in answer:
        write(console, consultation_printer.problem_lines(answer, console.width))
        return False
    _print_consultation(console, answer, total_ms, request)
    return True


async def show_stream(console: Console, url: str, request: dict[str, Any]) -> bool:
    """Stream a consultation: print a line per event, then the last answer.

    False where it ends in a problem.
    """
    last: dict[str, Any] = {}
    last_ms = 0.0
    console.print()
    async with aclosing(service_client.stream(url, request)) as events:
        async for name, body, after_ms in events:
            if name not in ("answer", "end"):
                write(console, consultation_printer.problem_lines(body, console.width))
                return False
            if name == "answer":
                last, last_ms = body, after_ms
            summary = _answer_summary(body) if name == "answer" else Text(f"end: {body['reason'].lower()}")
            time = (f"{f'+{after_ms:.0f} ms':>9}  ", "dim")
            write(console, paragraph(Text.assemble(time, summary), console.width, 1, 11))
    _print_consultation(console, last, last_ms, request)
    return True


def _print_consultation(console: Console, answer: dict[str, Any], total_ms: float, request: dict[str, Any]) -> None:
    deadline_ms = request.get("deadline_ms") or ConsultSettings().deadline_ms
    write(console, consultation_printer.consultation_lines(answer, total_ms, deadline_ms, console.width))


def _answer_summary(answer: dict[str, Any]) -> Text:
    if answer["blocked"]:
        return Text(f"answer {answer['seq']}: nothing can be paid, {answer['blocked']['code']}")
    counts = Counter(method["availability"] for method in answer["methods"])
    pending = ", ".join(source["name"] for source in answer["sources"] if source["status"] == SourceStatus.PENDING)
    return Text.assemble(
        f"answer {answer['seq']}: {counts['AVAILABLE']} available, {counts['UNDETERMINED']} undetermined",
        (f" (waiting for {pending})" if pending else "", "dim"),
    )


@asynccontextmanager
async def _service(cashier: Cashier) -> AsyncIterator[tuple[str, asyncio.Task[None]]]:
    """A real server on a free port. Yields its address and the task that serves."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        is_open = asyncio.Event()
        pages = Pages(cashier)
        server = make_server(
            ServerSettings(port=port, shutdown_delay_s=0), lambda: app(cashier, pages=pages), is_open.set
        )
        served = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            await is_open.wait()
            yield f"http://127.0.0.1:{port}", served
        finally:
            server.should_exit = True
            await served
            await pages.close()


def _addresses(url: str, sandbox_url: str, operations_url: str | None) -> Iterator[Text]:
    pages = {
        "the shop": f"{sandbox_url}/shop",
        "the cashier page": f"{sandbox_url}/shop/pay",
        "a till": f"{sandbox_url}/shop/till",
        "its printed code": f"{url}/cashier-code/{TILL['merchant_id']}",
    }
    if operations_url is not None:
        pages["the console"] = operations_url
    yield Text.assemble((" Open in a browser", "bold"), ":")
    yield Text()
    for name, address in pages.items():
        yield Text.assemble(f"  {name:<18}", (address, "bold"))
    yield Text()


def _next_commands(url: str, sandbox_url: str, operations_url: str | None, width: int) -> Iterator[Text]:
    """Commands to copy, each group under a comment."""
    consult, pay = f"cashier consult --url {url}", f"cashier pay --url {url}"
    weather = f"cashier weather --url {sandbox_url}"
    groups: tuple[tuple[str, tuple[tuple[str, ...], ...]], ...] = (
        (
            "The quota service hangs. The answer still comes by the deadline and marks what is undetermined.",
            ((weather, "quota hang"), (consult, "--case balance_is_enough"), (weather, "restore")),
        ),
        (
            "The engine takes the money and its response is lost. The payment is looked up, never sent twice.",
            ((weather, "engine reset", "--next", "--on submit"), (pay, "--case balance_is_enough", "--otp 246810")),
        ),
        (
            "Two coffees, by a displayed code that is cancelled after a second; then by the payer's own code.",
            (
                (pay, "--case scan_to_pay", "--method MERCHANT_QR:UNIONPAY", "--cancel-after 1"),
                (pay, "--case scan_to_pay", "--auth-code 2800000000000008"),
            ),
        ),
        (
            "A card with 3-D Secure. Open the printed address, and pay or decline.",
            ((pay, "--case guest_order", "--method CARD", "--card-token tok_3ds_1"),),
        ),
        (
            "A shop in Japan; an order that is already paid. `cashier cases` lists all.",
            ((consult, "--case japanese_shop"), (consult, "--case order_paid", "--json")),
        ),
    )
    addresses = Text.assemble("service ", (url, "bold"), "   sandbox ", (sandbox_url, "bold"))
    if operations_url is not None:
        addresses.append_text(Text.assemble("   operations ", (operations_url, "bold")))
    yield from paragraph(addresses, width, 1, 2)
    yield Text(" Ctrl-C ends all", style="dim")
    yield Text()
    yield Text.assemble((" Try next", "bold"), ", in another terminal:")
    for comment, commands in groups:
        yield Text()
        for line in paragraph(Text(comment), width - 4):
            yield Text(f"  # {line.plain}", style="dim")
        for words in commands:
            yield from command(words, width, 2)
    yield Text()
