"""QR codes as SVG, drawn once per content, in a thread: a code takes a millisecond of CPU.

Dark on light in every theme and with four modules of quiet zone, as ISO/IEC 18004 wants it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict

import segno
from anyio import to_thread
from markupsafe import Markup

_QUIET_MODULES = 4
# The search for the best of eight masks takes longer than all the rest. Scanners read each of them.
_MASK = 3
# A payment shows its code again and again while it is paid. A code has 4 to 20 KB.
_MOST_KEPT = 1_000
# What the largest symbol of level M holds.
MAX_BYTES = 2_331


class QrCodes:
    """The codes that were drawn last."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Markup] = OrderedDict()
        self._drawing: dict[str, asyncio.Future[Markup]] = {}

    def __repr__(self) -> str:
        return f"<QrCodes kept={len(self._kept)} drawing={len(self._drawing)}>"

    async def svg(self, content: str) -> Markup | None:
        """None for a content that no code holds. The caller adds a text alternative beside it."""
        if not content or len(content.encode()) > MAX_BYTES:
            return None
        kept = self._kept.get(content)
        if kept is not None:
            self._kept.move_to_end(content)
            return kept
        return await asyncio.shield(self._drawing.get(content) or self._draw(content))

    def _draw(self, content: str) -> asyncio.Future[Markup]:
        drawing = asyncio.ensure_future(to_thread.run_sync(draw, content))
        self._drawing[content] = drawing
        drawing.add_done_callback(lambda done: self._keep(content, done))
        return drawing

    def _keep(self, content: str, done: asyncio.Future[Markup]) -> None:
        del self._drawing[content]
        if done.cancelled() or done.exception() is not None:
            return
        self._kept[content] = done.result()
        if len(self._kept) > _MOST_KEPT:
            self._kept.popitem(last=False)


def draw(content: str) -> Markup:
    """An `<svg>` of one path. Nothing of the content is in its text."""
    rows = segno.make_qr(content, error="m", boost_error=False, mask=_MASK).matrix
    side = len(rows) + 2 * _QUIET_MODULES
    path = "".join(_runs(row, number + _QUIET_MODULES) for number, row in enumerate(rows))
    return Markup(  # noqa: S704 - of numbers only
        f'<svg viewBox="0 0 {side} {side}" shape-rendering="crispEdges" aria-hidden="true">'
        f'<path fill="#fff" d="M0 0h{side}v{side}H0z"/><path fill="#000" d="{path}"/></svg>'
    )


def _runs(row: bytearray, y: int) -> str:
    """Each run of dark modules as a rectangle."""
    parts, start = [], 0
    for x in range(len(row) + 1):
        dark = x < len(row) and row[x]
        if not dark:
            if x > start:
                parts.append(f"M{start + _QUIET_MODULES} {y}h{x - start}v1h-{x - start}z")
            start = x + 1
    return "".join(parts)
