"""The waterfall of a recorded consultation: each ask and call in time, against the deadline."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from cashier.telemetry.records import CallRecord, ConsultationRecord, SourceRecord

# Units of the drawing's width.
WIDTH = 1000
# Room right of the later of deadline and end.
_MARGIN = 1.04
_AT_ONCE_MS = 0.1
_BAD = frozenset({"TIMEOUT", "ERROR", "GARBLED", "WRONG_IDENTITY", "SHED", "BREAKER_OPEN"})


class Bar(Struct, frozen=True):
    """`x`, `width`: in units of the drawing. `mood`: classes of the style sheet."""

    x: float
    width: float
    mood: str
    text: str


class WaterfallRow(Struct, frozen=True):
    """One source: the ask, then each of its calls."""

    source: SourceRecord
    is_bad: bool
    ask: Bar
    calls: tuple[Bar, ...]


class Waterfall(Struct, frozen=True):
    """`deadline_x`, `end_x`: in units of the drawing. `ticks`: position and text."""

    rows: tuple[WaterfallRow, ...]
    deadline_x: float
    end_x: float
    ticks: tuple[tuple[float, str], ...]

    @property
    def waited(self) -> tuple[WaterfallRow, ...]:
        """Without the sources that answered at once, from the cache."""
        return tuple(row for row in self.rows if row.is_bad or row.source.elapsed_ms >= _AT_ONCE_MS)


def waterfall(record: ConsultationRecord) -> Waterfall:
    """The source that took longest first."""
    span_ms = max(record.deadline_ms, record.elapsed_ms, 1.0) * _MARGIN

    def x(ms: float) -> float:
        return round(max(0.0, min(ms, span_ms)) / span_ms * WIDTH, 1)

    def bar(started_ms: float, ended_ms: float, mood: str, text: str) -> Bar:
        left = x(started_ms)
        return Bar(left, max(3.0, round(x(ended_ms) - left, 1)), mood, text)

    def call_bar(call: CallRecord) -> Bar:
        ended_ms = record.elapsed_ms if call.ended_ms is None else call.ended_ms
        return bar(call.started_ms, ended_ms, f"{call.kind.lower()} {call.outcome.lower()}", call_text(call))

    rows = [
        WaterfallRow(
            source,
            is_bad(source),
            bar(
                source.started_ms,
                source.started_ms + source.elapsed_ms,
                "bad" if is_bad(source) else source.status.lower(),
                f"{source.name}: {source.status} after {source.elapsed_ms:.1f} ms",
            ),
            tuple(map(call_bar, source.calls)),
        )
        for source in record.sources
    ]
    rows.sort(key=lambda row: (not row.is_bad, -(row.source.started_ms + row.source.elapsed_ms)))
    step = _step(span_ms)
    ticks = tuple((x(at), f"{at:g}") for at in _range(step, span_ms))
    return Waterfall(tuple(rows), x(record.deadline_ms), x(record.elapsed_ms), ticks)


def is_bad(source: SourceRecord) -> bool:
    return source.status.value in _BAD


def call_text(call: CallRecord) -> str:
    ended: Any = "still running" if call.ended_ms is None else f"{call.outcome.lower()} at {call.ended_ms:.1f} ms"
    reason = f", {call.reason}" if call.reason else ""
    return f"{call.kind.lower()} call to {call.endpoint}: from {call.started_ms:.1f} ms, {ended}{reason}"


def _step(span_ms: float) -> float:
    """So that four to nine marks fit."""
    step = 1.0
    while span_ms / step > 9:
        step *= 2 if str(step)[0] in "15" else 2.5
    return step


def _range(step: float, span_ms: float) -> list[float]:
    return [index * step for index in range(int(span_ms / step) + 1)]
