"""The command line: demo, serve, consult, pay, init, check, plan, probe, adapter and others.

Bad input ends in one clear line, without a traceback.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, NoReturn

import anyio
import msgspec
import orjson
import typer
import uvloop
from rich.console import Console

from cashier import __version__
from cashier.adapter_trial import CannotTry, try_adapter
from cashier.asgi import configured_app, log_warnings
from cashier.cli import demo, payment_session, service_client, weather_printer
from cashier.cli.adapter_printer import trial_lines
from cashier.cli.checkout_client import CannotPay, Payer, PayerPreference
from cashier.cli.layout import definitions, terminal, write
from cashier.cli.listening import host_and_port, listen_fault
from cashier.cli.payment_printer import TOKEN_VARIABLE
from cashier.cli.plan_printer import plan_lines
from cashier.cli.probe_printer import is_sound, probe_lines
from cashier.core import Cashier
from cashier.domain.money import Money
from cashier.domain.order import Country, Id
from cashier.domain.payment_state import PaymentStatus
from cashier.logs import configure_logs
from cashier.probe import probe
from cashier.sandbox import CASES, BadWeather, World, weather_named
from cashier.sandbox import serve as serve_sandbox
from cashier.sandbox.fault_descriptions import describe_faults
from cashier.settings.loader import load
from cashier.settings.schema import ConfigurationError
from cashier.web.serve import serve as serve_app
from cashier.wire.response_headers import ResponseHeaders
from cashier.wire.transport import Response

cli = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="The cashier core of a payment system.",
)
adapter_cli = typer.Typer(no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)
cli.add_typer(adapter_cli, name="adapter", short_help="Try the adapters of a configuration.")

ConfigPath = Annotated[
    Path, typer.Option("--config", "-c", help="Configuration file; the other TOML files are read from its folder.")
]
Url = Annotated[str, typer.Option(help="Address of the service.")]
Locale = Annotated[str, typer.Option(help="Language of the texts: en, zh-CN, or another of texts.toml.")]
Weather = Annotated[str, typer.Option(help="Sandbox weather: calm, still, fixed, windy or stormy.")]
Otp = Annotated[
    str | None,
    typer.Option(help="Answer to a challenge; 246810 at the sandbox. Without it the terminal prompts for one."),
]
ChosenPromotions = Annotated[
    list[str] | None,
    typer.Option("--promotion", help="Promotion to use; repeat it for more.", show_default="the best set"),
]
NoPromotions = Annotated[bool, typer.Option("--no-promotions", help="Use no promotion.")]
_DEFAULT_CONFIG = Path("config/cashier.toml")
_WEATHER = f"""Show or change the weather of a running sandbox.

\b
cashier weather quota                             # show
cashier weather quota hang                        # every call
cashier weather marketing error --share 0.3       # three calls in ten
cashier weather card slow --ms 90
cashier weather engine reset --next --on submit   # one submit
cashier weather restore                           # all sources

