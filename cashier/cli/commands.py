"""The command line: demo, serve, consult, pay, init, check, plan, probe, adapter and others.

Bad input ends in one clear line, without a traceback.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import webbrowser
from contextlib import AsyncExitStack
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import anyio
import msgspec
import orjson
import typer

from cashier import __version__
from cashier.adapter_trial import CannotTry, try_adapter
from cashier.asgi import bearer_auth, configured_app, log_warnings
from cashier.cli import demo, payer_commands, service_client, top, weather_printer
from cashier.cli.adapter_printer import trial_lines
from cashier.cli.adapter_scaffold import adapter_files
from cashier.cli.conform_command import conform
from cashier.cli.contract_command import SERVED, contract
from cashier.cli.discovery_printer import discovery_line, discovery_warning
from cashier.cli.invocation import Locale, answers_of, known_case, known_inputs, print_json, refuse, run, stop
from cashier.cli.layout import definitions, terminal, write
from cashier.cli.listening import host_and_port, listen_fault
from cashier.cli.plan_printer import plan_lines, sizing_lines
from cashier.cli.probe_printer import is_sound, probe_lines
from cashier.cli.record_command import record_command
from cashier.cli.token_commands import jwks, token
from cashier.cli.why_command import why
from cashier.consultation.sizing import CPU_US
from cashier.core import Cashier
from cashier.logs import configure_logs, set_log_level
from cashier.logs.standard_library import log_uncaught
from cashier.ops.server import operations_port
from cashier.probe import probe
from cashier.sandbox import CASES, World, weather_named
from cashier.sandbox import SOURCES as UPSTREAMS
from cashier.sandbox import serve as serve_sandbox
from cashier.sandbox.fault_descriptions import describe_faults
from cashier.sandbox.recorded_answers import BadRecording, RecordedReader
from cashier.sandbox.weather_parser import parse_source
from cashier.settings.loader import load
from cashier.settings.schema import ConfigurationError
from cashier.web.serve import serve as serve_app
from cashier.wire.response_headers import ResponseHeaders
from cashier.wire.transport import Response
from cashier.wiring.discovery import discovered

cli = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="The cashier core of a payment system.",
)
adapter_cli = typer.Typer(no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)
_ADAPTER_HELP = "Write and try the adapters of a configuration."
cli.add_typer(adapter_cli, name="adapter", help=_ADAPTER_HELP, short_help=_ADAPTER_HELP)

ConfigPath = Annotated[
    Path, typer.Option("--config", "-c", help="Configuration file; the other TOML files are read from its folder.")
]
Weather = Annotated[str, typer.Option(help="Sandbox weather: calm, still, fixed, windy or stormy.")]
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
    open_page: Annotated[bool, typer.Option("--open", help="Open the cashier page in a browser.")] = False,
) -> None:
    """Start a sandbox and a service, consult and pay once, then serve until Ctrl-C."""
    set_log_level("warning")
    found = known_case(case)
    request = {**found.request, "locale": locale, "deadline_ms": deadline_ms}
    run(
        demo.run_demo(
            terminal(),
            request,
            found.sentence,
            seed=seed,
            weather=weather,
            once=once,
            open_page=webbrowser.open if open_page else None,
        )
    )


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
    log_uncaught()
    given = {key: value for key, value in (("host", host), ("port", port), ("workers", workers)) if value is not None}
    try:
        loaded = load(config, server=given)
        configured_app(str(config), given)  # faults are reported here once, and not by each worker
    except ConfigurationError as error:
        refuse(error)
    log_warnings(loaded)
    server = loaded.settings.server
    try:
        with operations_port(loaded, bearer_auth(loaded)) as operations:

            def announce(at: str, bound: int) -> None:
                _announce(f"Serving on http://{host_and_port(at, bound)}")
                operations.warn_if_taken()
                if operations.url is not None:
                    _announce(f"Operations on {operations.url}")

            build = partial(configured_app, str(config), given, operations.run_directory)
            serve_app(server, build, announce, operations.count_worker_end)
    except OSError as error:
        stop(listen_fault(server.host, server.port, error))


def _announce(line: str) -> None:
    """A full disk, or a reader that has gone, keeps no service from serving."""
    with contextlib.suppress(OSError):
        print(line, flush=True)


# Here, for their place in `cashier --help`.
cli.command(short_help="Ask a running service for the payment methods of an order.")(payer_commands.consult)
cli.command(short_help="Pay for an order and follow the payment to its end.")(payer_commands.pay)
cli.command(short_help="Follow an existing payment to its end, or cancel it.")(payer_commands.payment)
cli.command(short_help="Find, resume or replace a payment whose token is lost.")(payer_commands.attempt)
cli.command(short_help="Print a bearer token that a configuration accepts.")(token)
cli.command(short_help="Print the public keys of PEM files as a key set.")(jwks)
cli.command(short_help="Explain the payment methods of an order, for operators.")(why)


@cli.command(short_help="Write a configuration with every key.")
def init(path: Annotated[Path, typer.Argument(help="File to write.")] = _DEFAULT_CONFIG) -> None:
    """Write a configuration with every key and its meaning; never over an existing file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(files("cashier").joinpath("defaults", "cashier.toml").read_text("utf-8"))
    except FileExistsError:
        stop(f"{path} exists already: name another file, or remove it first")
    except OSError as error:
        stop(f"{path} cannot be written: {error.strerror}")
    print(f"{path} written. Set the url of each source, then run: cashier check --config {path}")


