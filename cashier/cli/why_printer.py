"""Explanations as lines for a terminal: first what happened, then why, in full for chosen kinds.

Reads the JSON of the response, so it shows what any client gets.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias

from rich.text import Text

from cashier.cli.consultation_printer import MARKS, money_text
from cashier.cli.layout import Column, one_line, paragraph, table

Json: TypeAlias = dict[str, Any]

_RESULTS = {
    "PASSED": ("passed", "green"),
    "REFUSED": ("refused", "red"),
    "UNDETERMINED": ("undetermined", "yellow"),
    "NOT_REACHED": ("not reached", "bright_black"),
}
_SOURCE_COLUMNS = (
    Column("source"),
    Column("status"),
    Column("took", right=True),
    Column("age", right=True),
    Column("missing because", least=24, detail=True),
)
_RECORD_COLUMNS = (
    Column("started, UTC", least=10),
    Column("order", least=10),
    Column("took", right=True),
    Column("verdicts", least=12, detail=True),
    Column("without an answer", least=12, detail=True, label="without "),
)
_STEP_COLUMNS = (
    Column("time, UTC", least=12),
    Column("took", right=True),
    Column("what happened", least=14),
    Column("particulars", least=24, detail=True),
)
_RULE_COLUMNS = (Column("rule"), Column("result"), Column("why", least=30, detail=True))
_CHANNEL_COLUMNS = (Column("channel", least=12), Column("pays", right=True), Column("why", least=30, detail=True))
_LIMIT_COLUMNS = (
    Column("limit"),
    Column("remains", right=True),
    Column("of", right=True, detail=True, label="of "),
    Column("set by", least=20, detail=True, label="set by "),
)
_PROMOTION_COLUMNS = (
    Column("promotion", least=12),
    Column("value", right=True),
    Column("why", least=30, detail=True),
)
_PART_COLUMNS = (
    Column("score part"),
    Column("score", right=True),
    Column("value, bps", right=True, detail=True, label="value "),
    Column("weight", right=True, detail=True, label="weight "),
)


def why_lines(why: Json, kinds: Collection[str], width: int) -> Iterator[Text]:
    """A whole explanation. `kinds`: those to show alone and in full; none: all, in short."""
    why = printable(why)
    yield Text()
    yield from paragraph(Text.assemble((why["request"]["order_id"], "bold"), f"  {why['sentence']}"), width, 1, 2)
    if why["sources"]:
        yield Text()
        yield from table(_SOURCE_COLUMNS, [_source_row(source) for source in why["sources"]], width)
    yield from _titled("order", _check_lines(why["order_checks"], width, in_full=False))
    if not kinds:
        yield from _titled("promotions", _promotion_lines(why["promotions"], width))
    for kind in why["kinds"]:
        if not kinds or kind["kind"] in kinds:
            yield from _titled(kind["kind"], _kind_lines(kind, width, in_full=bool(kinds)))


def record_lines(records: Sequence[Json], width: int) -> Iterator[Text]:
    """Recorded consultations, one a line."""
    records = printable(list(records))
    yield Text()
    if not records:
        yield from paragraph(Text("No consultation was bad or sampled within the last hour."), width, 1)
        return
    rows = [
        (
            Text(record["started_at"][:19].replace("T", " ")),
            Text(record["order_id"], style="bold"),
            Text(f"{record['elapsed_ms']:.0f} of {record['deadline_ms']:.0f} ms"),
            Text(" ".join(record["verdicts"]), style="yellow"),
            Text(" ".join(record["sources"])),
        )
        for record in records
    ]
    yield from table(_RECORD_COLUMNS, rows, width)


def step_lines(steps: Sequence[Json], width: int) -> Iterator[Text]:
    """The steps of one payment, one a line."""
    steps = printable(list(steps))
    last = steps[-1]
    yield Text()
    yield from paragraph(
        Text.assemble((last["payment_id"], "bold"), f"  {last['kind']} for {last['order_id']}"), width, 1, 2
    )
    yield Text()
    yield from table(_STEP_COLUMNS, [_step_row(step) for step in steps], width)


def _step_row(step: Json) -> tuple[Text, ...]:
    fields = dict(step.get("fields", {}))
    took_ms = fields.pop("elapsed_ms", None)
    shown = {name: ",".join(value) if isinstance(value, list) else value for name, value in fields.items()}
    return (
        Text(datetime.fromtimestamp(step["at"], UTC).strftime("%H:%M:%S.%f")[:-3]),
        Text("" if took_ms is None else f"{took_ms:.1f} ms"),
        Text(step["event"], style={"warning": "yellow", "error": "red"}.get(step["level"], "")),
        Text("  ".join(f"{name} {value}" for name, value in {**shown, "request_id": step["request_id"]}.items())),
    )


def printable(document: Any) -> Any:
    """The document without characters that steer a terminal: ids are upstreams' words."""
    match document:
        case str():
            return "".join(character if character.isprintable() else "\ufffd" for character in document)
        case list():
            return [printable(item) for item in document]
        case dict():
            return {key: printable(value) for key, value in document.items()}
    return document