{describe_faults()}
"""


def main() -> None:
    configure_logs()
    cli()


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"cashier {__version__}")
        raise typer.Exit


@cli.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@cli.command(name="demo", short_help="Start a sandbox and a service, consult, pay and serve.")
def demo_command(
    once: Annotated[bool, typer.Option("--once", help="End after the payment.")] = False,
    case: Annotated[str, typer.Option(help="Order to show, a name from `cashier cases`.")] = "chinese_shop",
    deadline_ms: Annotated[int, typer.Option(min=5, max=1000, help="Deadline of the consultation, in ms.")] = 150,
    weather: Weather = "calm",
    locale: Locale = "en",
    seed: Annotated[int, typer.Option(help="Random seed of the sandbox's world and weather.")] = 1,
) -> None:
    """Start a sandbox and a service, consult and pay once, then serve until Ctrl-C."""
    found = _known_case(case)
    request = {**found.request, "locale": locale, "deadline_ms": deadline_ms}
    _run(demo.run_demo(terminal(), request, found.sentence, seed=seed, weather=weather, once=once))


@cli.command(short_help="Run the service until SIGTERM or Ctrl-C.")
def serve(
    config: ConfigPath = _DEFAULT_CONFIG,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on.", show_default="[server] host of the configuration")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65_535,
            help="Port to listen on; 0 takes a free one.",
            show_default="[server] port of the configuration",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Number of worker processes.", show_default="[server] workers of the configuration"),
    ] = None,
) -> None:
    """Run the service until SIGTERM or Ctrl-C; requests in flight are finished.

    After SIGTERM it waits for load balancers to leave, [server] shutdown_delay_s. SIGHUP reloads
    the configuration.
    """
    given = {key: value for key, value in (("host", host), ("port", port), ("workers", workers)) if value is not None}
    try:
        loaded = load(config, server=given)
        configured_app(str(config), given)  # faults are reported here once, and not by each worker
    except ConfigurationError as error:
        _refuse(error)
    log_warnings(loaded)
    server = loaded.settings.server
    try:
        serve_app(
            server,
            partial(configured_app, str(config), given),
            announce=lambda at, bound: print(f"Serving on http://{host_and_port(at, bound)}", flush=True),
        )
    except OSError as error:
        _stop(listen_fault(server.host, server.port, error))


@cli.command(short_help="Ask a running service for the payment methods of an order.")
def consult(
    url: Url = "http://127.0.0.1:8080",
    case: Annotated[
        str | None, typer.Option(help="Order to consult, a name from `cashier cases`; the options below override it.")
    ] = None,
    order_id: Annotated[str | None, typer.Option(help="Order id.")] = None,
    user_id: Annotated[str | None, typer.Option(help="User id of the payer.")] = None,
    merchant_id: Annotated[str | None, typer.Option(help="Merchant id.")] = None,
    product: Annotated[
        str | None, typer.Option(help="Checkout product.", show_default="that of the case, or STANDARD_CASHIER")
    ] = None,
    terminal_type: Annotated[
        str | None,
        typer.Option("--terminal", help="Terminal of the payer.", show_default="that of the case, or APP"),
    ] = None,
    amount: Annotated[
        str | None, typer.Option(help="Claimed amount, in minor units of its currency, such as CNY:12800.")
    ] = None,
    country: Annotated[str | None, typer.Option(help="Claimed country, two letters (ISO 3166).")] = None,
    locale: Locale = "en",
    deadline_ms: Annotated[
        int | None,
        typer.Option(help="Deadline of the consultation, in ms.", show_default="[consult] deadline_ms of the service"),
    ] = None,
    promotion: ChosenPromotions = None,
    no_promotions: NoPromotions = False,
    json: Annotated[bool, typer.Option("--json", help="Print the response body as JSON.")] = False,
    stream: Annotated[
        bool, typer.Option("--stream", help="Stream the answers as they improve, with the time of each.")
    ] = False,
) -> None:
    """Ask a running service for the payment methods of an order."""
    request: dict[str, Any] = {"product": "STANDARD_CASHIER", "terminal": "APP"}
    if case is not None:
        request = dict(_known_case(case).request)
    given = {
        "order_id": order_id,
        "user_id": user_id,
        "merchant_id": merchant_id,
        "product": product,
        "terminal": terminal_type,
        "amount": None if amount is None else _money(amount),
        "country": country,
        "locale": locale,
        "deadline_ms": deadline_ms,
        "chosen_promotions": _chosen(promotion, no_promotions),
    }
    request |= {key: value for key, value in given.items() if value is not None}
    if json and stream:
        _stop("--json and --stream exclude each other: choose one")
    if json:
        _print_json(_run(service_client.consult(url, request))[0])
    elif not _run((demo.show_stream if stream else demo.show_consultation)(terminal(), url, request)):
        raise typer.Exit(1)


@cli.command(short_help="Pay for an order and follow the payment to its end.")
def pay(
    url: Url = "http://127.0.0.1:8080",
    case: Annotated[str, typer.Option(help="Order to pay, a name from `cashier cases`.")] = "chinese_shop",
    method: Annotated[
        str | None,
        typer.Option(help="Payment method, a method_id of the consultation.", show_default="the first available"),
    ] = None,
    option: Annotated[
        str | None,
        typer.Option(
            help="Bank, store chain, instalment term or card of that method, an option_id.",
            show_default="the first available, where one is needed",
        ),
    ] = None,
    promotions: Annotated[
        str | None,
        typer.Option(
            help="Promotion ids that must still hold, separated by commas.", show_default="those of the offer"
        ),
    ] = None,
    card_token: Annotated[
        str | None, typer.Option(help="Card token, for CARD; at the sandbox tok_1, tok_3ds_1 or tok_declined_1.")
    ] = None,
    auth_code: Annotated[str | None, typer.Option(help="Code on the payer's phone, for CONSUMER_QR.")] = None,
    return_url: Annotated[str | None, typer.Option(help="Address to which the payer returns.")] = None,
    key: Annotated[str | None, typer.Option(help="Idempotency-Key.", show_default="a random one")] = None,
    otp: Otp = None,
    cancel_after: Annotated[
        float | None, typer.Option(min=0, help="Cancel the payment after this time, in s.", show_default="never")
    ] = None,
    promotion: ChosenPromotions = None,
    no_promotions: NoPromotions = False,
    locale: Locale = "en",
    json: Annotated[bool, typer.Option("--json", help="Print only the last response body, as JSON.")] = False,
) -> None:
    """Pay for an order at a running service and follow the payment to its end.

    Exit status 0 means paid.
    """
    request = {**_known_case(case).request, "locale": locale}
    chosen = _chosen(promotion, no_promotions)
    if chosen is not None:
        request["chosen_promotions"] = chosen
    ids = None if promotions is None else tuple(part for part in promotions.split(",") if part)
    choice = PayerPreference(
        method_id=method,
        option_id=option,
        promotion_ids=ids,
        card_token=card_token,
        auth_code=auth_code,
        return_url=return_url,
    )
    payer = Payer(answer_challenge=payment_session.challenge_answerer(otp), cancel_after_s=cancel_after)
    key = key or payment_session.new_key()
    _finish_payment(payment_session.consult_and_pay(_console(json), url, request, choice, key, payer), json)


@cli.command(short_help="Follow an existing payment to its end, or cancel it.")
def payment(
    payment_id: Annotated[str, typer.Argument(help="Payment id.")],
    token: Annotated[str, typer.Option(envvar=TOKEN_VARIABLE, help="The payment's latest payment_token.")],
    url: Url = "http://127.0.0.1:8080",
    cancel: Annotated[bool, typer.Option("--cancel", help="Cancel the payment first.")] = False,
    otp: Otp = None,
    json: Annotated[bool, typer.Option("--json", help="Print only the last response body, as JSON.")] = False,
) -> None:
    """Follow an existing payment to its end, or cancel it. Exit status 0 means paid."""
    payer = Payer(answer_challenge=payment_session.challenge_answerer(otp))
    _finish_payment(payment_session.resume(_console(json), url, payment_id, token, cancel, payer), json)


@cli.command(short_help="Find, resume or replace a payment whose token is lost.")
def attempt(
    url: Url = "http://127.0.0.1:8080",
    case: Annotated[str, typer.Option(help="Order, a name from `cashier cases`.")] = "chinese_shop",
    order_id: Annotated[str | None, typer.Option(help="Order id, instead of the case's.")] = None,
    user_id: Annotated[str | None, typer.Option(help="User id of the payer, instead of the case's.")] = None,
    merchant_id: Annotated[str | None, typer.Option(help="Merchant id, instead of the case's.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Get a new token, and follow the payment.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="End the payment, to pay in another way.")] = False,
    locale: Locale = "en",
    json: Annotated[bool, typer.Option("--json", help="Print only the last response body, as JSON.")] = False,
) -> None:
    """Find the payment of an order, whose token is lost; resume or replace it.

    The service has to run without authentication, on a loopback address. Exit status 0 means found
    or replaced, with --resume that it is paid.
    """
    if resume and replace:
        _stop("--resume and --replace exclude each other: choose one")
    known = _known_case(case).request
    request = {name: known[name] for name in ("order_id", "user_id", "merchant_id", "product", "terminal")}
    given = {"order_id": order_id, "user_id": user_id, "merchant_id": merchant_id, "locale": locale}
    request |= {name: value for name, value in given.items() if value is not None}
    action = "resume" if resume else "replace" if replace else None
    payer = Payer(answer_challenge=payment_session.challenge_answerer(None))
    work = payment_session.take_over(_console(json), url, request, action, payer)
    done = {"resume": ("SUCCEEDED",), "replace": ("FAILED", "CLOSED"), None: tuple(PaymentStatus)}[action]
    _finish_payment(work, json, done)


@cli.command(short_help="Write a configuration with every key.")
def init(path: Annotated[Path, typer.Argument(help="File to write.")] = _DEFAULT_CONFIG) -> None:
    """Write a configuration with every key and its meaning; never over an existing file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(files("cashier").joinpath("defaults", "cashier.toml").read_text("utf-8"))
    except FileExistsError:
        _stop(f"{path} exists already: name another file, or remove it first")
    except OSError as error:
        _stop(f"{path} cannot be written: {error.strerror}")
    print(f"{path} written. Set the url of each source, then run: cashier check --config {path}")


