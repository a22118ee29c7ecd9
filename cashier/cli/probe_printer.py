"""Probes as lines for a terminal: what each source was asked, and what it answered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import orjson
from rich.text import Text

from cashier.cli.layout import one_line, paragraph
from cashier.probe import OPTION_OF_INPUT, Exchange

_INDENT = 4
# Enough to see the shape; `--json` prints everything.
_ANSWER_CHARACTERS = 600


def probe_lines(exchanges: Sequence[Exchange], findings: Sequence[str], width: int) -> Iterator[Text]:
    for exchange in exchanges:
        yield from paragraph(_heading(exchange), width, 0, _INDENT)
        for request in exchange.requests:
            yield from paragraph(Text(request, style="dim"), width, _INDENT, _INDENT)
        for text, style in _findings(exchange):
            yield from paragraph(Text(one_line(text), style=style), width, _INDENT, 0)
    if findings:
        yield Text()
        yield Text("What matches nothing:", style="bold")
        for finding in findings:
            yield from paragraph(Text(finding, style="yellow"), width, _INDENT, 2)
    yield Text()
    yield Text(f"{sum(map(is_sound, exchanges))} of {len(exchanges)} sources gave a usable answer.")


def is_sound(exchange: Exchange) -> bool:
    return exchange.fault is None and not exchange.missing


def _heading(exchange: Exchange) -> Text:
    mark, colour = ("●", "green") if is_sound(exchange) else ("?", "yellow") if exchange.missing else ("○", "red")
    status = "" if exchange.status is None else f"  {exchange.status}"
    elapsed = "" if exchange.missing else f"  {exchange.elapsed_ms:.1f} ms"
    return Text.assemble((mark, colour), " ", (exchange.source, "bold"), f"  {exchange.address}{status}{elapsed}")


def _findings(exchange: Exchange) -> Iterator[tuple[str, str]]:
    """Sentences with their styles."""
    if exchange.missing:
        options = " and ".join(dict.fromkeys(OPTION_OF_INPUT[need] for need in exchange.missing))
        yield f"not asked: no {', '.join(exchange.missing)}, given or in the order; give {options}", "yellow"
        return
    if exchange.fault is not None:
        yield exchange.fault, "red"
    else:
        yield "there is none" if exchange.answer is None else _shortened(exchange.answer), ""
    if exchange.timeout_ms is not None and exchange.elapsed_ms > exchange.timeout_ms:
        yield f"slower than its timeout of {exchange.timeout_ms} ms: in a consultation this is silence", "yellow"


def _shortened(answer: Any) -> str:
    text = msgspec.json.format(orjson.dumps(answer), indent=0).decode()
    return text if len(text) <= _ANSWER_CHARACTERS else f"{text[:_ANSWER_CHARACTERS]} … {len(text)} characters"
