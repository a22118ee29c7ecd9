"""What people see of a consultation in a terminal: the ways to pay with amounts and reasons, and the fan-out as bars against the deadline.

Works on the answer as it came over the wire, so that it shows what any client would get.
"""

from __future__ import annotations

import os
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cashier.domain.money import Money, major_units
from cashier.fanout.ask import Importance, SourceReport, SourceStatus
from cashier.fanout.timeline import TimelineRow, timeline_rows

_SIGNS = {"AVAILABLE": "[green]●[/]", "UNDETERMINED": "[yellow]?[/]", "UNAVAILABLE": "[dim]○[/]"}
_COLOURS = {
    SourceStatus.FRESH: "green",
    SourceStatus.CACHED: "cyan",
    SourceStatus.STALE: "cyan",
    SourceStatus.SKIPPED: "bright_black",
}
_BAR_COLUMNS = 48
_TITLE_COLUMNS = 48


def consultation(answer: dict[str, Any], total_ms: float, deadline_ms: int) -> RenderableType:
    """The whole picture of one answer of status 200."""
    parts: list[RenderableType] = [_order(answer, total_ms, deadline_ms)]
    if answer["methods"]:
        parts.append(methods(answer["methods"]))
    parts.append(waterfall(answer["sources"], total_ms, deadline_ms))
    return Group(*parts)


def problem(answer: dict[str, Any]) -> RenderableType:
    """An answer that is a problem (RFC 9457)."""
    if "title" not in answer:
        return Padding(
            f"[bold red]{escape(answer['code'])}[/]  That is no cashier service; is it the sandbox's address?", (1, 1)
        )
    lines = [
        f"[bold red]{answer['status']} {escape(answer['code'])}[/]  {escape(answer.get('detail') or answer['title'])}"
    ]
    lines += [
        f"  [bold]{escape(error['field'])}[/]  {escape(error['message'])}" for error in answer.get("errors") or ()
    ]
    lines += [_change(change) for change in answer.get("changes") or ()]
    return Padding(Group(*lines), (1, 1))


def _change(change: dict[str, Any]) -> str:
    """What is not as it was agreed to: what of it, from what, to what, and why."""
    of = " ".join(escape(str(change[name])) for name in ("subject", "reason") if change.get(name))
    before, after = (_value(change.get(name)) for name in ("from", "to"))
    return f"  [bold]{escape(change['what'])}[/]  {before} → {after}" + (f"  [dim]{of}[/]" if of else "")


def _value(told: Any) -> str:
    return money(told) if isinstance(told, dict) else escape(str(told)) if told is not None else "nothing"


def _order(answer: dict[str, Any], total_ms: float, deadline_ms: int) -> RenderableType:
    order, blocked = answer["order"], answer["blocked"]
    title = f"  {escape(order['title'])}" if order["title"] else ""
    lines = [f"[bold]{escape(order['order_id'])}[/]{title}  [bold]{money(order['amount'])}[/]"]
    lines.append(f"answered in [bold]{total_ms:.1f} ms[/] of {deadline_ms} ms")
    if blocked:
        lines.append(f"[bold red]{blocked['code']}[/]  {escape(blocked['message'])}")
    elif answer["degraded"]:
        lines.append("[yellow]degraded: a source is missing, and what it could refuse is not called available[/]")
    return Padding(Group(*lines), (1, 1, 0, 1))


