"""A figure against its bar as an SVG strip: bar in the middle, better to the left, log scale."""

from __future__ import annotations

import math

from benchmarks.performance_targets import BarResult, Verdict

_WIDTH = 150
_HEIGHT = 18
# Factors of two from the middle to an end.
_STEPS = 3.0


def strip_svg(judged: BarResult) -> str:
    """Empty without a figure, or if a factor has no meaning (not positive, or yes and no)."""
    bar, figure, counts = judged.bar, judged.figure, judged.judged_value
    if figure is None or counts is None or min(figure.low, counts) <= 0 or bar.key.endswith(".flat"):
        return ""
    colour = "var(--met)" if judged.verdict is Verdict.MET else "var(--missed)"
    low, high = (_at(value, bar.now, bar.higher_is_better) for value in (figure.low, figure.high))
    middle = _HEIGHT / 2
    parts = [
        f'<line x1="0" x2="{_WIDTH}" y1="{middle}" y2="{middle}" stroke="var(--grid)" stroke-width="2"/>',
        f'<line x1="{_WIDTH / 2}" x2="{_WIDTH / 2}" y1="1" y2="{_HEIGHT - 1}" stroke="var(--ink)" stroke-width="2"/>',
    ]
    if bar.goal:
        at = _at(bar.goal, bar.now, bar.higher_is_better)
        dashed = 'stroke="var(--muted)" stroke-width="1.5" stroke-dasharray="2 2"'
        parts.append(f'<line x1="{at}" x2="{at}" y1="4" y2="{_HEIGHT - 4}" {dashed}/>')
    spread = f'stroke="{colour}" stroke-width="4" stroke-opacity="0.4"'
    parts.append(f'<line x1="{low}" x2="{high}" y1="{middle}" y2="{middle}" {spread}/>')
    parts.append(f'<circle cx="{_at(counts, bar.now, bar.higher_is_better)}" cy="{middle}" r="5" fill="{colour}"/>')
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" aria-hidden="true">{"".join(parts)}</svg>'


def _at(value: float, mark: float, higher: bool) -> float:
    steps = math.log2(mark / value if higher else value / mark)
    return round(_WIDTH / 2 + max(-_STEPS, min(_STEPS, steps)) / _STEPS * (_WIDTH / 2 - 6), 1)
