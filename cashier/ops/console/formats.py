"""Numbers, times and lines as the pages show them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from markupsafe import Markup

from cashier.ops.percent import percent

NOTHING = "–"
_WIDTH, _HEIGHT = 120, 24


def ms(value: float | None) -> str:
    """Milliseconds. A second is the last bound of the buckets, so more is not known."""
    if value is None:
        return NOTHING
    if value >= 1000:
        return f"{value / 1000:.1f} s"
    return f"{value:.0f} ms" if value >= 100 else f"{value:.1f} ms"


def quantile(value: float | None) -> str:
    return "≥ 1 s" if value is not None and value >= 1000 else ms(value)


def rate(value: float | None) -> str:
    if value is None:
        return NOTHING
    if value == 0:
        return "0"
    if value < 0.05:
        return "< 0.1"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def share(value: float | None) -> str:
    return NOTHING if value is None else percent(value)


def age(seconds: float | None) -> str:
    if seconds is None:
        return NOTHING
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def clock(at: float | datetime | None) -> str:
    """The time of day in UTC."""
    moment = _moment(at)
    return NOTHING if moment is None else moment.strftime("%H:%M:%S")


def day_and_clock(at: float | datetime | None) -> str:
    moment = _moment(at)
    return NOTHING if moment is None else moment.strftime("%Y-%m-%d %H:%M:%S UTC")


def number(value: int | float | None) -> str:
    return NOTHING if value is None else f"{value:,.0f}"


def spark(values: Sequence[float | None], label: str) -> Markup:
    """A line through the values, scaled to the largest. `label`: for those who do not see it."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return Markup('<span class="dim">collecting…</span>')
    top = max(known) or 1.0
    step = _WIDTH / (len(values) - 1)
    points = " ".join(
        f"{index * step:.1f},{_HEIGHT - 2 - (value / top) * (_HEIGHT - 4):.1f}"
        for index, value in enumerate(values)
        if value is not None
    )
    return Markup(
        '<svg class="spark" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">'
        '<polyline points="{}" /></svg>'
    ).format(_WIDTH, _HEIGHT, label, points)


def meter(part: float, label: str, mood: str = "") -> Markup:
    """A bar of which `part`, from 0 to 1, is filled."""
    filled = max(0.0, min(1.0, part)) * 100
    return Markup(
        '<svg class="meter {}" viewBox="0 0 100 8" preserveAspectRatio="none" role="img" aria-label="{}">'
        '<rect class="rail" width="100" height="8" /><rect class="fill" width="{:.1f}" height="8" /></svg>'
    ).format(mood, label, filled)


def _moment(at: float | datetime | None) -> datetime | None:
    return datetime.fromtimestamp(at, UTC) if isinstance(at, int | float) else at
