"""The command line: serve, demo, consult, pay, payment, check, plan, sandbox, weather, cases.

Every bad input ends in one clear line, not a traceback.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Coroutine
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NoReturn

import anyio
import msgspec
import typer
import uvloop
from rich.console import Console
from rich.table import Table

from cashier.asgi import configured_app
from cashier.cli import consultation_printer, demo, payment_commands, service_client
from cashier.cli.payer import CannotPay, Payer, PaymentChoice
from cashier.consultation.plan_report import plan_report
from cashier.core import Cashier
from cashier.fanout.ttl import CacheSettings
from cashier.logs import configure_logs
from cashier.sandbox import CASES, BadWeather, World, weather_named
from cashier.sandbox import serve as serve_sandbox
from cashier.sandbox.fault_descriptions import faults_told
from cashier.settings.loader import load
from cashier.settings.schema import ConfigurationError
from cashier.web.server import serve as serve_door

cli = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="The cashier core.",
)

ConfigPath = Annotated[Path, typer.Option("--config", "-c", help="The configuration file.")]
Url = Annotated[str, typer.Option(help="Where the service listens.")]
_DEFAULT_CONFIG = Path("config/cashier.toml")
_WEATHER = f"""Change a sandbox's weather while it runs.

\b
cashier weather quota hang                        # every call
cashier weather marketing error --share 0.3       # three in ten
cashier weather card slow --ms 90
cashier weather engine reset --next --on submit   # one submit: the money is taken, and the answer lost
cashier weather restore                           # all sources