def _titled(title: str, lines: Iterator[Text]) -> Iterator[Text]:
    """Lines under a title; nothing if there are none."""
    first = next(lines, None)
    if first is not None:
        yield Text()
        yield Text(f" {title}", style="bold")
        yield first
        yield from lines


def _source_row(source: Json) -> tuple[Text, ...]:
    failure = source["failure"] and f"({source['reason']}: {one_line(source['failure'])})"
    because = " ".join(filter(None, (source["cause"], failure)))
    fine = source["status"] in ("FRESH", "CACHED")
    return (
        Text(source["name"]),
        Text(source["status"], style="green" if fine else "yellow"),
        Text(f"{source['elapsed_ms']:.1f} ms"),
        Text(f"{source['age_ms']} ms" if source["age_ms"] else ""),
        Text(because),
    )


def _kind_lines(kind: Json, width: int, *, in_full: bool) -> Iterator[Text]:
    left_out = kind["left_out"]
    if left_out is not None:
        yield from paragraph(Text.assemble(("left out  ", "yellow"), one_line(left_out["sentence"])), width, 3, 2)
    if in_full or left_out is not None:
        yield from _check_lines(kind["checks"], width, in_full=in_full)
    for method in sorted(kind["methods"], key=lambda method: int(method["rank"])):
        yield from _method_lines(method, width)
        if in_full:
            yield from _details(method, width)


def _method_lines(method: Json, width: int) -> Iterator[Text]:
    """The verdict in one line, its sentence below; then the rules that would refuse next."""
    mark, colour = MARKS[method["availability"]]
    payable = "" if method["payable"] is None else f"  pays {money_text(method['payable'])}"
    refused = "" if method["refused_by"] is None else f"  {method['refused_by']}"
    head = Text.assemble((f"{mark} ", colour), (method["method_id"], "bold"), f"  rank {method['rank']}{payable}")
    yield from paragraph(Text.assemble(head, (refused, colour)), width, 3, 2)
    yield from paragraph(Text(one_line(method["sentence"])), width, 5)
    behind = [check for check in method["checks"] if check["result"] in ("REFUSED", "UNDETERMINED")][1:]
    if behind:
        text = f"Without that: {', '.join(check['rule'] for check in behind)} would refuse next."
        yield from paragraph(Text(text, style="dim"), width, 5)


