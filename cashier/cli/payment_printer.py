"""What people see of a payment in a terminal: what was chosen and what it costs, and one line for each step, with what is to be done next.

Works on what came over the wire. Nothing here asks anybody anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cashier.cli.consultation_printer import major, money, problem
from cashier.cli.payer import Chosen
from cashier.cli.service_client import Told

_COLOURS = {
    "SUCCEEDED": "bold green",
    "CHALLENGE": "cyan",
    "ACTION_REQUIRED": "cyan",
    "PROCESSING": "yellow",
    "FAILED": "bold red",
    "CLOSED": "bold red",
    "CLOSED_REFUNDING": "bold red",
}
_MARGIN = (0, 1, 0, 1)
_INDENT = (0, 1, 0, 4)


def consulted(answer: dict[str, Any], took_ms: float) -> RenderableType:
    ways = answer["methods"]
    usable = sum(way["availability"] == "AVAILABLE" for way in ways)
    return _line(
        "consult",
        200,
        "",
        took_ms,
        f"{usable} of {len(ways)} ways to pay are available" if ways else "nothing can be paid",
    )


def chosen(found: Chosen, key: str) -> RenderableType:
    """The way to pay, the sum it comes to, and the key under which it is submitted."""
    method, body = found.method, found.body
    option = f", {escape(body['option_id'])}" if "option_id" in body else ""
    lines = [f"[bold]{escape(method['title'])}[/]  [dim]{escape(method['method_id'])}{option}[/]", sum_of(found.amount)]
    if method["legs"] and not option:
        lines.append("from " + " and ".join(f"{escape(leg['id'])} {major(leg['amount'])}" for leg in method["legs"]))
    lines.append(f"[dim]Idempotency-Key {escape(key)}[/]")
    return Padding(Group(*lines), _INDENT)


def sum_of(amount: dict[str, Any]) -> str:
    """`128.00 − 10.00 + 1.18 fee = 119.18 CNY`."""
    parts = [major(amount["order"])] + [f"− {major(discount['amount'])}" for discount in amount["discounts"]]
    if amount["fee"]["value"]:
        parts.append(f"+ {major(amount['fee'])} fee")
    return f"{' '.join(parts)} = [bold]{money(amount['payable'])}[/]"


def step(asked: str, told: Told, before: dict[str, Any] | None) -> Iterator[RenderableType]:
    """What was asked, what was said, and what of it is new since `before`, the payment as it was shown last.

    A `Text` among it is to be printed whole, however long it is: it may be an address or a command that somebody copies.
    """
    body, known = told.body, before or {}
    if "code" in body:
        yield _line(asked, told.status, "", told.took_ms, "")
        yield problem(body)
        return
    yield _line(asked, told.status, body["status"], told.took_ms, body["message"]["text"])
    if body["route"] and body["route"] != known.get("route"):
        yield _detail(_route(body["route"]), "dim")
    if body["challenge"] and body["challenge"] != known.get("challenge"):
        yield _detail(_challenge(body["challenge"]))
    if body["next_action"] and body["next_action"] != known.get("next_action"):
        yield from (_detail(line) for line in _action(body["next_action"]))


def _line(asked: str, status: int, state: str, took_ms: float, text: str) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    for width in (9, 3, 16):
        table.add_column(width=width)
    table.add_column(width=9, justify="right")
    table.add_column()
    took = f"{took_ms:.1f} ms" if took_ms < 1000 else f"{took_ms / 1000:.1f} s"
    style = "red" if status >= 400 else "dim"
    table.add_row(
        asked,
        Text(str(status), style=style),
        Text(state, style=_COLOURS.get(state, "")),
        Text(took, style="dim"),
        Text(text),
    )
    return Padding(table, _MARGIN)


def _detail(line: str, style: str = "cyan") -> Text:
    return Text(f"    {line}", style=style)


def _route(route: dict[str, Any]) -> str:
    others = route.get("alternatives") or ()
    over = f" → {route['channel_id']}" if route.get("channel_id") else ""
    return f"route {route['rule']}{over}" + (f", else {', '.join(others)}" if others else "")


def _challenge(challenge: dict[str, Any]) -> str:
    left = challenge["attempts_left"]
    answers = f"{left} answer{'' if left == 1 else 's'} left"
    return f"{challenge['type']}  {challenge['render_value']}  {answers}, until {_time(challenge['expires_at'])}"


def _action(action: dict[str, Any]) -> Iterator[str]:
    """What the payer, or the caller, has to do, in a line or two. Addresses stand alone, so that they can be clicked or copied."""
    match action["type"]:
        case "REDIRECT":
            fields = f" with {', '.join(action['fields'])}" if action.get("fields") else ""
            yield f"open in a browser ({action['method']}{fields})"
            yield str(action["url"])
            if action.get("applink"):
                yield f"or in the app  {action['applink']}"
        case "DISPLAY_QR":
            yield f"show as a QR code, until {_time(action['expires_at'])}"
            yield str(action["data"])
        case "DISPLAY_CODE":
            yield f"pay at {action['institution']} with the code {action['code']}, until {_time(action['expires_at'])}"
            if action.get("instructions_url"):
                yield str(action["instructions_url"])
        case "DISPLAY_VA":
            to = f"{action['bank']} {action['account_no']} ({action['account_name']})"
            yield f"transfer {money(action['amount'])} to {to}, until {_time(action['expires_at'])}"
        case "AWAIT":
            yield f"nothing to do; it is looked at again until {_time(action['until'])}"
        case _:
            yield f"for the provider's own software: {msgspec.json.encode(action.get('payload', action)).decode()}"


def _time(told: str) -> str:
    """An instant as the clock on the wall shows it; with its day where that is another."""
    at = datetime.fromisoformat(told).astimezone()
    return f"{at:%H:%M:%S}" if at.date() == datetime.now(UTC).astimezone().date() else f"{at:%Y-%m-%d %H:%M}"


def left(payment: dict[str, Any], url: str) -> Iterator[RenderableType]:
    """How to go on with a payment that nobody waits for any more. A `Text` as in `step`."""
    state = f"[{_COLOURS[payment['status']]}]{payment['status']}[/]"
    yield Padding(
        f"{state}, and nobody waits for it here any more. To go on with it, or with --cancel to end it:", (1, 1, 0, 1)
    )
    yield Text(f"    cashier payment {payment['payment_id']} --url {url} --token {payment['payment_token']}")