{faults_told()}
"""


def main() -> None:
    configure_logs()
    cli()


@cli.command(name="demo")
def demo_command(
    once: Annotated[bool, typer.Option("--once", help="End after printing.")] = False,
    case: Annotated[str, typer.Option(help="Which of `cashier cases`.")] = "chinese_shop",
    deadline_ms: Annotated[int, typer.Option(min=5, max=1000)] = 150,
    weather: Annotated[str, typer.Option(help="calm, still, fixed, windy or stormy.")] = "calm",
    locale: Annotated[str, typer.Option(help="en or zh-CN.")] = "en",
    seed: Annotated[int, typer.Option(help="Of the sandbox's world and weather.")] = 1,
) -> None:
    """Start a sandbox and a service, show one consultation, pay, and stay until Ctrl-C."""
    found = _known_case(case)
    request = {**found.request, "locale": locale, "deadline_ms": deadline_ms}
    _run(
        demo.run_demo(consultation_printer.console(), request, found.sentence, seed=seed, weather=weather, once=once)
    )


@cli.command()
def serve(
    config: ConfigPath = _DEFAULT_CONFIG,
    host: Annotated[str | None, typer.Option(help="Instead of [server] host.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="Instead of [server] port; 0 takes a free one.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Instead of [server] workers.")] = None,
) -> None:
    """Run the service until SIGTERM or Ctrl-C; every request that came in time is answered first."""
    given = {key: value for key, value in (("host", host), ("port", port), ("workers", workers)) if value is not None}
    try:
        server = load(config, server=given).settings.server
        configured_app(str(config), given)  # what is wrong is said here, once, and not by each worker
    except ConfigurationError as fault:
        _refuse(fault)
    serve_door(
        server,
        partial(configured_app, str(config), given),
        announce=lambda at, bound: print(f"Serving on http://{at}:{bound}", flush=True),
    )


@cli.command()
def consult(
    url: Url = "http://127.0.0.1:8080",
    case: Annotated[str | None, typer.Option(help="Which of `cashier cases`; or name the order yourself:")] = None,
    order_id: Annotated[str | None, typer.Option()] = None,
    user_id: Annotated[str | None, typer.Option()] = None,
    merchant_id: Annotated[str | None, typer.Option()] = None,
    product: Annotated[str | None, typer.Option()] = None,
    terminal_: Annotated[str | None, typer.Option("--terminal")] = None,
    amount: Annotated[str | None, typer.Option(help="The amount claimed, in minor units: CNY:12800.")] = None,
    country: Annotated[str | None, typer.Option(help="The country claimed.")] = None,
    locale: Annotated[str, typer.Option(help="en or zh-CN.")] = "en",
    deadline_ms: Annotated[int | None, typer.Option()] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the answer as it came.")] = False,
    stream: Annotated[
        bool, typer.Option("--stream", help="Ask for answers as they get better, and show when each came.")
    ] = False,
) -> None:
    """Ask a running service which ways to pay there are, and show the answer."""
    request: dict[str, Any] = {"product": "STANDARD_CASHIER", "terminal": "APP"}
    if case is not None:
        request = dict(_known_case(case).request)
    given = {
        "order_id": order_id, "user_id": user_id, "merchant_id": merchant_id, "product": product, "terminal": terminal_,
        "amount": None if amount is None else _money(amount), "country": country, "locale": locale, "deadline_ms": deadline_ms,
    }  # fmt: skip
    request |= {key: value for key, value in given.items() if value is not None}
    if json and stream:
        _stop("--json and --stream are two ways to show it: choose one")
    if json:
        sys.stdout.buffer.write(msgspec.json.format(_run(service_client.consult(url, request))[2]) + b"\n")
    elif not _run((demo.show_stream if stream else demo.show_consultation)(consultation_printer.console(), url, request)):
        raise typer.Exit(1)


@cli.command()
def pay(
    url: Url = "http://127.0.0.1:8080",
    case: Annotated[str, typer.Option(help="Which of `cashier cases`.")] = "chinese_shop",
    method: Annotated[
        str | None, typer.Option(help="A method_id of the consultation; else the first that can be used.")
    ] = None,
    option: Annotated[str | None, typer.Option(help="An option_id of that method: a bank, a chain, a card.")] = None,
    promotions: Annotated[
        str | None,
        typer.Option(help="Their ids, with commas, which must still hold; else the offer's."),
    ] = None,
    card_token: Annotated[
        str | None, typer.Option(help="For CARD. At the sandbox tok_1, tok_3ds_1 or tok_declined_1.")
    ] = None,
    auth_code: Annotated[str | None, typer.Option(help="For CONSUMER_QR: the code on the payer's phone.")] = None,
    return_url: Annotated[str | None, typer.Option(help="Where the payer comes back to.")] = None,
    key: Annotated[str | None, typer.Option(help="The Idempotency-Key; else one is made up.")] = None,
    otp: Annotated[
        str | None, typer.Option(help="The answer to a challenge; else it is asked for. At the sandbox 246810.")
    ] = None,
    cancel_after: Annotated[float | None, typer.Option(min=0, help="Ask for its end after so many seconds.")] = None,
    locale: Annotated[str, typer.Option(help="en or zh-CN.")] = "en",
    json: Annotated[bool, typer.Option("--json", help="Print the last answer alone, as it came.")] = False,
) -> None:
    """Pay at a running service, and follow the payment to its end. Exit status 0 only where the order is paid."""
    request = {**_known_case(case).request, "locale": locale}
    ids = None if promotions is None else tuple(each for each in promotions.split(",") if each)
    wish = PaymentChoice(
        method_id=method, option_id=option, promotion_ids=ids, card_token=card_token, auth_code=auth_code, return_url=return_url
    )  # fmt: skip
    payer = Payer(prove=payment_commands.challenge_answerer(otp), cancels_after_s=cancel_after)
    _end(
        payment_commands.consult_and_pay(_console(json), url, request, wish, key or payment_commands.new_key(), payer),
        json,
    )


@cli.command()
def payment(
    payment_id: Annotated[str, typer.Argument()],
    token: Annotated[
        str, typer.Option(envvar="CASHIER_PAYMENT_TOKEN", help="The payment_token that came with it last.")
    ],
    url: Url = "http://127.0.0.1:8080",
    cancel: Annotated[bool, typer.Option("--cancel", help="Ask for its end first.")] = False,
    otp: Annotated[str | None, typer.Option(help="The answer to a challenge; else it is asked for.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the last answer alone, as it came.")] = False,
) -> None:
    """Follow a payment that was begun before, or cancel it. Exit status 0 only where the order is paid."""
    _end(
        payment_commands.resume(
            _console(json), url, payment_id, token, cancel, Payer(prove=payment_commands.challenge_answerer(otp))
        ),
        json,
    )


@cli.command()
def check(config: ConfigPath = _DEFAULT_CONFIG) -> None:
    """Prove a configuration without starting anything. Exit status 1 where something is wrong."""
    try:
        cashier = Cashier(config=load(config))
        configured_app(str(config))
    except ConfigurationError as fault:
        _refuse(fault)
    _print_plan(cashier)
    print(f"{config} is good.")


@cli.command()
def plan(config: ConfigPath = _DEFAULT_CONFIG) -> None:
    """Print what a consultation asks, when each question has ended at the latest, and what it costs in calls."""
    try:
        _print_plan(Cashier(config=load(config)))
    except ConfigurationError as fault:
        _refuse(fault)


@cli.command()
def sandbox(
    host: Annotated[str, typer.Option()] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes a free one.")] = 9100,
    weather: Annotated[str, typer.Option(help="calm, still, fixed, windy or stormy.")] = "calm",
    seed: Annotated[int, typer.Option(help="Of world and weather.")] = 1,
) -> None:
    """Run the ten upstreams, until Ctrl-C."""
    _run(_sandbox(host, port, weather, seed))


@cli.command(name="weather", help=_WEATHER)
def weather_command(
    source: Annotated[str, typer.Argument(help="A source, such as quota; or `restore` for all.")],
    fault: Annotated[str, typer.Argument(help="A fault; `slow`; or `restore`.")] = "restore",
    share: Annotated[float, typer.Option(min=0, max=1, help="Of the calls.")] = 1.0,
    ms: Annotated[float, typer.Option(min=0, max=60_000, help="With `slow`: how slow.")] = 400,
    once: Annotated[
        bool, typer.Option("--next", help="One call alone, the next; it comes before all else that the weather is.")
    ] = False,
    call: Annotated[
        str | None, typer.Option("--on", help="With --next: the next call of this name, such as submit.")
    ] = None,
    url: Annotated[str, typer.Option(help="Where the sandbox listens.")] = "http://127.0.0.1:9100",
) -> None:
    if once and (fault in ("slow", "restore") or source == "restore"):
        _stop("--next takes a fault that befalls one call")
    if call is not None and not once:
        _stop("--on says which call --next waits for: give both")
    forecast: dict[str, Any] | None = {"faults": {fault: round(share * 10_000)}}
    if fault == "slow":
        forecast = {"latency": {"shape": "constant", "ms": ms}}
    elif fault == "restore":
        forecast = None
    told = _run(service_client.queue_fault(url, source, fault, call) if once else
                service_client.change_weather(url, None if source == "restore" else source, forecast))  # fmt: skip
    if "code" in told and "field" not in told:
        _stop(f"{url} is no sandbox; `weather` wants the address after `sandbox`")
    if "code" in told:
        _stop(
            f"{told['field']}: {told['detail']}" + (f"; did you mean {told['nearest']!r}?" if "nearest" in told else "")
        )
    print(msgspec.json.encode(told).decode())


@cli.command()
def cases() -> None:
    """List the sandbox's cases: orders worth consulting."""
    table = Table.grid(padding=(0, 2))
    for name, case in CASES.items():
        table.add_row(f"[bold]{name}[/]", case.sentence)
    consultation_printer.console().print(table)