@cli.command(short_help="Check a configuration without serving.")
def check(config: ConfigPath = _DEFAULT_CONFIG) -> None:
    """Check a configuration without serving. Exit status 1 means faults; warnings are none."""
    try:
        warnings = load(config).warnings
        configured_app(str(config))
    except ConfigurationError as error:
        _refuse(error)
    for warning in warnings:
        print(f"{config}: warning: {warning}", file=sys.stderr)
    print(f"{config} is good.")


@cli.command(short_help="Print the plan of a consultation: times and calls.")
def plan(config: ConfigPath = _DEFAULT_CONFIG) -> None:
    """Print each source of a consultation, its latest end, and the most upstream calls."""
    try:
        cashier = Cashier(config=load(config))
    except ConfigurationError as error:
        _refuse(error)
    _print_plan(cashier)


@cli.command(name="probe", short_help="Ask each source of a configuration once.")
def probe_command(
    order_id: Annotated[str, typer.Option(help="Id of an order that the acquirer knows.")],
    config: ConfigPath = _DEFAULT_CONFIG,
    user_id: Annotated[str | None, typer.Option(help="User id of the payer.", show_default="the order's")] = None,
    merchant_id: Annotated[str | None, typer.Option(help="Merchant id.", show_default="the order's")] = None,
    amount: Annotated[
        str | None,
        typer.Option(help="Amount in minor units, such as CNY:12800.", show_default="the order's"),
    ] = None,
    country: Annotated[str | None, typer.Option(help="Country, two letters.", show_default="the order's")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Ask each source of a configuration once: request, status, fault and decoded answer.

    Then list what matches nothing: fields, kinds, banks, channels and cards.
    Moves no money: risk is not asked, and the engine only for a payment that does not exist.
    Exit status 1 means that an answer cannot be used.
    """
    known = _known(order_id=order_id, user_id=user_id, merchant_id=merchant_id, amount=amount, country=country)
    try:
        exchanges, findings = _run(probe(load(config), known))
    except ConfigurationError as error:
        _refuse(error)
    if json:
        _print_json({"sources": msgspec.to_builtins(exchanges), "findings": findings})
    else:
        console = terminal()
        write(console, probe_lines(exchanges, findings, console.width))
    if not all(map(is_sound, exchanges)):
        raise typer.Exit(1)


@adapter_cli.command(name="try", short_help="Call one adapter with sample answers.")
def try_command(
    source: Annotated[str, typer.Argument(help="Source of a consultation, such as card.")],
    config: ConfigPath = _DEFAULT_CONFIG,
    status: Annotated[
        list[int] | None, typer.Option(help="Status of an answer; one per request.", show_default="200")
    ] = None,
    body: Annotated[
        list[Path] | None,
        typer.Option(help="File with the body of an answer; one per request.", show_default="an empty body"),
    ] = None,
    header: Annotated[list[str] | None, typer.Option(help="Header of every answer, as NAME:VALUE.")] = None,
    live: Annotated[bool, typer.Option("--live", help="Open the adapter and send its requests.")] = False,
    order_id: Annotated[str | None, typer.Option(help="Order id.")] = None,
    user_id: Annotated[str | None, typer.Option(help="User id of the payer.")] = None,
    merchant_id: Annotated[str | None, typer.Option(help="Merchant id.")] = None,
    amount: Annotated[str | None, typer.Option(help="Amount in minor units, such as CNY:12800.")] = None,
    country: Annotated[str | None, typer.Option(help="Country, two letters.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Call the adapter of a source once: its requests, and the decoded answer or the fault.

    Nothing is sent without --live. Exit status 1 means that the answer cannot be used.
    """
    known = _known(order_id=order_id, user_id=user_id, merchant_id=merchant_id, amount=amount, country=country)
    if live and (status or body or header):
        _stop("--live takes the answers of the service: leave --status, --body and --header out")
    samples = [] if live else _samples(status or [], body or [], header or [])
    try:
        trial = _run(try_adapter(load(config), source, known, samples, live=live))
    except ConfigurationError as error:
        _refuse(error)
    except CannotTry as error:
        _stop(str(error))
    if json:
        _print_json(msgspec.to_builtins(trial))
    else:
        console = terminal()
        write(console, trial_lines(trial, console.width))
    if trial.fault is not None:
        raise typer.Exit(1)


def _samples(statuses: list[int], bodies: list[Path], headers: list[str]) -> list[Response]:
    pairs = [(name.strip(), value.strip()) for name, _, value in (header.partition(":") for header in headers)]
    samples = []
    for index in range(max(1, len(statuses), len(bodies))):
        try:
            body = bodies[index].read_bytes() if index < len(bodies) else b""
        except OSError as error:
            _stop(f"{bodies[index]}: cannot be read: {error.strerror}")
        samples.append(
            Response(statuses[index] if index < len(statuses) else 200, body, headers=ResponseHeaders(pairs))
        )
    return samples


def _known(*, amount: str | None, **given: str | None) -> dict[str, Any]:
    """The inputs of sources by name, as given on the command line."""
    known: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    for name, value in known.items():
        try:
            msgspec.convert(value, Country if name == "country" else Id)
        except msgspec.ValidationError:
            _stop(f"{value!r} is not {'a country of two capital letters' if name == 'country' else 'an id'}")
    if amount is not None:
        money = Money(**_money(amount))
        known |= {"amount": money, "currency": money.currency}
    return known


@cli.command(short_help="Run the simulated upstreams until SIGTERM or Ctrl-C.")
def sandbox(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port to listen on; 0 takes a free one.")] = 9100,
    weather: Weather = "calm",
    seed: Annotated[int, typer.Option(help="Random seed of the world and the weather.")] = 1,
) -> None:
    """Run the simulated upstreams until SIGTERM or Ctrl-C."""
    _run(_serve_sandbox(host, port, weather, seed))


@cli.command(name="weather", short_help="Show or change the weather of a running sandbox.", help=_WEATHER)
def weather_command(
    source: Annotated[str, typer.Argument(help="Source, such as quota; `restore` restores all.")],
    fault: Annotated[
        str | None,
        typer.Argument(help="Fault of the list above, `slow` or `restore`.", show_default="show the weather"),
    ] = None,
    share: Annotated[float, typer.Option(min=0, max=1, help="Share of the calls that get the fault.")] = 1.0,
    ms: Annotated[float, typer.Option(min=0, max=60_000, help="Latency for `slow`, in ms.")] = 400,
    once: Annotated[
        bool, typer.Option("--next", help="Only the next call gets the fault, on top of the weather.")
    ] = False,
    call: Annotated[
        str | None, typer.Option("--on", help="With --next: only the next call of this name, such as submit.")
    ] = None,
    url: Annotated[str, typer.Option(help="Address of the sandbox.")] = "http://127.0.0.1:9100",
    json: Annotated[bool, typer.Option("--json", help="Print the response body as JSON.")] = False,
) -> None:
    if source == "restore" and fault not in (None, "restore"):
        _stop(f"`cashier weather restore` restores all sources; `cashier weather {fault} restore` restores one")
    if once and (fault in (None, "slow", "restore") or source == "restore"):
        _stop("--next takes a fault of one call, not `slow` or `restore`")
    if call is not None and not once:
        _stop("--on names the call for --next: give both")
    if source == "restore":
        reply = _run(service_client.change_weather(url, None, None))
    elif fault is None:
        reply = _run(service_client.source_weather(url, source))
    elif once:
        reply = _run(service_client.queue_fault(url, source, fault, call))
    else:
        faults = {"faults": {fault: round(share * 10_000)}}
        profile = {"latency": {"shape": "constant", "ms": ms}} if fault == "slow" else faults
        reply = _run(service_client.change_weather(url, source, None if fault == "restore" else profile))
    if "code" in reply and "field" not in reply:
        _stop(f"{url} is not a sandbox; `cashier weather` takes the address that `cashier sandbox` prints")
    if "code" in reply:
        _stop(weather_printer.refusal_text(reply["field"], reply["detail"], reply["nearest"]))
    print(orjson.dumps(reply).decode() if json else _weather_line(source, fault, reply))


def _weather_line(source: str, fault: str | None, reply: dict[str, Any]) -> str:
    if source == "restore":
        return "all sources restored"
    if fault == "restore":
        return f"{source}: restored"
    if fault is None:
        return weather_printer.profile_line(source, reply[source])
    return weather_printer.change_line(source, reply[source], slow=fault == "slow")


@cli.command(short_help="List the sandbox's orders by name, for --case.")
def cases() -> None:
    """List the sandbox's orders by name, for --case."""
    console = terminal()
    write(console, definitions([(name, case.sentence) for name, case in CASES.items()], console.width))


def _print_plan(cashier: Cashier) -> None:
    console = terminal()
    write(console, plan_lines(cashier, console.width))


async def _serve_sandbox(host: str, port: int, weather: str, seed: int) -> None:
    async with AsyncExitStack() as running:
        simulated = serve_sandbox(host, port, world=World(seed), weather=weather_named(weather, seed))
        try:
            bound = await running.enter_async_context(simulated)
        except OSError as error:
            _stop(listen_fault(host, port, error))
        print(f"Sandbox on http://{host}:{bound}", flush=True)
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            await anext(signals)


def _console(json: bool) -> Console:
    """The terminal; nothing is printed to it where the output is JSON."""
    return Console(quiet=True) if json else terminal()


def _print_json(document: Any) -> None:
    sys.stdout.buffer.write(orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def _finish_payment(
    work: Coroutine[Any, Any, service_client.ServiceReply], json: bool, done: tuple[str, ...] = ("SUCCEEDED",)
) -> None:
    """Run to the last reply. Exit status 0 for a payment in one of these states."""
    reply = _run(work, interrupted=128 + signal.SIGINT)
    if json:
        _print_json(reply.body)
    if reply.body["status"] not in done:
        raise typer.Exit(1)


def _run(work: Coroutine[Any, Any, Any], interrupted: int = 0) -> Any:
    try:
        return uvloop.run(work)
    except BadWeather as error:
        _stop(weather_printer.refusal_text(error.field, error.detail, error.nearest))
    except (service_client.RequestFailed, CannotPay, OSError) as error:
        _stop(str(error))
    except KeyboardInterrupt:
        raise typer.Exit(interrupted) from None


def _known_case(name: str) -> Any:
    if name not in CASES:
        _stop(f"there is no case {name!r}; `cashier cases` lists them")
    return CASES[name]


def _chosen(promotions: list[str] | None, none: bool) -> list[str] | None:
    """The promotions that may count; None: the best set."""
    if none and promotions:
        _stop("--promotion and --no-promotions exclude each other: choose one")
    return [] if none else promotions or None


def _money(text: str) -> dict[str, Any]:
    currency, _, value = text.partition(":")
    if not value.isdecimal():
        _stop(f"--amount {text!r} is not an amount; an example is CNY:12800")
    return {"currency": currency, "value": int(value)}


def _refuse(error: ConfigurationError) -> NoReturn:
    _stop(*error.faults)


def _stop(*lines: str) -> NoReturn:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    for line in lines:
        console.print(line, style="red", markup=False)
    raise typer.Exit(1)
