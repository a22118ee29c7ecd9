"""Background queries: look on after a payment that this worker sent, also when its payer has left.

At the pace of the payment's kind. A query of a caller counts as one of these, so a payment that is
watched is not queried twice. A query also reverses what is due: a scanned code after 45 s, though
the till has gone away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

from msgspec import Struct
from msgspec.structs import replace

from cashier.domain.pay_method import Kind
from cashier.domain.payment_state import PaymentEvent, PaymentStatus
from cashier.domain.status_resolution import ResolvedStatus
from cashier.payments.errors import InFlight, KeyReused, TooManyPayments
from cashier.payments.payment_metrics import PaymentMetrics
from cashier.payments.policy import Operation
from cashier.tokens.payment_state_token import PaymentClaims

# However short `follow_s` is: until a scanned code and a submit that never arrived are reversed.
LEAST_S = 120
# Until the next query when none could be made, or none is due.
_RETRY_MS = 3_000
# A caller who asks at the promised time comes first, and its query serves here too.
_CALLERS_FIRST_S = 1.0
# No timer is set for less.
_SOON_S = 0.001

# One query, with a reversal where due. It reports to `note`.
Query = Callable[[PaymentClaims, Operation], Awaitable[None]]


# Engine or acquirer cannot say what became of the submit.
_UNKNOWN = frozenset({PaymentEvent.ENGINE_SILENT, PaymentEvent.ENGINE_NEVER_ARRIVED, PaymentEvent.ACQUIRER_SILENT})


class WatchedPayment(Struct, frozen=True):
    """A payment without an end, as the last query found it.

    `event`: the fact that decided its status; None before the first query. `sent_at`: in seconds
    since 1970.
    """

    payment_id: str
    order_id: str
    kind: Kind
    status: PaymentStatus
    event: PaymentEvent | None
    sent_at: int

    @property
    def unknown(self) -> bool:
        """Whether engine or acquirer cannot say what became of the submit."""
        return self.event in _UNKNOWN


class _Watched(Struct, eq=False):
    """`due_s`, `until_s`: on the loop's clock. `event`: as in `WatchedPayment`."""

    claims: PaymentClaims
    operation: Operation
    due_s: float
    until_s: float
    event: PaymentEvent | None
    task: asyncio.Task[None] | None = None


class BackgroundQueries:
    """`settled`: payments whose end was first seen here. `refused`: those beyond the bound."""

    def __init__(self, query: Query, counts: PaymentMetrics | None = None) -> None:
        self._query = query
        self._watched: dict[str, _Watched] = {}
        self._stopped = False
        self._counts = counts or PaymentMetrics()

    def __len__(self) -> int:
        return len(self._watched)

    def __repr__(self) -> str:
        settled, refused = self._counts.settled.value, self._counts.unwatched.value
        return f"<BackgroundQueries {len(self)} settled={settled} refused={refused}>"

    def payments(self) -> Iterator[WatchedPayment]:
        """Those that are watched, in the order of their submits."""
        for payment_id, watched in self._watched.items():
            claims = watched.claims
            yield WatchedPayment(
                payment_id=payment_id,
                order_id=claims.chosen.order_id,
                kind=claims.kind,
                status=claims.told or PaymentStatus.PROCESSING,
                event=watched.event,
                sent_at=claims.sent_at or claims.iat,
            )

    def watch(
        self,
        claims: PaymentClaims,
        operation: Operation,
        after_ms: int | None = None,
        event: PaymentEvent | None = None,
    ) -> None:
        """Query the payment from now on, until it is final or for `follow_s`.

        `event`: the fact that decided its status at the submit. Beyond `most_in_background` it is
        not watched: the next caller looks.
        """
        settings = operation.policy.settings
        if self._stopped or claims.payment_id in self._watched:
            return
        if len(self) >= settings.most_in_background:
            self._counts.unwatched.add()
            return
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        watched = _Watched(claims, operation, _due_s(now_s, after_ms), now_s + max(settings.follow_s, LEAST_S), event)
        self._watched[claims.payment_id] = watched
        watched.task = loop.create_task(self._follow(watched))
        watched.task.add_done_callback(_report_bug)

    def note(self, claims: PaymentClaims, resolution: ResolvedStatus) -> None:
        """A query with these claims found this."""
        watched = self._watched.get(claims.payment_id)
        if watched is None:
            return
        if resolution.final:
            del self._watched[claims.payment_id]
            if watched.task is asyncio.current_task():
                self._counts.settled.add()
            elif watched.task is not None:
                watched.task.cancel()
            return
        due_s = _due_s(asyncio.get_running_loop().time(), resolution.poll_after_ms)
        own = watched.task is asyncio.current_task()
        watched.due_s = max(watched.due_s, due_s) if own else due_s + _CALLERS_FIRST_S
        watched.event = resolution.event
        # Other tokens know less, but one may know of a cancellation.
        watched.claims = replace(
            watched.claims, told=resolution.status, cancelled=watched.claims.cancelled or claims.cancelled
        )

    def stop(self) -> None:
        """Watch nothing any more. A query under way is not cut."""
        self._stopped = True
        for watched in self._watched.values():
            if watched.task is not None:
                watched.task.cancel()
        self._watched.clear()

    async def _follow(self, watched: _Watched) -> None:
        loop, payment_id = asyncio.get_running_loop(), watched.claims.payment_id
        try:
            while self._watched.get(payment_id) is watched and watched.due_s < watched.until_s:
                pause_s = watched.due_s - loop.time()
                if pause_s > _SOON_S:
                    await asyncio.sleep(pause_s)
                    continue  # a caller may have queried meanwhile
                try:
                    await self._query(watched.claims, watched.operation)
                except TooManyPayments:
                    watched.due_s = _due_s(loop.time(), None)
                except (InFlight, KeyReused):  # a stop; or the engine has another body under this id
                    return
        finally:
            if self._watched.get(payment_id) is watched:
                del self._watched[payment_id]


def _due_s(now_s: float, after_ms: int | None) -> float:
    return now_s + (after_ms or _RETRY_MS) / 1_000


def _report_bug(task: asyncio.Task[None]) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None:
        task.get_loop().call_exception_handler(
            {"message": "cashier: a background query failed", "exception": error, "task": task}
        )