def _print_plan(cashier: Cashier) -> None:
    found = plan_report(cashier.plan, cashier.config.settings)
    table = Table(box=None, header_style="dim", pad_edge=False)
    for heading in (
        "question",
        "class",
        "needs",
        "timeout",
        "ends by",
        "without claims",
        "calls",
        "under way",
        "fresh / stale / on error",
    ):
        numeric = heading in ("timeout", "ends by", "without claims", "calls", "under way")
        table.add_column(heading, justify="right" if numeric else "left")
    for line in found.lines:
        calls = f"1 per ≤ {line.batch}" if line.batch else f"1 to {line.calls}" if line.calls > 1 else "1"
        most = "any" if line.most_under_way is None else f"≤ {line.most_under_way}"
        times = (f"{line.timeout_ms} ms", f"{line.ends_ms} ms", f"{line.bare_ends_ms} ms")
        table.add_row(line.name, line.importance.value, ", ".join(line.needs), *times, calls, most, _ages(line.cache))
    console = consultation_printer.console()
    console.print(table)
    console.print(
        f"\nWhatever the sources do, the fan-out of a consultation has ended after {found.worst_ms} ms (deadline {found.deadline_ms} ms,"
        f" {found.reserve_ms} ms of it kept for our own work)."
        f"\nIt makes at most {found.usual_calls} calls, and {found.worst_calls} where every one of them is hedged or tried again;"
        f" over any ten seconds no more than {found.extra_bps / 100:g} % of a source's calls, or one a second, are such extra ones."
    )
    console.print(_payments(cashier))