@cli.command(short_help="Check a configuration without serving.")
def check(config: ConfigPath = _DEFAULT_CONFIG) -> None:
    """Check a configuration without serving. Exit status 1 means faults; warnings are not faults.

    Discovery is tried once, and what it finds is printed.
    """
    try:
        loaded = load(config)
        configured_app(str(config))
        found = run(discovered(loaded))
    except ConfigurationError as error:
        refuse(error)
    for warning in loaded.warnings:
        print(f"{config}: warning: {warning}", file=sys.stderr)
    for name, addresses in found.items():
        if isinstance(addresses, OSError):
            print(f"{config}: warning: {discovery_warning(name, addresses)}", file=sys.stderr)
        else:
            print(discovery_line(name, addresses))
    print(f"{config} is good.")


@cli.command(short_help="Print the plan of a consultation: times and calls.")
def plan(
    config: ConfigPath = _DEFAULT_CONFIG,
    rate: Annotated[
        int | None, typer.Option(min=1, max=10_000_000, help="Also print what this many consultations per second need.")
    ] = None,
    cpu_us: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="CPU time of a consultation in µs, for --rate.")
    ] = CPU_US,
) -> None:
    """Print each source of a consultation, its latest end, and the most upstream calls."""
    try:
        cashier = Cashier(config=load(config))
    except ConfigurationError as error:
        refuse(error)
    console = terminal()
    write(console, plan_lines(cashier, console.width))
    if rate is not None:
        write(console, sizing_lines(cashier, rate, cpu_us, console.width))


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
    known = known_inputs(order_id=order_id, user_id=user_id, merchant_id=merchant_id, amount=amount, country=country)
    try:
        exchanges, findings = run(probe(load(config), known))
    except ConfigurationError as error:
        refuse(error)
    if json:
        print_json({"sources": msgspec.to_builtins(exchanges), "findings": findings})
    else:
        console = terminal()
        write(console, probe_lines(exchanges, findings, console.width))
    if not all(map(is_sound, exchanges)):
        raise typer.Exit(1)


cli.command(name="conform", short_help="Check a real service against the upstream contract.")(conform)


cli.command(name="record", short_help="Record a consultation of real services, redacted.")(record_command)


@adapter_cli.command(name="new", short_help="Write an adapter and its test to begin with.")
def new_command(
    name: Annotated[str, typer.Argument(help="Name of the module, such as wallet.")],
    source: Annotated[str, typer.Option(help="Source of a consultation, such as card.")],
    folder: Annotated[Path, typer.Option(help="Where to write; that of the configuration.")] = Path("config"),
) -> None:
    """Write an adapter and its test to begin with. They read the contract's own shape at first."""
    try:
        texts = adapter_files(name, source)
    except ValueError as fault:
        stop(str(fault))
    if not folder.is_dir():
        stop(f"there is no folder {folder}: name that of your configuration with --folder")
    paths = {folder / file_name: text for file_name, text in texts.items()}
    for path in paths:
        if path.exists():
            stop(f"{path} exists; choose another name, or remove it")
    for path, text in paths.items():
        try:
            path.write_text(text, "utf-8")
        except OSError as error:
            stop(f"{path}: {error.strerror}")
    first, second = paths
    print(
        f'{first} and {second} are written. Next: [sources.{source}] adapter = "{name}", and python -m pytest {second}'
    )


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
    known = known_inputs(order_id=order_id, user_id=user_id, merchant_id=merchant_id, amount=amount, country=country)
    if live and (status or body or header):
        stop("--live takes the answers of the service: leave --status, --body and --header out")
    samples = [] if live else _samples(status or [], body or [], header or [])
    try:
        trial = run(try_adapter(load(config), source, known, samples, live=live))
    except ConfigurationError as error:
        refuse(error)
    except CannotTry as error:
        stop(str(error))
    if json:
        print_json(msgspec.to_builtins(trial))
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
            stop(f"{bodies[index]}: cannot be read: {error.strerror}")
        samples.append(
            Response(statuses[index] if index < len(statuses) else 200, body, headers=ResponseHeaders(pairs))
        )
    return samples


