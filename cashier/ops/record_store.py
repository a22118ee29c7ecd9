"""What workers have reported within the last hour, in bounded memory.

Records stay when their worker has ended, and so do the payments that it left unsettled. Records of
good consultations, which a caller may sample without end, take no more than half of the memory
where there are bad ones to keep.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from heapq import merge
from itertools import count

import msgspec
from msgspec import Struct

from cashier.ops.step_store import StepStore
from cashier.telemetry.records import ConsultationRecord, Verdict
from cashier.telemetry.worker_state import LivePayment, WorkerState

KEPT_S = 3_600.0
MOST_BYTES = 64 << 20
MOST_PAYMENTS = 10_000


class _Kept(Struct, frozen=True, gc=False):
    """A record as JSON: a tenth of the memory of its objects. `at_s`: by the monotonic clock.

    `number`: of all records, in the order in which they came.
    """

    number: int
    at_s: float
    order_id: str
    request_id: str
    body: bytes


# Of one kept record beside its body.
_ENTRY_BYTES = 400


class _Ring:
    """Records of one sort, the oldest first."""

    __slots__ = ("bytes_held", "kept")

    def __init__(self) -> None:
        self.kept: deque[_Kept] = deque()
        self.bytes_held = 0

    def put(self, kept: _Kept) -> None:
        self.kept.append(kept)
        self.bytes_held += len(kept.body) + _ENTRY_BYTES

    def drop_oldest(self) -> None:
        self.bytes_held -= len(self.kept.popleft().body) + _ENTRY_BYTES


class PaymentFate(StrEnum):
    """LIVE: its worker looks after it. ENDED: it does not any more, mostly because it is final.

    LEFT: the worker has gone, so the payment waits for its next caller.
    """

    LIVE = "LIVE"
    ENDED = "ENDED"
    LEFT = "LEFT"


class UnsettledPayment(Struct, frozen=True):
    """A payment that had no final status when its worker last named it.

    `worker`: its process id. `seen_at`: seconds since 1970.
    """

    payment: LivePayment
    worker: int
    seen_at: float
    fate: PaymentFate


class RecordStore:
    """Belongs to the event loop of the operations port. `steps`: of payments."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, most_bytes: int = MOST_BYTES) -> None:
        self._monotonic = monotonic
        self._most_bytes = most_bytes
        self._numbers = count()
        self._bad, self._good = _Ring(), _Ring()
        self._decoder = msgspec.json.Decoder(ConsultationRecord)
        self.steps = StepStore(monotonic)
        self._payments: OrderedDict[str, tuple[float, UnsettledPayment]] = OrderedDict()  # the oldest first
        # The last state of each worker that is connected, by process id.
        self.states: dict[int, WorkerState] = {}

    def __repr__(self) -> str:
        records = len(self._bad.kept) + len(self._good.kept)
        return f"<RecordStore {records} records, {self.bytes_held} bytes, {len(self.states)} workers>"

    @property
    def bytes_held(self) -> int:
        return self._bad.bytes_held + self._good.bytes_held

    def put_record(self, record: ConsultationRecord, body: bytes) -> None:
        """`body`: the record as JSON."""
        ring = self._good if record.verdicts == (Verdict.SAMPLED,) else self._bad
        ring.put(_Kept(next(self._numbers), self._monotonic(), record.order_id, record.request_id, body))
        self._expire()

    def put_state(self, state: WorkerState) -> None:
        before = self.states.get(state.pid)
        self.states[state.pid] = state
        named = {each.payment_id: each for each in _listed(state)}
        # A worker names only so many: one that is not named may be live all the same.
        names_all = state.payments is None or state.payments.live <= len(named)
        if before is not None and names_all:
            for each in _listed(before):
                if each.payment_id not in named:
                    self._set_fate(each.payment_id, PaymentFate.ENDED)
        now_s = self._monotonic()
        for payment_id, payment in named.items():
            self._payments[payment_id] = now_s, UnsettledPayment(payment, state.pid, state.at, PaymentFate.LIVE)
            self._payments.move_to_end(payment_id)
        self._expire()

    def worker_left(self, pid: int) -> None:
        """The worker has ended, or its connection has."""
        state = self.states.pop(pid, None)
        if state is not None:
            for each in _listed(state):
                self._set_fate(each.payment_id, PaymentFate.LEFT)

    def records(
        self, *, order_id: str | None = None, request_id: str | None = None, bad: bool | None = None
    ) -> Iterator[ConsultationRecord]:
        """The records of the last hour, the latest first; of one order or request, if named.

        `bad`: of bad consultations only, or of good ones only.
        """
        self._expire()
        rings = [ring for ring, is_bad in ((self._bad, True), (self._good, False)) if bad in (None, is_bad)]
        for kept in merge(*(tuple(reversed(ring.kept)) for ring in rings), key=lambda kept: -kept.number):
            if order_id in (None, kept.order_id) and request_id in (None, kept.request_id):
                yield self._decoder.decode(kept.body)

    def payments(self) -> list[UnsettledPayment]:
        """The unsettled payments of the last hour, those seen last first."""
        self._expire()
        return [payment for _, payment in reversed(self._payments.values())]

    def _set_fate(self, payment_id: str, fate: PaymentFate) -> None:
        if (seen := self._payments.get(payment_id)) is not None:
            self._payments[payment_id] = seen[0], msgspec.structs.replace(seen[1], fate=fate)

    def _expire(self) -> None:
        oldest_s = self._monotonic() - KEPT_S
        for ring in (self._bad, self._good):
            while ring.kept and ring.kept[0].at_s < oldest_s:
                ring.drop_oldest()
        while self.bytes_held > self._most_bytes:
            good_has_more = self._good.bytes_held > self._most_bytes // 2 or not self._bad.kept
            (self._good if good_has_more else self._bad).drop_oldest()
        payments = self._payments
        while payments and (next(iter(payments.values()))[0] < oldest_s or len(payments) > MOST_PAYMENTS):
            payments.popitem(last=False)


def record_key(record: ConsultationRecord) -> str:
    """A key that is safe in a path and in a file name: clients choose request ids."""
    text = f"{record.worker} {record.request_id} {record.started_at.timestamp()} {record.order_id}"
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


def _listed(state: WorkerState) -> Sequence[LivePayment]:
    return () if state.payments is None else state.payments.listed
