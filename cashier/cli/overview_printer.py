"""The overview of the operations port in a terminal: what needs attention, then the worst first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

from rich.text import Text

from cashier.cli.layout import Column, one_line, paragraph, table
from cashier.ops.overview import (
    AnswerCount,
    Attention,
    ConfigurationOverview,
    ConsultationsOverview,
    Health,
    ListedPayment,
    MethodCount,
    Overview,
    PaymentsOverview,
    RuntimeOverview,
    SourceOverview,
)

# The health is a word, too: a colour alone says nothing to many, and to a pipe.
_STYLES = {Health.BAD: "bold red", Health.WARN: "yellow", Health.GOOD: "green", Health.IDLE: "dim"}
_OFFERED = "AVAILABLE"
_UNDETERMINED = "UNDETERMINED"
_MOST_PAYMENTS = 5
# With the least width of a terminal that has them. What a narrow one lacks is in the console.
_SOURCE_COLUMNS = (
    (0, Column("source")),
    (0, Column("state")),
    (0, Column("asks/s", right=True)),
    (0, Column("silent", right=True)),
    (50, Column("p50 ms", right=True)),
    (0, Column("p99 ms", right=True)),
    (75, Column("cached", right=True)),
    (75, Column("breaker")),
    (95, Column("in flight", right=True)),
    (110, Column("hedges/s", right=True)),
    (120, Column("timeout ms", right=True)),
    (140, Column("extra calls", right=True)),
    (0, Column("reasons", least=24, detail=True)),
)
_PAYMENT_COLUMNS = (Column("unknown payment"), Column("order"), Column("kind", detail=True), Column("age", right=True))


def overview_lines(overview: Overview, width: int) -> Iterator[Text]:
    """All lines fit `width` but those with an address."""
    yield from _consultation_lines(overview.consultations, overview.window_s, width)
    yield Text()
    yield from _attention_lines(overview.attention, width)
    yield Text()
    yield from _source_lines(overview.sources, width)
    yield from _endpoint_lines(overview.sources, width)
    yield Text()
    yield from _method_lines(overview.methods, width)
    yield from _payment_lines(overview.payments, width)
    yield from _runtime_lines(overview.runtime, width)
    if overview.configuration is not None:
        yield from _configuration_lines(overview.configuration, overview.at, width)


def _consultation_lines(consultations: ConsultationsOverview, window_s: float, width: int) -> Iterator[Text]:
    quantiles = consultations.quantiles
    parts = [
        Text.assemble(("consultations ", "bold"), f"{_rate(consultations.rate)}/s"),
        _labelled("p50", _ms(quantiles.p50_ms)),
        _labelled("p95", _ms(quantiles.p95_ms)),
        _labelled("p99", f"{_ms(quantiles.p99_ms)} ms"),
        _labelled("in time", _share(consultations.within_deadline)),
        _labelled("answered", _share(consultations.answered)),
    ]
    yield from _flow(parts, width)
    outcomes = [_labelled(_word(name), f"{_rate(rate)}/s") for name, rate in consultations.outcomes.items() if rate]
    outcomes.append(Text(f"(the last {window_s:.0f} s)", style="dim"))
    yield from _flow(outcomes, width)


def _attention_lines(attention: Iterable[Attention], width: int) -> Iterator[Text]:
    found = list(attention)
    if not found:
        yield Text("Nothing needs attention.", style="green")
    for each in found:
        head = Text.assemble((f"{each.health:<5}", _STYLES[each.health]), (f"{one_line(each.subject)}: ", "bold"))
        yield from paragraph(Text.assemble(head, one_line(each.finding)), width, hanging=5)
        yield from paragraph(Text(one_line(each.action), style="dim"), width, indent=5)


def _source_lines(sources: Sequence[SourceOverview], width: int) -> Iterator[Text]:
    shown = [place for place, (least, _) in enumerate(_SOURCE_COLUMNS) if width >= least]
    worst_first = sorted(sources, key=lambda source: (list(Health).index(source.health), -source.bad))
    rows = [tuple(row[place] for place in shown) for row in map(_source_row, worst_first)]
    if rows:
        yield from table([_SOURCE_COLUMNS[place][1] for place in shown], rows, width, indent=0)


def _source_row(source: SourceOverview) -> tuple[Text, ...]:
    reasons = (f"{one_line(each.reason or each.status)} {_share(each.share)}" for each in _bad_answers(source))
    extra = f"{source.extra_calls}/{source.extra_calls_allowed:.0f}"
    in_flight = f"{source.in_flight}" if source.limit is None else f"{source.in_flight}/{source.limit}"
    return (
        Text(one_line(source.name), style="bold"),
        Text(source.health, style=_STYLES[source.health]),
        Text(_rate(source.rate)),
        Text(_share(source.bad) if source.rate else "-", style=_STYLES[Health.BAD] if source.bad >= 0.2 else ""),
        Text(_ms(source.quantiles.p50_ms)),
        Text(_ms(source.quantiles.p99_ms)),
        Text(_share(source.cache_hit_ratio)),
        Text(_word(source.breaker), style="" if source.breaker == "CLOSED" else _STYLES[Health.BAD]),
        Text(in_flight),
        Text(_rate(source.calls.get("hedge", 0.0))),
        Text(f"{source.timeout_ms}"),
        Text(extra),
        Text(", ".join(reasons)),
    )


def _bad_answers(source: SourceOverview) -> Iterator[AnswerCount]:
    """The most frequent three ends without an answer."""
    bad = [each for each in source.answers if each.reason and each.share]
    yield from sorted(bad, key=lambda each: -each.share)[:3]


def _endpoint_lines(sources: Iterable[SourceOverview], width: int) -> Iterator[Text]:
    """The addresses that are not well, with the last failure of their source."""
    for source in sources:
        for endpoint in source.endpoints:
            if endpoint.health in (Health.GOOD, Health.IDLE):
                continue
            state = f"breaker {_word(endpoint.breaker)} in {endpoint.open_in} of {endpoint.workers} workers"
            where = (one_line(source.name), "bold"), f" {one_line(endpoint.address)}  {state}"
            yield from paragraph(
                Text.assemble((f"{endpoint.health:<5}", _STYLES[endpoint.health]), *where), width, 0, 5
            )
        if source.health in (Health.BAD, Health.WARN) and source.failures:
            failure = source.failures[0]
            last = f"{_age(failure.age_s)} ago: {one_line(failure.reason)}, {one_line(failure.detail)}"
            yield from paragraph(Text.assemble((one_line(source.name), "bold"), f" last failed {last}"), width, 5)


def _method_lines(methods: Iterable[MethodCount], width: int) -> Iterator[Text]:
    """Per kind: methods available a second, and undetermined ones."""
    offered: dict[str, float] = {}
    undetermined: dict[str, float] = {}
    for method in methods:
        offered.setdefault(method.kind, 0.0)
        if method.availability == _OFFERED:
            offered[method.kind] += method.rate
        elif method.availability == _UNDETERMINED:
            undetermined[method.kind] = undetermined.get(method.kind, 0.0) + method.rate
    parts = [Text("offers/s", style="bold")]
    for kind, rate in sorted(offered.items(), key=lambda item: -item[1]):
        lost = undetermined.get(kind, 0.0)
        part = _labelled(one_line(kind), _rate(rate))
        parts.append(Text.assemble(part, (f" +{_rate(lost)} undetermined", _STYLES[Health.WARN])) if lost else part)
    if len(parts) > 1:
        yield from _flow(parts, width)


def _payment_lines(payments: PaymentsOverview, width: int) -> Iterator[Text]:
    if not payments.configured:
        yield from _flow([Text("payments", style="bold"), Text("not configured", style="dim")], width)
        return
    parts = [Text("payments", style="bold"), _labelled("live", str(payments.live))]
    unknown = _labelled("unknown", str(payments.unknown))
    if payments.unknown_oldest_s is not None:
        unknown.append(f", the oldest for {_age(payments.unknown_oldest_s)}")
        unknown.stylize(_STYLES[Health.WARN])
    parts.append(unknown)
    by_status: dict[str, float] = {}
    for count in payments.counts:
        by_status[count.status] = by_status.get(count.status, 0.0) + count.rate
    parts += [_labelled(_word(status), f"{_rate(rate)}/s") for status, rate in by_status.items() if rate]
    yield from _flow(parts, width)
    unsettled = [each for each in payments.listed if each.payment.unknown]
    rows = [tuple(map(Text, _payment_cells(each))) for each in unsettled[:_MOST_PAYMENTS]]
    if rows:
        yield from table(_PAYMENT_COLUMNS, rows, width, indent=1)
        yield from paragraph(Text(one_line(unsettled[0].action), style="dim"), width, 1)
    if len(unsettled) > _MOST_PAYMENTS:
        yield Text(f" {len(unsettled) - _MOST_PAYMENTS} more are in the console.", style="dim")


def _payment_cells(listed: ListedPayment) -> Iterator[str]:
    payment = listed.payment
    yield from map(one_line, (payment.payment_id, payment.order_id, payment.kind))
    yield _age(listed.age_s)


def _runtime_lines(runtime: RuntimeOverview, width: int) -> Iterator[Text]:
    silent = sum(not worker.reports for worker in runtime.workers)
    workers = f"{len(runtime.workers)}" + (f", {silent} silent" if silent else "")
    refused = sum(count.rate for count in runtime.refused)
    parts = [
        Text.assemble(("workers ", "bold"), (workers, _STYLES[Health.BAD] if silent else "")),
        _labelled("restarts", str(runtime.restarts)),
        _labelled("loop lag p99", f"{_ms(runtime.loop_lag.p99_ms)} ms"),
        _labelled("queue p99", f"{_ms(runtime.queue_wait.p99_ms)} ms"),
        _labelled("shedding", _word(runtime.step)),
        Text.assemble(("refused ", "dim"), (f"{_rate(refused)}/s", _STYLES[Health.BAD] if refused else "")),
        _labelled("version", one_line(runtime.version)),
    ]
    yield from _flow(parts, width)


def _configuration_lines(configuration: ConfigurationOverview, now_s: float, width: int) -> Iterator[Text]:
    last = configuration.state.reloads[0]
    result = f"{_word(last.result)} {_age(max(0.0, now_s - last.at))} ago"
    parts = [
        Text("configuration", style="bold"),
        Text(result, style="" if last.result == "APPLIED" else _STYLES[Health.WARN]),
        _labelled("digest", one_line(last.digest)),
    ]
    yield from _flow(parts, width)
    for fault in last.faults:
        yield from paragraph(Text(one_line(fault), style=_STYLES[Health.WARN]), width, 5)


def clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S UTC")


def _flow(parts: Iterable[Text], width: int) -> Iterator[Text]:
    """Parts side by side, as many as fit into a line; later lines are indented."""
    line = Text()
    for part in parts:
        if line.plain and line.cell_len + 2 + part.cell_len > width:
            yield line
            line = Text("  ")
            line.append_text(part)
        else:
            line = Text.assemble(line, "  ", part) if line.plain else part.copy()
    yield line


def _labelled(label: str, value: str) -> Text:
    return Text.assemble((f"{label} ", "dim"), value)


def _word(code: str) -> str:
    return one_line(code).lower().replace("_", " ")


def _rate(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 100 or rate == 0 else f"{rate:.1f}"


def _ms(ms: float | None) -> str:
    if ms is None:
        return "-"
    return f"{ms:.0f}" if ms >= 10 else f"{ms:.1f}"


def _share(share: float | None) -> str:
    """Never 100 % of what is only nearly all, nor 0 % of what is only nearly none."""
    if share is None:
        return "-"
    percent = share * 100
    for digits in (0, 1, 2):
        text = f"{percent:.{digits}f}"
        if float(text) not in (0.0, 100.0) or percent in (0.0, 100.0):
            return f"{text} %"
    return "<0.01 %" if percent < 50 else ">99.99 %"


def _age(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7_200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3_600:.0f} h"
