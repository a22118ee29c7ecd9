"""`cashier conform`: check a real service, or all of a configuration, against the contract."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Annotated, Any, NoReturn

import msgspec
import typer

from cashier.cli.conform_printer import report_lines
from cashier.cli.invocation import input_fault, parse_money, print_json, run, stop
from cashier.cli.layout import terminal, write
from cashier.conformance.examination import ConformSettings, endpoint, examine, examine_all
from cashier.conformance.exchange import Endpoint
from cashier.conformance.money_checks import TrialPayment
from cashier.conformance.report import ServiceReport, as_json, as_junit, conforms
from cashier.conformance.subject import EXAMPLES, READ_SOURCES
from cashier.contract.operations import SOURCES
from cashier.domain.legs import EngineLeg, EngineLegType
from cashier.domain.money import Money
from cashier.domain.pay_method import Kind
from cashier.settings.loader import load
from cashier.settings.schema import ConfigurationError
from cashier.wire.request_writer import check_headers

_WRONG_USE = 2
_INTERRUPTED = 128 + signal.SIGINT
_MONEY_MOVERS = ("risk", "engine")
# Of printable ASCII without spaces, as it stands in a request.
_PATH = re.compile(r"/[!-\"$-~]*")
_DEFAULT_CONFIG = Path("config/cashier.toml")


def conform(
    url: Annotated[str | None, typer.Argument(help="Address of the service, as `url` of a source.")] = None,
    source: Annotated[
        str | None, typer.Option(help=f"What it is: {', '.join(SOURCES)}. With --all: only this service.")
    ] = None,
    id: Annotated[  # noqa: A002  the option's name
        list[str] | None,
        typer.Option(help="Id of a subject that exists: order, merchant, user; repeat it for several."),
    ] = None,
    all: Annotated[bool, typer.Option("--all", help="All services of a configuration.")] = False,  # noqa: A002
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="With --all: the configuration.", show_default=str(_DEFAULT_CONFIG)),
    ] = None,
    order_id: Annotated[str | None, typer.Option(help="Order id.", show_default="o_1001")] = None,
    user_id: Annotated[str | None, typer.Option(help="User id.", show_default="u_1, or the order's")] = None,
    merchant_id: Annotated[str | None, typer.Option(help="Merchant id.", show_default="m_1, or the order's")] = None,
    amount: Annotated[
        str | None, typer.Option(help="Amount in minor units.", show_default="CNY:12800, or the order's")
    ] = None,
    country: Annotated[str | None, typer.Option(help="Country.", show_default="CN, or the order's")] = None,
    batch: Annotated[str | None, typer.Option(help="Path of the batch form, as `batch.path`.")] = None,
    closed_order_id: Annotated[str | None, typer.Option(help="For the acquirer: id of an order that is over.")] = None,
    timeout_ms: Annotated[
        int | None, typer.Option(min=1, max=60_000, help="Timeout to compare with.", show_default="the source's")
    ] = None,
    calls: Annotated[int, typer.Option(min=1, max=100_000, help="Calls to measure the times of.")] = 100,
    concurrency: Annotated[int, typer.Option(min=1, max=512, help="Connections at the same time.")] = 16,
    idle_s: Annotated[float, typer.Option(min=0, max=600, help="How long to leave a connection idle, in s.")] = 2.0,
    patience_ms: Annotated[int, typer.Option(min=10, max=60_000, help="Longest wait for an answer.")] = 10_000,
    header: Annotated[
        list[str] | None, typer.Option(help="NAME:VALUE on every request, such as a token; never shown.")
    ] = None,
    ca_file: Annotated[str | None, typer.Option(help="Authorities to trust, for https.")] = None,
    cert_file: Annotated[str | None, typer.Option(help="Client certificate.")] = None,
    key_file: Annotated[str | None, typer.Option(help="Its key.")] = None,
    moves_money: Annotated[
        bool, typer.Option("--moves-money", help="Also try risk and engine, with a test order, user and amount.")
    ] = False,
    leg: Annotated[
        str | None,
        typer.Option(help="What pays: BALANCE:ACCOUNT, CHANNEL:CHANNEL or CHANNEL:CHANNEL:INSTRUMENT."),
    ] = None,
    kind: Annotated[str, typer.Option(help="Kind of payment method that risk decides about.")] = "BALANCE",
    otp: Annotated[str | None, typer.Option(help="Answer to risk's challenge.")] = None,
    risk_url: Annotated[str | None, typer.Option(help="With --source engine: risk that clears the payments.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write the findings as JUnit XML, too.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Check a real service against the upstream contract, over real HTTP.

    Each finding says what was sent, what came, what the contract says, and what it costs. Nothing
    of a payer is printed. Reads only, unless --moves-money names a test payment.

    Exit status 0: it conforms; 1: it does not; 2: wrong use.
    """
    given = {"order_id": order_id, "user_id": user_id, "merchant_id": merchant_id, "country": country}
    inputs = _inputs({name: value for name, value in given.items() if value is not None}, amount, whole=not all)
    test = _test_payment(inputs, order_id, user_id, amount, leg, kind, otp) if moves_money else None
    if test is not None and not test.legs and test.amount.value and source != "risk":
        _refuse("--moves-money needs --leg, what pays at the engine")
    if junit is not None and not junit.parent.is_dir():
        _refuse(f"--junit: there is no folder {junit.parent}")
    headers = _headers(header or [])
    settings = ConformSettings(
        inputs=inputs,
        ids=tuple(id or ()),
        timeout_ms=timeout_ms,
        calls=calls,
        concurrency=concurrency,
        idle_s=idle_s,
        batch_path=batch,
        closed_order_id=closed_order_id,
        test=test,
    )
    files = (ca_file, cert_file, key_file)
    if all:
        if url or id or batch or risk_url or any(files):
            _refuse("--all takes addresses, batches and certificates from the configuration: leave them out")
        reports = _all(config or _DEFAULT_CONFIG, source, settings, headers, patience_ms / 1000)
    else:
        if config is not None:
            _refuse("--config needs --all: `--all --source card` examines one service as it is configured")
        reports = [_one(url, source, settings, headers, files, patience_ms / 1000, risk_url)]
    _output(reports, junit, json)
    raise typer.Exit(0 if conforms(reports) else 1)


