"""Plans as lines for a terminal: the worst case of each source and of a request."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from cashier.cli.layout import Column, paragraph, table
from cashier.consultation.plan_report import plan_report
from cashier.core import Cashier
from cashier.fanout.cache_lifetime import CacheSettings

_COLUMNS = (
    Column("source"),
    Column("class"),
    Column("needs", least=20, detail=True, label="needs: "),
    Column("timeout", right=True),
    Column("ends by", right=True),
    Column("ends by,\norder first", right=True),
    Column("calls", right=True),
    Column("in flight\nper worker", right=True),
    Column("cached", least=20, detail=True, label="cached: "),
)


def plan_lines(cashier: Cashier, width: int) -> Iterator[Text]:
    report = plan_report(cashier.plan, cashier.config.settings)
    rows = []
    for line in report.lines:
        calls = f"1 per ≤ {line.batch}" if line.batch else f"1 to {line.calls}" if line.calls > 1 else "1"
        most = "any" if line.max_in_flight is None else f"≤ {line.max_in_flight}"
        cells = (
            line.name,
            line.importance.value,
            ", ".join(line.needs),
            f"{line.timeout_ms} ms",
            f"{line.ends_ms} ms",
            f"{line.ends_without_claims_ms} ms",
            calls,
            most,
            _cache_ages(line.cache),
        )
        rows.append(tuple(map(Text, cells)))
    yield from table(_COLUMNS, rows, width, indent=0)
    sentences = (
        f"The fan-out of a consultation ends after {report.worst_ms} ms at the latest, whatever the sources do."
        f" Every call is cut off at {report.deadline_ms - report.reserve_ms} ms, the deadline ({report.deadline_ms} ms)"
        f" less the reserve for our own work ({report.reserve_ms} ms), even where the table shows a later end."
        " The order comes first unless the request claims amount and country.",
        f"It makes {report.usual_calls} calls, and at most {report.worst_calls} with a hedge or a retry of each."
        f" Over ten seconds hedges and retries add at most {report.extra_bps / 100:g} % to a source's calls,"
        " or one call a second.",
        _payments(cashier, report.usual_calls),
    )
    for sentence in sentences:
        yield Text()
        yield from paragraph(Text(sentence), width)


def _payments(cashier: Cashier, source_calls: int) -> str:
    if cashier.payments is None:
        return "Payments are off: they need risk, engine and acquirer under [sources]."
    accept = cashier.config.settings.accept
    return (
        f"A submit looks the payment up at the engine (at most {accept.look_ms} ms), asks the sources again"
        f" without cache ({accept.check_ms} ms), asks risk ({accept.decide_ms} ms) and sends ({accept.submit_ms} ms):"
        f" {source_calls + 3} calls, and one to the acquirer where the engine's answer is final."
    )


def _cache_ages(cache: CacheSettings) -> str:
    if not cache.on:
        return "never"
    return f"{_duration(cache.fresh_s)} fresh, {_duration(cache.stale_s)} stale, {_duration(cache.error_s)} on error"


def _duration(seconds: float) -> str:
    if seconds >= 60 and seconds % 60 == 0:
        return f"{seconds / 60:g} min" if seconds < 3600 or seconds % 3600 else f"{seconds / 3600:g} h"
    return f"{seconds:g} s"
