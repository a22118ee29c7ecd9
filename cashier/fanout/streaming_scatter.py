"""Unfolding: a scatter of which more is wanted than its end, namely what is in so far, as often as something has come.

Apart from `scatter`, so that those who want the end only do not pay for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from cashier.fanout.ask import SourceStatus
from cashier.fanout.pending_ask import NEVER_NS, PendingAsk
from cashier.fanout.scatter import Scatter, ScatterResult
from cashier.source_errors import Missing, MissingCause


class StreamingScatter(Scatter):
    """One consultation on its way: `start` it, take what is in `so_far` after each `change` until it is `over`, and `close` it always.

    It ends as any scatter does, whether or not somebody is waiting for a change just then.
    """

    __slots__ = ("_news",)

    _news: bool

    def start(self, known: Mapping[str, Any]) -> None:
        self._news = False
        super().start(known)

    async def change(self) -> None:
        """Return when something has ended since what was last taken, at once if something has; when it is over, always at once.

        What arrives in one turn of the loop is one change.
        """
        if not self._news and not self.over:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def so_far(self) -> ScatterResult:
        """As `gathered`, now. What may still come is Missing(PENDING); what was not asked yet is reported as beginning now.

        Once it is over nothing is PENDING any more, and this is what was gathered. Raises the bug that ended it, if one did.
        """
        self._news = False
        settled = self._answers.copy()
        found = self.gathered()
        if not self.over:
            self._answers = settled  # `conclusive` is shown what has ended, and this has not
        return found

    def _settle(self, slot: PendingAsk, outcome: Any, status: SourceStatus, now_ns: int) -> None:
        super()._settle(slot, outcome, status, now_ns)
        self._news = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _unsettled(self, slot: PendingAsk) -> SourceStatus:
        if self.over:
            return super()._unsettled(slot)
        slot.ended_ns = self._clock_ns()
        if slot.expires_ns == NEVER_NS:
            slot.started_ns = slot.ended_ns
        self._answers[slot.ask.name] = Missing(slot.ask.name, MissingCause.PENDING)
        return SourceStatus.PENDING