def _one(
    url: str | None,
    source: str | None,
    settings: ConformSettings,
    headers: tuple[tuple[str, str], ...],
    files: tuple[str | None, str | None, str | None],
    patience_s: float,
    risk_url: str | None,
) -> ServiceReport:
    if url is None or source is None:
        _refuse("give the address of a service and --source, or --all with a configuration")
    _check_source(source)
    if source == "risk" and settings.test is None:
        _refuse("each call of risk counts: give --moves-money with a test order, user and amount")
    if settings.batch_path is not None and not _PATH.fullmatch(settings.batch_path):
        _refuse("--batch is a path, such as /batch/cards")
    subject = READ_SOURCES[source].subject if source in READ_SOURCES else None
    if settings.ids and subject is None:
        _refuse(f"{source} is not asked about a subject: leave --id out")
    _check_ids(settings.ids)

    def at(address: str) -> Endpoint:
        try:
            return endpoint(address, headers=headers, files=files, patience_s=patience_s)
        except ValueError as fault:
            _refuse(str(fault))

    if risk_url is not None:
        settings = msgspec.structs.replace(settings, risk=at(risk_url))
    report: ServiceReport = run(examine(source, at(url), settings), interrupted=_INTERRUPTED)
    return report


def _all(
    config: Path,
    source: str | None,
    settings: ConformSettings,
    headers: tuple[tuple[str, str], ...],
    patience_s: float,
) -> list[ServiceReport]:
    _check_source(source)
    try:
        reports: list[ServiceReport] = run(
            examine_all(load(config), settings, headers, patience_s, only=source), interrupted=_INTERRUPTED
        )
    except ConfigurationError as error:
        _refuse(*error.faults)
    except ValueError as fault:
        _refuse(str(fault))
    if not any(report.results for report in reports):
        named = "no source has an" if source is None else f"{source} has no"
        _refuse(f"{config}: {named} address that speaks the contract: nothing to examine")
    return reports


