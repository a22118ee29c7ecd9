"""Consultations as lines for a terminal: payment methods with reasons, the fan-out as a waterfall.

Reads the JSON of the response, so it shows what any client gets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.text import Text

from cashier.cli.layout import Column, one_line, paragraph, table
from cashier.domain.money import Money, major_units
from cashier.fanout.ask import Importance, SourceReport, SourceStatus
from cashier.fanout.waterfall import TimelineRow, timeline_rows
from cashier.web.problem import ProblemCode

# Mark and colour by availability.
MARKS = {"AVAILABLE": ("●", "green"), "UNDETERMINED": ("?", "yellow"), "UNAVAILABLE": ("○", "dim")}
_COLOURS = {
    SourceStatus.FRESH: "green",
    SourceStatus.CACHED: "cyan",
    SourceStatus.STALE: "cyan",
    SourceStatus.SKIPPED: "bright_black",
}
_METHOD_COLUMNS = (
    Column("", right=True),
    Column(""),
    Column("payment method", least=16),
    Column("pays", right=True),
    Column("discounts, fee", detail=True),
    Column("why", least=30, detail=True),
)
_BAR_WIDTHS = range(8, 49)


def consultation_lines(answer: dict[str, Any], total_ms: float, deadline_ms: int, width: int) -> Iterator[Text]:
    """A response of status 200."""
    yield from _order_lines(answer, total_ms, deadline_ms, width)
    if answer["methods"]:
        yield Text()
        yield from method_lines(answer["methods"], width)
    yield Text()
    yield from waterfall_lines(answer["sources"], total_ms, deadline_ms, width)


def problem_lines(answer: dict[str, Any], width: int) -> Iterator[Text]:
    """A problem response (RFC 9457)."""
    yield Text()
    if "title" not in answer:
        hint = "This is not a cashier service. Is it the address of the sandbox?"
        yield from paragraph(Text.assemble((str(answer["code"]), "bold red"), f"  {hint}"), width, 1, 2)
    else:
        code = f"{answer['status']} {answer['code']}"
        # The detail of INVALID repeats the lines of its errors.
        repeated = answer["code"] == ProblemCode.INVALID and answer.get("errors")
        detail = one_line(answer["title"] if repeated else answer.get("detail") or answer["title"])
        yield from paragraph(Text.assemble((code, "bold red"), f"  {detail}"), width, 1, 2)
    for error in answer.get("errors") or ():
        line = Text.assemble((error["field"] or "the body", "bold"), f"  {one_line(error['message'])}")
        yield from paragraph(line, width, 3, 2)
    for change in answer.get("changes") or ():
        yield from paragraph(_change(change), width, 3, 2)
    yield Text()


def _change(change: dict[str, Any]) -> Text:
    """`PRICE_CHANGED 118.00 CNY → 120.00 CNY fee`."""
    before, after = (_change_value(change.get(name)) for name in ("from", "to"))
    cause = " ".join(one_line(str(change[name])) for name in ("subject", "reason") if change.get(name))
    return Text.assemble((change["what"], "bold"), f"  {before} → {after}", (f"  {cause}" if cause else "", "dim"))


def _change_value(value: Any) -> str:
    if isinstance(value, dict):
        return money_text(value)
    return "nothing" if value is None else one_line(str(value))


def _order_lines(answer: dict[str, Any], total_ms: float, deadline_ms: int, width: int) -> Iterator[Text]:
    order, blocked = answer["order"], answer["blocked"]
    title = f"  {one_line(order['title'])}" if order["title"] else ""
    amount = (f"  {money_text(order['amount'])}", "bold")
    yield Text()
    yield from paragraph(Text.assemble((order["order_id"], "bold"), title, amount), width, 1, 2)
    duration = (f"{total_ms:.1f} ms", "bold")
    time = Text.assemble("answered in ", duration, f", HTTP included; deadline {deadline_ms} ms")
    yield from paragraph(time, width, 1, 2)
    if blocked:
        line = Text.assemble((blocked["code"], "bold red"), f"  {one_line(blocked['message'])}")
        yield from paragraph(line, width, 1, 2)
    elif answer["degraded"]:
        line = Text("degraded: a source is missing; methods that it could refuse are undetermined", style="yellow")
        yield from paragraph(line, width, 1, 2)


def method_lines(methods: Sequence[dict[str, Any]], width: int) -> Iterator[Text]:
    """The payment methods by rank, grouped by availability, and a legend of the marks."""
    rows: list[tuple[Text, ...]] = []
    before = methods[0]["availability"]
    for method in methods:
        if method["availability"] != before:
            rows.append(())
            before = method["availability"]
        rows.append(_method_row(method))
    yield from table(_METHOD_COLUMNS, rows, width)
    yield Text()
    legend = Text("   ").join(Text.assemble(mark, f" {name.lower()}") for name, mark in MARKS.items())
    yield from paragraph(legend, width, 4)


def _method_row(method: dict[str, Any]) -> tuple[Text, ...]:
    title = Text(one_line(method["title"]), style="bold" if method["preferred"] else "")
    if method["options"]:
        usable = sum(option["availability"] == "AVAILABLE" for option in method["options"])
        title = Text.assemble(title, f" ({usable} of {len(method['options'])})")
    amount = method["amount"]
    row = (
        Text(str(method["rank"])),
        Text(*MARKS[method["availability"]]),
        title,
        Text(money_text(amount["payable"]) if amount else "unknown"),
        Text(_adjustments(amount) if amount else "", style="dim"),
        _why(method),
    )
    if method["availability"] == "UNAVAILABLE":
        for cell in row[:4]:
            cell.stylize("dim")
    return row


def _adjustments(amount: dict[str, Any]) -> str:
    """The discounts and the fee: `−10.00 −6.40 +1.13 fee`."""
    parts = [f"−{amount_text(discount['amount'])}" for discount in amount["discounts"]]
    if amount["fee"]["value"]:
        parts.append(f"+{amount_text(amount['fee'])} fee")
    return " ".join(parts)


def _why(method: dict[str, Any]) -> Text:
    """The refusal with its remedy, else the reasons of the rank."""
    reason = method["reason"]
    if reason is None:
        return Text(one_line(" ".join(method["rank_reasons"])), style="dim")
    undetermined = method["availability"] == "UNDETERMINED"
    source = f" ({reason['source']})" if undetermined else ""
    remedy = reason["remedy"]
    remedy_text = ""
    if remedy is not None:
        amount = f" {money_text(remedy['amount'])}" if remedy.get("amount") else ""
        remedy_text = f" → {remedy['type']}{amount}"
    return Text.assemble(
        (f"{one_line(reason['message'])}{source}", "yellow" if undetermined else ""), (remedy_text, "cyan")
    )


def waterfall_lines(sources: Sequence[dict[str, Any]], total_ms: float, deadline_ms: int, width: int) -> Iterator[Text]:
    """One bar per source from its start to its end, all to one scale; `│` marks when the answer
    went out.

    The bars shrink first; where even short ones do not fit, the importance goes.
    """
    reports = [
        SourceReport(
            name=source["name"],
            importance=Importance(source["class"]),
            status=SourceStatus(source["status"]),
            started_ms=source["started_ms"],
            elapsed_ms=source["elapsed_ms"],
            age_ms=source["age_ms"],
        )
        for source in sources
    ]
    scale_ms = deadline_ms if total_ms > deadline_ms / 2 else max(total_ms * 1.15, 1)
    cells = [
        (report.name, report.importance.lower(), f"{report.elapsed_ms:.1f} ms", report.status.value)
        for report in reports
    ]
    name_width, importance_width, time_width, status_width = (
        max((len(row[place]) for row in cells), default=0) for place in range(4)
    )
    # The margin, two cells between columns, and one for the mark behind a full bar.
    fixed = 2 + name_width + 2 + 2 + 1 + time_width + 2 + status_width
    with_importance = width - fixed - importance_width - 2 >= _BAR_WIDTHS[0]
    free = width - fixed - (importance_width + 2 if with_importance else 0)
    bar_width = min(max(free, _BAR_WIDTHS[0]), _BAR_WIDTHS[-1])
    answered = min(int(total_ms / scale_ms * bar_width), bar_width)
    start = 2 + name_width + 2 + (importance_width + 2 if with_importance else 0)
    for row, (name, importance, _, status) in zip(timeline_rows(reports, scale_ms, bar_width), cells, strict=True):
        time = f"{row.end_ms - row.start_ms:.1f} ms" if row.length else ""
        yield Text.assemble(
            f"  {name:<{name_width}}  ",
            (f"{importance:<{importance_width}}  " if with_importance else "", "dim"),
            _bar(row, bar_width, answered),
            f"  {time:>{time_width}}  ",
            (status, _COLOURS.get(row.status, "red")),
        )
    yield Text(f"{' ' * start}0{f'{scale_ms:.0f} ms':>{bar_width - 1}}", style="dim")


def _bar(row: TimelineRow, width: int, answered: int) -> Text:
    bar = Text(" " * row.column + "━" * row.length + " " * (width + 1 - row.column - row.length))
    bar.stylize(_COLOURS.get(row.status, "red"), row.column, row.column + row.length)
    return Text.assemble(bar[:answered], ("│", "dim"), bar[answered + 1 :])


def money_text(amount: dict[str, Any]) -> str:
    """A JSON amount with its currency: `108.72 CNY`."""
    return str(Money(amount["currency"], amount["value"]))


def amount_text(amount: dict[str, Any]) -> str:
    """A JSON amount without its currency: `108.72`."""
    return major_units(Money(amount["currency"], amount["value"]))