def methods(found: list[dict[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=True, header_style="dim", expand=False)
    table.add_column("", justify="right", style="dim")
    table.add_column("")
    table.add_column("way to pay", max_width=_TITLE_COLUMNS, overflow="ellipsis", no_wrap=True)
    table.add_column("pays", justify="right", no_wrap=True)
    table.add_column("of it", style="dim", no_wrap=True)
    table.add_column("why")
    before = found[0]["availability"]
    for method in found:
        if method["availability"] != before:
            table.add_section()
            before = method["availability"]
        table.add_row(*_method(method), style="dim" if method["availability"] == "UNAVAILABLE" else None)
    return table


def _method(method: dict[str, Any]) -> tuple[str, ...]:
    title = escape(method["title"])
    usable = sum(option["availability"] == "AVAILABLE" for option in method["options"])
    if method["options"]:
        title += f" [dim]({usable} of {len(method['options'])})[/]"
    amount = method["amount"]
    return (
        str(method["rank"]),
        _SIGNS[method["availability"]],
        f"[bold]{title}[/]" if method["preferred"] else title,
        money(amount["payable"]) if amount else "[dim]unknown[/]",
        _parts(amount) if amount else "",
        _why(method),
    )


def _parts(amount: dict[str, Any]) -> str:
    """What the payable amount is made of, where it is not just the order's."""
    parts = [f"−{major(discount['amount'])}" for discount in amount["discounts"]]
    if amount["fee"]["value"]:
        parts.append(f"+{major(amount['fee'])} fee")
    return " ".join(parts)


def _why(method: dict[str, Any]) -> str:
    reason = method["reason"]
    if reason is None:
        return f"[dim]{escape(' '.join(method['rank_reasons']))}[/]"
    remedy = reason["remedy"]
    help_ = (
        ""
        if remedy is None
        else f" → {remedy['type']}" + (f" {money(remedy['amount'])}" if remedy.get("amount") else "")
    )
    who = f" ({reason['source']})" if method["availability"] == "UNDETERMINED" else ""
    colour = "yellow" if method["availability"] == "UNDETERMINED" else "default"
    return f"[{colour}]{escape(reason['message'].strip())}{who}[/][cyan]{help_}[/]"


def waterfall(sources: list[dict[str, Any]], total_ms: float, deadline_ms: int) -> RenderableType:
    """One bar a source, from when it was asked to when it answered, all to one scale; `│` is when the answer went out."""
    reports = [
        SourceReport(
            each["name"],
            Importance(each["class"]),
            SourceStatus(each["status"]),
            each["started_ms"],
            each["elapsed_ms"],
            each["age_ms"],
        )
        for each in sources
    ]
    scale_ms = deadline_ms if total_ms > deadline_ms / 2 else max(total_ms * 1.15, 1)
    table = Table.grid(padding=(0, 2))
    for row in timeline_rows(reports, scale_ms, _BAR_COLUMNS):
        table.add_row(
            row.name,
            f"[dim]{row.importance.lower()}[/]",
            _bar(row, min(int(total_ms / scale_ms * _BAR_COLUMNS), _BAR_COLUMNS)),
            f"{row.end_ms - row.start_ms:.1f} ms" if row.length else "",
            f"[{_COLOURS.get(row.status, 'red')}]{row.status.value}[/]",
        )
    table.add_row("", "", f"[dim]0{f'{scale_ms:.0f} ms':>{_BAR_COLUMNS - 1}}[/]")
    return Padding(table, (0, 2, 1, 2))


def _bar(row: TimelineRow, answered: int) -> Text:
    bar = Text(" " * row.column + "━" * row.length + " " * (_BAR_COLUMNS + 1 - row.column - row.length))
    bar.stylize(_COLOURS.get(row.status, "red"), row.column, row.column + row.length)
    line = Text("│", style="dim")
    return Text.assemble(bar[:answered], line, bar[answered + 1 :])


def money(told: dict[str, Any]) -> str:
    """An amount of the wire with its currency: `108.72 CNY`."""
    return str(Money(told["currency"], told["value"]))


def major(told: dict[str, Any]) -> str:
    """The same without."""
    return major_units(Money(told["currency"], told["value"]))


def console() -> Console:
    """To a terminal as wide as it is, or as COLUMNS says; to a pipe as wide as the pictures need."""
    found = Console(highlight=False)
    return found if found.is_terminal or "COLUMNS" in os.environ else Console(highlight=False, width=140)