def _payments(cashier: Cashier) -> str:
    if cashier.payments is None:
        return "\nIt takes no payments: that needs risk, engine and acquirer under [sources]."
    accept = cashier.config.settings.accept
    return (
        f"\nA submit looks at the engine ({accept.look_ms} ms at most), asks the eight at once and from no cache ({accept.check_ms} ms),"
        f" then risk ({accept.decide_ms} ms), then sends ({accept.submit_ms} ms): 11 calls, and one to the acquirer where the engine's"
        " answer is an end."
    )


def _ages(cache: CacheSettings) -> str:
    if not cache.on:
        return "never cached"
    return " / ".join(_duration(age_s) for age_s in (cache.fresh_s, cache.stale_s, cache.error_s))


def _duration(seconds: float) -> str:
    if seconds >= 60 and seconds % 60 == 0:
        return f"{seconds / 60:g} min" if seconds < 3600 or seconds % 3600 else f"{seconds / 3600:g} h"
    return f"{seconds:g} s"


async def _sandbox(host: str, port: int, weather: str, seed: int) -> None:
    async with serve_sandbox(host, port, world=World(seed), weather=weather_named(weather, seed)) as bound:
        print(f"Sandbox on http://{host}:{bound}", flush=True)
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            await anext(signals)


def _console(json: bool) -> Console:
    """Where nothing but the answer is printed, everything else goes nowhere."""
    return Console(quiet=True) if json else consultation_printer.console()


def _end(work: Coroutine[Any, Any, service_client.ServiceReply], json: bool) -> None:
    """Of what has been said of a payment, the last word decides."""
    told = _run(work, interrupted=128 + signal.SIGINT)
    if json:
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(told.body)) + b"\n")
    if told.body["status"] != "SUCCEEDED":
        raise typer.Exit(1)


def _run(work: Coroutine[Any, Any, Any], interrupted: int = 0) -> Any:
    try:
        return uvloop.run(work)
    except (service_client.RequestFailed, CannotPay, BadWeather, OSError) as fault:
        _stop(str(fault))
    except KeyboardInterrupt:
        raise typer.Exit(interrupted) from None


def _known_case(name: str) -> Any:
    if name not in CASES:
        _stop(f"there is no case {name!r}; `cashier cases` lists them")
    return CASES[name]


def _money(text: str) -> dict[str, Any]:
    currency, _, value = text.partition(":")
    if not value.isdecimal():
        _stop(f"--amount {text!r} is not an amount; CNY:12800 would be one")
    return {"currency": currency, "value": int(value)}


def _refuse(fault: ConfigurationError) -> NoReturn:
    _stop(*fault.faults)


def _stop(*lines: str) -> NoReturn:
    error = Console(stderr=True, highlight=False, soft_wrap=True)
    for line in lines:
        error.print(line, style="red", markup=False)
    raise typer.Exit(1)
