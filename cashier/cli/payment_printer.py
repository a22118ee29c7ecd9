"""Payments as lines for a terminal: the chosen method with its price, and each step.

Reads the JSON of the responses. An address, a command or a payload is never wrapped, so that it can
be copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import orjson
from rich.cells import cell_len
from rich.text import Text

from cashier.cli.checkout_client import SelectedMethod
from cashier.cli.consultation_printer import amount_text, money_text, problem_lines
from cashier.cli.layout import command, one_line, paragraph
from cashier.cli.service_client import ServiceReply

_COLOURS = {
    "SUCCEEDED": "bold green",
    "CHALLENGE": "cyan",
    "ACTION_REQUIRED": "cyan",
    "PROCESSING": "yellow",
    "FAILED": "bold red",
    "CLOSED": "bold red",
    "CLOSED_REFUNDING": "bold red",
}
TOKEN_VARIABLE = "CASHIER_PAYMENT_TOKEN"  # noqa: S105  # the name of a variable, not a token
_INDENT = 4
_STATUS_WIDTH = max(map(len, _COLOURS))


def consulted_line(answer: dict[str, Any], took_ms: float, width: int) -> Iterator[Text]:
    methods = answer["methods"]
    available = sum(method["availability"] == "AVAILABLE" for method in methods)
    text = f"{available} of {len(methods)} methods available" if methods else "nothing can be paid"
    return _step_line("consult", 200, "", took_ms, text, width)


def chosen_lines(chosen: SelectedMethod, key: str, width: int) -> Iterator[Text]:
    """The payment method, its price, and the idempotency key of the submit."""
    method, body = chosen.method, chosen.body
    option = f", {body['option_id']}" if "option_id" in body else ""
    title = (one_line(method["title"]), "bold")
    yield from paragraph(Text.assemble(title, (f"  {method['method_id']}{option}", "dim")), width, _INDENT, 2)
    yield from paragraph(price_breakdown(chosen.amount), width, _INDENT, 2)
    terms = next((each["terms"] for each in method["options"] if each["option_id"] == body.get("option_id")), None)
    if terms is not None:
        yield from paragraph(Text(_instalments(terms)), width, _INDENT, 2)
    if method["legs"] and not option:
        legs = " and ".join(f"{leg['id']} {amount_text(leg['amount'])}" for leg in method["legs"])
        yield from paragraph(Text(f"from {legs}"), width, _INDENT, 2)
    yield from paragraph(Text(f"Idempotency-Key {key}", style="dim"), width, _INDENT, 2)


def _instalments(terms: dict[str, Any]) -> str:
    """What the payer owes and when, beside the price and its fee."""
    each, last = amount_text(terms["per_instalment"]), amount_text(terms["last_instalment"])
    return f"{terms['count']} instalments of {each}, the last {last}, at {terms['apr_bps'] / 100:.2f} % a year"


def price_breakdown(amount: dict[str, Any]) -> Text:
    """`128.00 − 10.00 + 1.18 fee = 119.18 CNY`; the price alone where it is that of the order."""
    parts = [amount_text(amount["order"])] + [
        f"− {amount_text(discount['amount'])}" for discount in amount["discounts"]
    ]
    if amount["fee"]["value"]:
        parts.append(f"+ {amount_text(amount['fee'])} fee")
    sum_text = f"{' '.join(parts)} = " if len(parts) > 1 else ""
    return Text.assemble(sum_text, (money_text(amount["payable"]), "bold"))


def step_lines(action: str, reply: ServiceReply, before: dict[str, Any] | None, width: int) -> Iterator[Text]:
    """One request and its reply, with what changed since `before`, the payment as last printed."""
    body, known = reply.body, before or {}
    if "code" in body:
        yield from _step_line(action, reply.status, "", reply.took_ms, "", width)
        yield from problem_lines(body, width)
        return
    yield from _step_line(action, reply.status, body["status"], reply.took_ms, one_line(body["message"]["text"]), width)
    if body.get("route") and body["route"] != known.get("route"):
        yield from paragraph(Text(_route(body["route"]), style="dim"), width, _INDENT, 2)
    if body.get("challenge") and body["challenge"] != known.get("challenge"):
        yield from paragraph(Text(_challenge(body["challenge"]), style="cyan"), width, _INDENT, 2)
    if body["next_action"] and body["next_action"] != known.get("next_action"):
        yield from _next_action_lines(body["next_action"], width)


def _step_line(action: str, status: int, state: str, took_ms: float, text: str, width: int) -> Iterator[Text]:
    """The columns of a step. A text that does not fit beside them goes below."""
    took = f"{took_ms:.1f} ms" if took_ms < 1000 else f"{took_ms / 1000:.1f} s"
    line = Text.assemble(
        f" {action:<9}  ",
        (str(status), "red" if status >= 400 else "dim"),
        "  ",
        (f"{state:<{_STATUS_WIDTH}}", _COLOURS.get(state, "")),
        (f"  {took:>9}", "dim"),
    )
    if cell_len(line.plain) + 2 + cell_len(text) <= width:
        line.append(f"  {text}" if text else "")
        yield line
    else:
        yield line
        yield from paragraph(Text(text), width, _INDENT)


def _route(route: dict[str, Any]) -> str:
    alternatives = route.get("alternatives") or ()
    channel = f" → {route['channel_id']}" if route.get("channel_id") else ""
    return f"route {route['rule']}{channel}" + (f", else {', '.join(alternatives)}" if alternatives else "")


def _challenge(challenge: dict[str, Any]) -> str:
    left = challenge["attempts_left"]
    attempts = f"{left} attempt{'' if left == 1 else 's'} left"
    return f"{challenge['type']}  {challenge['render_value']}  {attempts}, until {_time(challenge['expires_at'])}"


def _next_action_lines(action: dict[str, Any], width: int) -> Iterator[Text]:
    """What to do next: a sentence, then addresses and codes on lines of their own."""
    sentence, *whole = _next_action(action)
    yield from paragraph(Text(sentence, style="cyan"), width, _INDENT, 2)
    for text in whole:
        yield Text(f"{' ' * _INDENT}{text}", style="cyan")


def _next_action(action: dict[str, Any]) -> Iterator[str]:
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
            account = f"{action['bank']} {action['account_no']} ({action['account_name']})"
            yield f"transfer {money_text(action['amount'])} to {account}, until {_time(action['expires_at'])}"
        case "AWAIT":
            yield f"nothing to do; the status is polled until {_time(action['until'])}"
        case _:
            yield "pass to the provider's SDK:"
            yield orjson.dumps(action.get("payload", action)).decode()


def _time(timestamp: str) -> str:
    """Local time of day; with the date where it is not today."""
    at = datetime.fromisoformat(timestamp).astimezone()
    today = datetime.now(UTC).astimezone().date()
    return f"{at:%H:%M:%S}" if at.date() == today else f"{at:%Y-%m-%d %H:%M}"


def resume_lines(payment: dict[str, Any], url: str, width: int) -> Iterator[Text]:
    """Commands that continue a payment which is not final.

    The token is long and goes into a variable, so that the command stays short.
    """
    state = (payment["status"], _COLOURS[payment["status"]])
    text = Text.assemble(state, ", and not final. To follow it, or to end it with --cancel:")
    yield Text()
    yield from paragraph(text, width, 1)
    payment_id, token = payment["payment_id"], payment["payment_token"]
    yield Text(f"{' ' * _INDENT}export {TOKEN_VARIABLE}={token}")
    yield from command([f"cashier payment {payment_id}", f"--url {url}"], width, _INDENT)
