"""Looking: what engine and acquirer say of a payment now, asked once for all who want to know before it is asked.

Nothing is remembered: every look is a new one. Where the look says that the engine should reverse, it is asked to, once for all as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any

import structlog
from msgspec import Struct
from msgspec.structs import replace

from cashier.domain.acquirer_contract import Result
from cashier.domain.engine_contract import Answered
from cashier.domain.payment_state import IllegalMove, Status
from cashier.domain.status_mapping import OfThePayment, acquirer_heard, engine_heard
from cashier.domain.status_resolution import (
    AcquirerHeard,
    AcquirerWord,
    EngineHeard,
    EngineWord,
    Standing,
    Underway,
    standing,
)
from cashier.payments.coalescing import FreshSingleFlight, TooManyRuns
from cashier.payments.errors import Crowded, KeyReused
from cashier.payments.ports import Upstreams
from cashier.payments.settings import AcceptSettings

_log = structlog.get_logger("cashier.payments")


class Heard(Struct, frozen=True):
    """What was heard of a payment, and of its order. `fingerprint`: of the body that the engine has it by, where it says so."""

    engine: EngineHeard
    acquirer: AcquirerHeard
    fingerprint: str | None = None


# What is heard of an acquirer that was not asked.
_UNASKED = AcquirerHeard(AcquirerWord.SILENT)


class Seen(Struct, frozen=True):
    """Where a payment stands, and from what that follows."""

    standing: Standing
    heard: Heard


class Looking:
    """Looks at payments. `now` is the wall clock."""

    def __init__(self, upstreams: Upstreams, settings: AcceptSettings, now: Callable[[], datetime]) -> None:
        self._upstreams = upstreams
        self._now = now
        self._looks: FreshSingleFlight[Heard] = FreshSingleFlight(settings.most_under_way)
        self._reversals: FreshSingleFlight[Heard] = FreshSingleFlight(settings.most_under_way)
        self.settings = settings

    def __repr__(self) -> str:
        return f"<Looking looks={len(self._looks)} reversals={len(self._reversals)}>"

    async def drain(self) -> None:
        """When all that is under way has ended."""
        await self._looks.drain()
        await self._reversals.drain()

    async def heard(self, payment_id: str, order_id: str, trip: Any) -> Heard:
        """What both say now. Raises `Crowded`."""
        return await self._shared(self._looks, payment_id, lambda: self._look(payment_id, order_id, trip))

    async def see(
        self, payment: Underway, fingerprint: str, order_id: str, trip: Any, heard: Heard | None = None
    ) -> Seen:
        """Where it stands, by a look or by what was just `heard`; and after a reverse, where that is due.

        `fingerprint`: of the body that the asker knows it by. Where the engine has it by another, it is not theirs to know or to end:
        `KeyReused`. Raises `Crowded`.
        """
        if heard is None:
            heard = await self.heard(payment.payment_id, order_id, trip)
        if heard.fingerprint not in (None, fingerprint):
            raise KeyReused
        found = self._standing(payment, heard)
        # Of a silent engine it is not known whose body it has. One that knows of no submit of its own has nothing to end there.
        unknown = heard.engine.word is EngineWord.SILENT and payment.sent_at is None
        if not found.to_reverse or unknown:
            return Seen(found, heard)
        heard = await self._shared(
            self._reversals, payment.payment_id, lambda: self._reverse(payment.payment_id, order_id, trip)
        )
        return Seen(self._standing(payment, heard), heard)

    async def confirmed(self, engine: EngineHeard, order_id: str, trip: Any) -> Heard:
        """What the engine has just said, and the acquirer too where that counts: an end has to be confirmed by it."""
        if engine.word not in (EngineWord.SUCCEEDED, EngineWord.FAILED):
            return Heard(engine, _UNASKED)
        return Heard(engine, acquirer_heard(await self.result(order_id, trip)))

    async def result(self, order_id: str, trip: Any) -> Result:
        return await self._upstreams.acquirer.result(order_id, trip, self.settings.look_ms)

    def _standing(self, payment: Underway, heard: Heard) -> Standing:
        try:
            return standing(payment, heard.engine, heard.acquirer, self._now())
        except IllegalMove as contradiction:
            # Somebody has taken back what they said for good, or we have a bug. What is told instead is what they say now.
            _log.error(
                "a payment was heard to move where it cannot", payment_id=payment.payment_id, why=str(contradiction)
            )
            return standing(replace(payment, told=None), heard.engine, heard.acquirer, self._now())

    async def _look(self, payment_id: str, order_id: str, trip: Any) -> Heard:
        looked, result = await asyncio.gather(
            self._upstreams.engine.look_up(payment_id, order_id, trip, self.settings.look_ms),
            self.result(order_id, trip),
        )
        return Heard(
            engine_heard(looked),
            acquirer_heard(result),
            looked.payment.fingerprint if isinstance(looked, Answered) else None,
        )

    async def _reverse(self, payment_id: str, order_id: str, trip: Any) -> Heard:
        """The acquirer is asked after the engine: what the reverse did may be the news."""
        reversed_: OfThePayment = await self._upstreams.engine.reverse(
            payment_id, order_id, trip, self.settings.look_ms
        )
        return Heard(engine_heard(reversed_), acquirer_heard(await self.result(order_id, trip)))

    async def _shared(
        self, fresh: FreshSingleFlight[Heard], payment_id: str, work: Callable[[], Coroutine[Any, Any, Heard]]
    ) -> Heard:
        try:
            return await fresh.run(payment_id, work)
        except TooManyRuns:
            raise Crowded from None


def shows(told: Standing, found: Standing) -> bool:
    """Whether what has changed is worth telling: more than when to look again."""
    return _shown(told) != _shown(found)


def _shown(found: Standing) -> tuple[Any, ...]:
    action = found.next_action if found.status is Status.ACTION_REQUIRED else None
    return found.status, found.message, action
