"""What the live views of the operations port share: the console, `/api/overview`, `cashier top`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from cashier.metrics.snapshot import Snapshot
from cashier.ops.history import SnapshotHistory
from cashier.ops.overview import Overview
from cashier.ops.overview_builder import build_overview
from cashier.ops.record_store import UnsettledPayment
from cashier.ops.sessions import Sessions
from cashier.payments.step_feed import PaymentStep
from cashier.telemetry.records import ConsultationRecord
from cashier.telemetry.worker_state import WorkerState


class FindRecords(Protocol):
    """Recorded consultations, the latest first."""

    def __call__(self, *, request_id: str | None = None, bad: bool | None = None) -> Iterator[ConsultationRecord]:
        """All, or those of one request; `bad`: of bad or of good consultations only."""


class LiveState:
    """`take`: the numbers of all workers now. `states`: the last one of each connected worker.

    `unsettled`: the payments of the last hour. `steps`: of one payment, by its id. `stopping`:
    ends streams.
    """

    def __init__(
        self,
        take: Callable[[], Snapshot],
        states: Callable[[], Iterable[WorkerState]],
        records: FindRecords,
        stopping: asyncio.Event,
        unsettled: Callable[[], Iterable[UnsettledPayment]] = tuple,
        steps: Callable[[str], Sequence[PaymentStep]] = lambda _: (),
        now: Callable[[], float] = time.time,
    ) -> None:
        self.records = records
        self.steps = steps
        self.stopping = stopping
        self.sessions = Sessions()
        self.history = SnapshotHistory(take)
        self._states = states
        self._unsettled = unsettled
        self._now = now

    def __repr__(self) -> str:
        return f"<LiveState {self.history!r} {self.sessions!r}>"

    def overview(self) -> Overview:
        return build_overview(self.history, self._states(), self._unsettled(), self._now())