def _details(method: Json, width: int) -> Iterator[Text]:
    """Rules, channels, limits, promotions, score, route; then the same of each option."""
    sections: tuple[tuple[Callable[..., Iterator[Text]], Any], ...] = (
        (_all_checks, method["checks"]),
        (_channel_lines, method["channels"]),
        (_limit_lines, method["limits"]),
        (_promotion_lines, method["promotions"]),
        (_part_lines, method["parts"]),
        (_route_lines, method["route"]),
    )
    for lines, found in sections:
        if found:
            yield Text()
            yield from lines(found, width)
    for option in method["options"]:
        mark, colour = MARKS[option["availability"]]
        payable = "" if option["payable"] is None else f"  pays {money_text(option['payable'])}"
        yield Text()
        yield from paragraph(Text.assemble((f"{mark} ", colour), f"option {option['option_id']}{payable}"), width, 5, 2)
        yield from _check_lines(option["checks"], width, in_full=False)
        yield from _channel_lines(option["channels"], width)
        if option["route"]:
            yield from _route_lines(option["route"], width)
    yield Text()


def _all_checks(checks: Sequence[Json], width: int) -> Iterator[Text]:
    return _check_lines(checks, width, in_full=True)


def _check_lines(checks: Sequence[Json], width: int, *, in_full: bool) -> Iterator[Text]:
    """Each check with its result; in short, those that did not pass."""
    rows = [
        (Text(check["rule"]), Text(*_RESULTS[check["result"]]), Text(one_line(check["sentence"])))
        for check in checks
        if in_full or check["result"] != "PASSED"
    ]
    if rows:
        yield from table(_RULE_COLUMNS, rows, width, 5)
    elif checks:
        yield from paragraph(Text(f"all {len(checks)} rules passed", style="green"), width, 5)


def _channel_lines(channels: Sequence[Json], width: int) -> Iterator[Text]:
    rows = []
    for channel in channels:
        mark, colour = MARKS[channel["availability"]]
        name = Text.assemble((f"{mark} ", colour), (channel["channel_id"], "bold" if channel["chosen"] else ""))
        payable = "" if channel["payable"] is None else money_text(channel["payable"])
        rows.append((name, Text(payable), Text(one_line(channel["sentence"]))))
    if rows:
        yield from table(_CHANNEL_COLUMNS, rows, width, 5)


def _limit_lines(limits: Sequence[Json], width: int) -> Iterator[Text]:
    rows = [
        (
            Text(limit["period"].lower(), style="bold" if limit["tightest"] else ""),
            Text(money_text(limit["remaining"])),
            Text(money_text(limit["limit"])),
            Text(" ".join((limit["source"], *(limit["scope"] or {}).values()))),
        )
        for limit in limits
    ]
    yield from table(_LIMIT_COLUMNS, rows, width, 5)


def _promotion_lines(promotions: Sequence[Json], width: int) -> Iterator[Text]:
    rows = [
        (
            Text(one_line(promotion["promotion_id"])),
            Text("" if promotion["value"] is None else money_text(promotion["value"])),
            Text(f"{promotion['code']}: {one_line(promotion['sentence'])}"),
        )
        for promotion in promotions
    ]
    if rows:
        yield from table(_PROMOTION_COLUMNS, rows, width, 5)


def _part_lines(parts: Sequence[Json], width: int) -> Iterator[Text]:
    rows = [
        (Text(part["term"]), Text(f"{part['score']:,}"), Text(f"{part['value_bps']:,}"), Text(f"{part['weight']:,}"))
        for part in parts
        if part["score"]
    ]
    total = sum(part["score"] for part in parts)
    yield from table(_PART_COLUMNS, [*rows, (Text("sum"), Text(f"{total:,}", style="bold"), Text(), Text())], width, 5)


def _route_lines(route: Json, width: int) -> Iterator[Text]:
    tried = ", ".join(f"{rule['rule']}{'' if rule['matches'] else ' (no)'}" for rule in route["rules"])
    yield from paragraph(Text.assemble(("route  ", "dim"), one_line(route["sentence"])), width, 5, 2)
    yield from paragraph(Text.assemble(("rules tried  ", "dim"), tried), width, 5, 2)