cli.command(short_help="Print the contract of the services behind a cashier.")(contract)


@cli.command(short_help="Run the simulated upstreams until SIGTERM or Ctrl-C.")
def sandbox(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port to listen on; 0 takes a free one.")] = 9100,
    weather: Weather = "calm",
    seed: Annotated[int, typer.Option(help="Random seed of the world and the weather.")] = 1,
    only: Annotated[
        str | None,
        typer.Option(help="Services to simulate, separated by commas, beside real ones.", show_default="all"),
    ] = None,
    replay: Annotated[
        Path | None, typer.Option(help="Folder of `cashier record`, whose answers are served and no others.")
    ] = None,
) -> None:
    """Run the simulated upstreams until SIGTERM or Ctrl-C."""
    try:
        recorded = None if replay is None else RecordedReader(replay)
    except BadRecording as error:
        stop(str(error))
    run(_serve_sandbox(host, port, weather, seed, only, recorded))


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
        stop(f"`cashier weather restore` restores all sources; `cashier weather {fault} restore` restores one")
    if once and (fault in (None, "slow", "restore") or source == "restore"):
        stop("--next takes a fault of one call, not `slow` or `restore`")
    if call is not None and not once:
        stop("--on names the call for --next: give both")
    with answers_of(url):
        if source == "restore":
            reply = run(service_client.change_weather(url, None, None))
        elif fault is None:
            reply = run(service_client.source_weather(url, source))
        elif once:
            reply = run(service_client.queue_fault(url, source, fault, call))
        else:
            faults = {"faults": {fault: round(share * 10_000)}}
            profile = {"latency": {"shape": "constant", "ms": ms}} if fault == "slow" else faults
            reply = run(service_client.change_weather(url, source, None if fault == "restore" else profile))
        if "code" in reply and "field" not in reply:
            stop(f"{url} is not a sandbox; `cashier weather` takes the address that `cashier sandbox` prints")
        if "code" in reply:
            stop(weather_printer.refusal_text(reply["field"], reply["detail"], reply["nearest"]))
        print(orjson.dumps(reply).decode() if json else _weather_line(source, fault, reply))


def _weather_line(source: str, fault: str | None, reply: dict[str, Any]) -> str:
    if source == "restore":
        return "all sources restored"
    if fault == "restore":
        return f"{source}: restored"
    if fault is None:
        return weather_printer.profile_line(source, reply[source])
    return weather_printer.change_line(source, reply[source], slow=fault == "slow")


cli.command(name="top", short_help="Watch a running service in the terminal.")(top.command)


@cli.command(short_help="List the sandbox's orders by name, for --case.")
def cases() -> None:
    """List the sandbox's orders by name, for --case."""
    console = terminal()
    write(console, definitions([(name, case.sentence) for name, case in CASES.items()], console.width))


async def _serve_sandbox(
    host: str, port: int, weather: str, seed: int, only: str | None, recorded: RecordedReader | None
) -> None:
    async with AsyncExitStack() as running:
        possible = UPSTREAMS if recorded is None else recorded.sources
        sources = possible if only is None else [parse_source(name.strip(), possible) for name in only.split(",")]
        simulated = serve_sandbox(
            host,
            port,
            world=World(seed),
            weather=weather_named(weather, seed),
            sources=tuple(sources),
            reader=recorded,
            documents=SERVED,
        )
        try:
            bound = await running.enter_async_context(simulated)
        except (OSError, UnicodeError) as error:
            stop(listen_fault(host, port, error))
        print(f"Sandbox on http://{host}:{bound}", flush=True)
        if only is not None or recorded is not None:
            print(f"It serves {', '.join(sources)} and nothing else.", flush=True)
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            await anext(signals)
