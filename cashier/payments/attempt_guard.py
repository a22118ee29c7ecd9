"""Alone: who else is at this order, or at this very submit, as far as the shared store tells. Early, and never the last word.

Three hints live there. Of an order: which attempt lives, so that a second one is refused before risk is asked and a text message is sent.
Of a submit: which worker is at it, so that a second worker waits for its outcome and sends none of its own. Of a key: which body it stands
for while only a challenge does, of which the engine does not know yet. Without a store, or when it is lost, all are as if nobody else were
there (the last is known in the worker itself), and the engine's own rules decide: one attempt an order, and a key is carried out once.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar
from weakref import WeakValueDictionary

from cashier.domain.engine_contract import EngineAnswered, EngineStatus
from cashier.domain.payment_id import PAYMENT_ID
from cashier.payments.attempt import Attempt, order_key
from cashier.payments.errors import InFlight, KeyReused, OrderBusy
from cashier.payments.live_attempts import LiveAttempts, OtherAttempt
from cashier.payments.ports import EnginePort
from cashier.payments.settings import AcceptSettings

Found = TypeVar("Found")

_PAYMENT_ID = re.compile(PAYMENT_ID)
_LIVE = frozenset({EngineStatus.PROCESSING, EngineStatus.ACTION_REQUIRED, EngineStatus.USER_PAYING})
# How long one is believed to live after the payer can do nothing more: until its end has been heard of.
_AFTERWARDS_S = 60
# How long a worker's word that it is at a submit holds, unless it says so again.
_HELD_MS = 1_500
# Of those that were challenged or sent last; of what was sent most engines know themselves.
_MOST_BODIES = 10_000
# How often a worker that waits for another looks whether the engine has the payment by now.
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.05, 0.5


class AttemptGuard:
    """Says who is at what, for one worker."""

    def __init__(self, live: LiveAttempts, engine: EnginePort, settings: AcceptSettings) -> None:
        self._live = live
        self._engine = engine
        self._worker = uuid.uuid4().hex
        self._bodies: OrderedDict[str, str] = OrderedDict()
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self.settings = settings

    def __repr__(self) -> str:
        return f"<Alone {self._live!r}>"

    @asynccontextmanager
    async def at_submit(
        self, attempt: Attempt, found: Callable[[], Awaitable[Found | None]]
    ) -> AsyncIterator[Found | None]:
        """While another worker is at this submit, wait. Yields what it has brought the engine to, by `found`; None: it is ours to do.

        Raises `InFlight` where the other takes longer than any submit should.
        """
        key = f"submit {attempt.payment_id}"
        turn = self._turns.setdefault(key, asyncio.Lock())
        before_us = turn.locked()
        async with turn:
            renewing: asyncio.Task[None] | None = None
            try:
                brought = await self._waited(key, found, waited=before_us)
                renewing = asyncio.create_task(self._renewed(key)) if brought is None and self._live.shared else None
                yield brought
            finally:
                if renewing is not None:
                    renewing.cancel()
                await self._live.end(key, self._worker)

    @asynccontextmanager
    async def at_order(self, attempt: Attempt) -> AsyncIterator[None]:
        """This attempt is the one that lives on its order, while its checks are made; not beyond, unless `lives` says so.

        Raises `OrderBusy` where another one does, and the engine says so too, and `KeyReused` where its key stands for another body.
        """
        key = order_key(attempt.chosen)
        told = await self._live.live(key, attempt.payment_id, self._longest_ms())
        if isinstance(told, OtherAttempt):
            if await self._lives(told.holder, attempt):
                raise OrderBusy(told.holder)
            # Over without anybody having looked: nobody else would be told of this one for as long as that one's hint lasts.
            await self._live.end(key, told.holder)
            await self._live.live(key, attempt.payment_id, self._longest_ms())
        try:
            await self.bind(attempt, self._longest_ms() / 1_000)
            yield
        except BaseException as error:
            await self._live.end(key, attempt.payment_id)
            if not isinstance(error, KeyReused):
                await self.unbind(attempt)
            raise

    def must_be_same(self, attempt: Attempt) -> None:
        """Raises `KeyReused` where the key is known here to stand for another body."""
        if self._bodies.get(attempt.payment_id, _body(attempt)) != _body(attempt):
            raise KeyReused

    async def bind(self, attempt: Attempt, seconds: float) -> None:
        """The key stands for this body from here on, for so long. Raises `KeyReused` where it does for another."""
        self.must_be_same(attempt)
        told = await self._live.live(f"body {attempt.payment_id}", _body(attempt), max(1, int(seconds * 1_000)))
        if isinstance(told, OtherAttempt):
            raise KeyReused
        self._bodies[attempt.payment_id] = _body(attempt)
        self._bodies.move_to_end(attempt.payment_id)
        if len(self._bodies) > _MOST_BODIES:
            self._bodies.popitem(last=False)

    async def unbind(self, attempt: Attempt, *, sent: bool = False) -> None:
        """Others need not be told any more: nothing was sent, or the engine has it, and with it the body. Not every engine says which body
        it has, so of what was sent this worker remembers it."""
        if not sent:
            self._bodies.pop(attempt.payment_id, None)
        await self._live.end(f"body {attempt.payment_id}", _body(attempt))

    async def lives(self, order: str, payment_id: str, seconds_left: float) -> None:
        """It has been sent, or was seen alive: others should know until the payer can do nothing more."""
        await self._live.live(order, payment_id, max(1, int((seconds_left + _AFTERWARDS_S) * 1_000)))

    async def ended(self, order: str, payment_id: str) -> None:
        await self._live.end(order, payment_id)

    async def _renewed(self, key: str) -> None:
        """As long as this worker lives. One that was killed keeps nobody waiting for long."""
        while True:
            await asyncio.sleep(_HELD_MS / 3_000)
            await self._live.live(key, self._worker, _HELD_MS)

    async def _waited(self, key: str, found: Callable[[], Awaitable[Found | None]], *, waited: bool) -> Found | None:
        loop = asyncio.get_running_loop()
        until_s, wait_s = loop.time() + self._longest_ms() / 1_000, _FIRST_WAIT_S
        while isinstance(await self._live.live(key, self._worker, _HELD_MS), OtherAttempt):
            brought = await found()
            if brought is not None:
                return brought
            if loop.time() + wait_s > until_s:
                raise InFlight
            await asyncio.sleep(wait_s)
            wait_s, waited = min(2 * wait_s, _LONGEST_WAIT_S), True
        # The other may have come to its end since the last look.
        return await found() if waited else None

    async def _lives(self, holder: str, attempt: Attempt) -> bool:
        """The store's word is a hint: whoever it names may be over, and its worker gone. Nothing that is no id of ours is asked about."""
        if not _PAYMENT_ID.fullmatch(holder):
            return False
        looked = await self._engine.look_up(holder, attempt.chosen.order_id, attempt.call_headers, self.settings.look_ms)
        return isinstance(looked, EngineAnswered) and looked.payment.status in _LIVE

    def _longest_ms(self) -> int:
        """Of everything between the first look and the engine's answer."""
        settings = self.settings
        return settings.look_ms + settings.check_ms + settings.decide_ms + settings.submit_ms


def _body(attempt: Attempt) -> str:
    """So short that nothing can be guessed by it of what the fingerprint is computed from: one guess in four thousand millions fits."""
    return hashlib.sha256(f"{attempt.payment_id} {attempt.fingerprint}".encode()).hexdigest()[:8]
