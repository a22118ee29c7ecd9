"""`cashier why`: why an order has the payment methods that it has, or had."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import orjson
import typer
from msgspec import Struct

from cashier.cli import service_client
from cashier.cli.consultation_printer import problem_lines
from cashier.cli.invocation import answers_of, known_case, parse_money, print_json, refuse, run, stop, warn
from cashier.cli.layout import terminal, write
from cashier.cli.operations_client import TOKEN_VARIABLE, OperationsClient
from cashier.cli.payer_commands import ChosenPromotions, NoPromotions, Url, chosen_promotions
from cashier.cli.why_printer import record_lines, step_lines, why_lines
from cashier.domain.pay_method import Kind
from cashier.settings.loader import load
from cashier.settings.schema import ConfigurationError
from cashier.telemetry.operations_link import MOST_FRAME_BYTES
from cashier.telemetry.replay import CannotReplay, replayed, unpacked


class _Record(Struct):
    """The part of a `ConsultationRecord` that is replayed."""

    facts: bytes | None = None


# The link between workers and operators carries no larger one.
_MOST_BYTES = MOST_FRAME_BYTES


def why(
    url: Url = "http://127.0.0.1:8080",
    case: Annotated[
        str | None, typer.Option(help="Order to explain, a name from `cashier cases`; the options below override it.")
    ] = None,
    order_id: Annotated[str | None, typer.Option(help="Order id.")] = None,
    user_id: Annotated[str | None, typer.Option(help="User id of the payer.", show_default="a walk-in")] = None,
    merchant_id: Annotated[str | None, typer.Option(help="Merchant id.")] = None,
    product: Annotated[str | None, typer.Option(help="Checkout product.", show_default="the order's own")] = None,
    terminal_type: Annotated[
        str | None, typer.Option("--terminal", help="Terminal of the payer.", show_default="APP, at a till POS")
    ] = None,
    amount: Annotated[str | None, typer.Option(help="Claimed amount in minor units, such as CNY:12800.")] = None,
    country: Annotated[str | None, typer.Option(help="Claimed country, two letters (ISO 3166).")] = None,
    deadline_ms: Annotated[
        int | None, typer.Option(help="Deadline in ms.", show_default="[consult] deadline_ms of the service")
    ] = None,
    promotion: ChosenPromotions = None,
    no_promotions: NoPromotions = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Read no cache.")] = False,
    kind: Annotated[
        list[str] | None,
        typer.Option(help="Kind of payment method to show in full, such as WALLET; repeat it for more."),
    ] = None,
    token: Annotated[
        str | None, typer.Option(envvar=TOKEN_VARIABLE, help="Bearer token with the scope operations.")
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option("--from", help="File with the record of a consultation: replay it, without any service."),
    ] = None,
    ops: Annotated[
        str | None,
        typer.Option(
            help="Address of an operations port: replay the last recorded consultation of --order-id, or list all."
        ),
    ] = None,
    payment_id: Annotated[
        str | None, typer.Option(help="With --ops: show what was done for this payment within the last hour.")
    ] = None,
    config: Annotated[Path, typer.Option("--config", "-c", help="Configuration for --from and --ops.")] = Path(
        "config/cashier.toml"
    ),
    json: Annotated[bool, typer.Option("--json", help="Print the explanation as JSON.")] = False,
) -> None:
    """Explain which payment methods an order has now: every rule, with the facts that decided.

    With --from or --ops, which ones it had, from a record of the operations port. With
    --payment-id, what was done for a payment. Changes nothing. Exit status 1 means that there is no
    explanation.
    """
    kinds = _known_kinds(kind or [])
    if payment_id is not None and (ops is None or order_id is not None):
        stop("--payment-id goes with --ops, and without --order-id")
    if ops is not None:
        if case is not None or record is not None:
            stop("--ops takes the order by --order-id: leave --case and --from out")
        if payment_id is not None:
            _show_steps(OperationsClient(ops, None, token), payment_id, json=json)
            return
        _show_recorded(OperationsClient(ops, None, token), order_id, config, kinds, json=json)
        return
    if record is not None:
        if case is not None or order_id is not None:
            stop("--from has the order of its record: leave --case and --order-id out")
        _show(_replayed(str(record), _content(record), config), kinds, json=json)
        return
    question: dict[str, Any] = {} if case is None else _of_case(case)
    given = {
        "order_id": order_id,
        "user_id": user_id,
        "merchant_id": merchant_id,
        "product": product,
        "terminal": terminal_type,
        "amount": None if amount is None else parse_money(amount),
        "country": country,
        "deadline_ms": deadline_ms,
        "chosen_promotions": chosen_promotions(promotion, no_promotions),
    }
    question |= {key: value for key, value in given.items() if value is not None} | ({"fresh": True} if fresh else {})
    with answers_of(url):
        _show(run(service_client.why(url, question, token)), kinds, json=json)


def _show(answer: dict[str, Any], kinds: frozenset[str], *, json: bool) -> None:
    explained = "outcome" in answer
    if json:
        print_json(answer)
    else:
        console = terminal()
        write(console, (why_lines(answer, kinds, console.width) if explained else problem_lines(answer, console.width)))
    if not explained:
        raise typer.Exit(1)


def _show_recorded(
    client: OperationsClient, order_id: str | None, config: Path, kinds: frozenset[str], *, json: bool
) -> None:
    listed = run(client.records(order_id)).records
    if order_id is None:
        if json:
            print_json(msgspec.to_builtins(listed))
        else:
            console = terminal()
            write(console, record_lines(msgspec.to_builtins(listed), console.width))
        return
    found = next((each for each in listed if each.replays), None)
    if found is None:
        stop(f"no recorded consultation of {order_id}: only bad and sampled ones are, for an hour")
    _show(_replayed(f"record {found.key}", run(client.record(found.key)), config), kinds, json=json)


def _show_steps(client: OperationsClient, payment_id: str, *, json: bool) -> None:
    steps: list[dict[str, Any]] = msgspec.to_builtins(run(client.steps(payment_id)).steps)
    if not steps:
        stop(f"no step of {payment_id} within the last hour at this port; the log has older ones")
    if json:
        print_json(steps)
        return
    console = terminal()
    write(console, step_lines(steps, console.width))


def _content(record: Path) -> bytes:
    try:
        with record.open("rb") as file:
            body = file.read(_MOST_BYTES + 1)
    except OSError as error:
        stop(f"{record}: cannot be read: {error.strerror}")
    if len(body) > _MOST_BYTES:
        stop(f"{record}: is no record of a consultation: these have at most {_MOST_BYTES} bytes")
    return body


def _replayed(name: str, record: bytes, config: Path) -> dict[str, Any]:
    """The explanation of a recorded consultation. What differs now goes to stderr."""
    try:
        facts = unpacked(msgspec.json.decode(record, type=_Record).facts)
        loaded = load(config)
        replay = replayed(facts, loaded.catalog, loaded.weights)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        stop(f"{name}: is no record of a consultation: {error}")
    except CannotReplay as error:
        stop(f"{name}: {error}")
    except ConfigurationError as error:
        refuse(error)
    if not replay.same_configuration:
        warn(f"{config} has other terms or weights than the service had: methods may differ")
    for difference in replay.differences:
        warn(difference)
    explanation: dict[str, Any] = orjson.loads(msgspec.json.encode(replay.explanation))
    return explanation


def _of_case(name: str) -> dict[str, Any]:
    return {key: value for key, value in known_case(name).request.items() if key != "deadline_ms"}


def _known_kinds(names: list[str]) -> frozenset[str]:
    kinds = frozenset(name.upper() for name in names)
    for name in sorted(kinds - set(Kind)):
        stop(f"{name!r} is no kind of payment method; known are {', '.join(Kind)}")
    return kinds