def _inputs(given: dict[str, Any], amount: str | None, *, whole: bool) -> dict[str, Any]:
    """The inputs by name. `whole`: with examples for missing ones; else the order tells."""
    for name, value in given.items():
        if fault := input_fault(name, value):
            _refuse(fault)
    given = {**(EXAMPLES if whole else {"order_id": EXAMPLES["order_id"]}), **given}
    if amount is not None:
        money = _money(amount)
        given |= {"amount": money, "currency": money.currency}
    return given


def _test_payment(
    inputs: dict[str, Any],
    order_id: str | None,
    user_id: str | None,
    amount: str | None,
    leg: str | None,
    kind: str,
    otp: str | None,
) -> TrialPayment:
    if order_id is None or user_id is None or amount is None:
        _refuse("--moves-money takes a test order by name: give --order-id, --user-id and --amount")
    if kind not in list(Kind):
        _refuse(f"--kind {kind!r} is no kind of payment method: {', '.join(Kind)}")
    return TrialPayment(
        order_id=order_id,
        user_id=user_id,
        merchant_id=str(inputs.get("merchant_id") or EXAMPLES["merchant_id"]),
        amount=inputs["amount"],
        legs=() if leg is None else (_leg(leg, inputs["amount"]),),
        kind=Kind(kind),
        otp=otp,
    )


def _leg(text: str, amount: Money) -> EngineLeg:
    kind, *names = text.split(":")
    if kind == EngineLegType.BALANCE and len(names) == 1 and names[0]:
        return EngineLeg(type=EngineLegType.BALANCE, id=names[0], amount=amount)
    if kind == EngineLegType.CHANNEL and len(names) in (1, 2) and all(names):
        instrument = names[1] if len(names) == 2 else None
        return EngineLeg(
            type=EngineLegType.CHANNEL, id=names[0], channel_id=names[0], instrument_id=instrument, amount=amount
        )
    return _refuse("--leg is BALANCE:ACCOUNT, CHANNEL:CHANNEL or CHANNEL:CHANNEL:INSTRUMENT")


def _money(amount: str) -> Money:
    try:
        return msgspec.convert(parse_money(amount, _WRONG_USE), Money)
    except (msgspec.ValidationError, UnicodeEncodeError):
        _refuse(f"--amount {amount!r}: the currency is none of ISO 4217, or the value is too large")


def _headers(given: list[str]) -> tuple[tuple[str, str], ...]:
    headers = tuple((name.strip(), value.strip()) for name, _, value in (header.partition(":") for header in given))
    try:
        check_headers(headers)
    except ValueError as fault:
        _refuse(f"--header: {fault}")
    if any(name.lower() == "idempotency-key" for name, _ in headers):
        _refuse("--header: requests that move money have an Idempotency-Key of their own")
    return headers


def _check_source(source: str | None) -> None:
    if source is not None and source not in SOURCES:
        _refuse(f"--source {source!r} is none of the contract: {', '.join(SOURCES)}")


def _check_ids(ids: tuple[str, ...]) -> None:
    for each in ids:
        if fault := input_fault("id", each):
            _refuse(fault)


def _output(reports: list[ServiceReport], junit: Path | None, json: bool) -> None:
    if junit is not None:
        try:
            junit.write_bytes(as_junit(reports))
        except OSError as error:
            _refuse(f"{junit} cannot be written: {error.strerror}")
    if json:
        print_json(as_json(reports))
        return
    console = terminal()
    write(console, report_lines(reports, console.width))


def _refuse(*lines: str) -> NoReturn:
    stop(*lines, status=_WRONG_USE)
