"""A scatter with snapshots of its intermediate results.

Apart from `scatter`, so that plain scatters do not pay for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from cashier.fanout.ask import SourceStatus
from cashier.fanout.ask_state import NEVER_NS, PendingAsk
from cashier.fanout.scatter import Scatter, ScatterResult
from cashier.source_errors import Missing, MissingCause


class StreamingScatter(Scatter):
    """One scatter: `start`, a `snapshot` after each `change` until `ended`, always `close`.

    It ends like any scatter, whether or not a caller awaits a change at that moment.
    """

    __slots__ = ("_changed",)

    _changed: bool

    def start(self, known: Mapping[str, Any]) -> None:
        self._changed = False
        super().start(known)

    async def change(self) -> None:
        """Wait until an ask has ended since the last snapshot. Returns at once after the end.

        All outcomes of one loop turn are one change.
        """
        if not self._changed and not self.ended:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def snapshot(self) -> ScatterResult:
        """Return the result so far; after the end, the `result`.

        Asks in progress are Missing(PENDING). Those not started report the present as their start.
        Raises the bug that ended the scatter, if any.
        """
        self._changed = False
        settled = self._answers.copy()
        result = self.result()
        if not self.ended:
            # Without the PENDING entries: `conclusive` takes settled answers only.
            self._answers = settled
        return result

    def _settle(self, pending: PendingAsk, outcome: Any, status: SourceStatus, now_ns: int) -> None:
        super()._settle(pending, outcome, status, now_ns)
        self._changed = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _unsettled(self, pending: PendingAsk) -> SourceStatus:
        if self.ended:
            return super()._unsettled(pending)
        pending.ended_ns = self.clock_ns()
        if pending.expires_ns == NEVER_NS:
            pending.started_ns = pending.ended_ns
        self._answers[pending.ask.name] = Missing(pending.ask.name, MissingCause.PENDING)
        return SourceStatus.PENDING
