"""Early guard against concurrent attempts, based on hints in the shared store.

The engine has the last word.

The store holds three kinds of hints:

- per order, the live attempt: a second one is refused before risk is called and before a text
  message goes out;
- per submit, the worker that runs it: a second worker waits for its outcome instead of sending
  another submit;
- per idempotency key, the body while only a challenge exists, which the engine does not know yet.

Without a store, or after losing it, the guard acts as if there were no other worker (this worker
remembers the bodies itself). Then the engine's rules decide: one live attempt per order, and each
key is executed once.
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
from cashier.payments.attempt_leases import AttemptLeases, OtherAttempt
from cashier.payments.errors import InFlight, KeyReused, OrderBusy
from cashier.payments.ports import EnginePort

T = TypeVar("T")

_PAYMENT_ID = re.compile(PAYMENT_ID)
_LIVE_STATUSES = frozenset({EngineStatus.PROCESSING, EngineStatus.ACTION_REQUIRED, EngineStatus.USER_PAYING})
# An attempt counts as live this long after the payer's deadline, unless its end is reported
# earlier.
_AFTER_DEADLINE_S = 60
# Lifetime of a worker's claim on a submit, which the worker renews.
_SUBMIT_CLAIM_MS = 1_500
# The most recently challenged or sent; most engines remember what was sent.
_MAX_BODIES = 10_000
# Between the look-ups of a waiting worker.
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.05, 0.5


class AttemptGuard:
    """The guard of one worker."""

    def __init__(self, attempt_leases: AttemptLeases, engine: EnginePort) -> None:
        self._attempt_leases = attempt_leases
        self._engine = engine
        self._worker = uuid.uuid4().hex
        self._bodies: OrderedDict[str, str] = OrderedDict()
        self._submit_locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def __repr__(self) -> str:
        return f"<AttemptGuard {self._attempt_leases!r}>"

    @asynccontextmanager
    async def submit_turn(
        self, attempt: Attempt, find_existing: Callable[[], Awaitable[T | None]]
    ) -> AsyncIterator[T | None]:
        """Wait while another worker runs this submit.

        Yields what `find_existing` then returns; None: it is our turn.

        Raises `InFlight` if the other worker takes longer than any submit should.
        """
        key = f"submit {attempt.payment_id}"
        lock = self._submit_locks.setdefault(key, asyncio.Lock())
        waits_here = lock.locked()
        async with lock:
            renewal: asyncio.Task[None] | None = None
            try:
                existing = await self._wait_for_turn(key, find_existing, _longest_submit_ms(attempt), waited=waits_here)
                if existing is None and self._attempt_leases.shared:
                    renewal = asyncio.create_task(self._renew_claim(key))
                yield existing
            finally:
                if renewal is not None:
                    renewal.cancel()
                await self._attempt_leases.release(key, self._worker)

    @asynccontextmanager
    async def order_claim(self, attempt: Attempt) -> AsyncIterator[None]:
        """Claim the order for this attempt during its checks.

        `mark_live` extends the claim beyond them.

        Raises `OrderBusy` if the engine confirms another live attempt; `KeyReused` if the key is
        bound to another body.
        """
        key = order_key(attempt.chosen)
        claim = await self._attempt_leases.claim(key, attempt.payment_id, _longest_submit_ms(attempt))
        if isinstance(claim, OtherAttempt):
            if await self._is_live(claim.holder, attempt):
                raise OrderBusy(claim.holder)
            # The other attempt ended unnoticed. Replace its hint, or this attempt would stay
            # unannounced until it expires.
            await self._attempt_leases.release(key, claim.holder)
            await self._attempt_leases.claim(key, attempt.payment_id, _longest_submit_ms(attempt))
        try:
            await self.bind_key(attempt, _longest_submit_ms(attempt) / 1_000)
            yield
        except BaseException as error:
            await self._attempt_leases.release(key, attempt.payment_id)
            if not isinstance(error, KeyReused):
                await self.unbind_key(attempt)
            raise

    def require_same_body(self, attempt: Attempt) -> None:
        """Raise `KeyReused` if this worker knows the key with another body."""
        if self._bodies.get(attempt.payment_id, _body(attempt)) != _body(attempt):
            raise KeyReused

    async def bind_key(self, attempt: Attempt, seconds: float) -> None:
        """Bind the key to this body for `seconds`.

        Raises `KeyReused` if it is bound to another one.
        """
        self.require_same_body(attempt)
        claim = await self._attempt_leases.claim(
            f"body {attempt.payment_id}", _body(attempt), max(1, int(seconds * 1_000))
        )
        if isinstance(claim, OtherAttempt):
            raise KeyReused
        self._bodies[attempt.payment_id] = _body(attempt)
        self._bodies.move_to_end(attempt.payment_id)
        if len(self._bodies) > _MAX_BODIES:
            self._bodies.popitem(last=False)

    async def unbind_key(self, attempt: Attempt, *, sent: bool = False) -> None:
        """Withdraw the hint: nothing was sent, or the engine has the payment and its body."""
        # Not every engine reports the body, so this worker remembers that of a sent payment.
        if not sent:
            self._bodies.pop(attempt.payment_id, None)
        await self._attempt_leases.release(f"body {attempt.payment_id}", _body(attempt))

    async def mark_live(self, order: str, payment_id: str, seconds_left: float) -> None:
        """Announce an attempt that was sent or seen alive.

        `seconds_left`: until the payer's deadline.
        """
        await self._attempt_leases.claim(order, payment_id, max(1, int((seconds_left + _AFTER_DEADLINE_S) * 1_000)))

    async def mark_ended(self, order: str, payment_id: str) -> None:
        await self._attempt_leases.release(order, payment_id)

    async def _renew_claim(self, key: str) -> None:
        """Renew while this worker lives.

        After a crash the claim expires within `_SUBMIT_CLAIM_MS`.
        """
        while True:
            await asyncio.sleep(_SUBMIT_CLAIM_MS / 3_000)
            await self._attempt_leases.claim(key, self._worker, _SUBMIT_CLAIM_MS)

    async def _wait_for_turn(
        self, key: str, find_existing: Callable[[], Awaitable[T | None]], longest_ms: int, *, waited: bool
    ) -> T | None:
        loop = asyncio.get_running_loop()
        until_s, wait_s = loop.time() + longest_ms / 1_000, _FIRST_WAIT_S
        while isinstance(await self._attempt_leases.claim(key, self._worker, _SUBMIT_CLAIM_MS), OtherAttempt):
            existing = await find_existing()
            if existing is not None:
                return existing
            if loop.time() + wait_s > until_s:
                raise InFlight
            await asyncio.sleep(wait_s)
            wait_s, waited = min(2 * wait_s, _LONGEST_WAIT_S), True
        # The other worker may have finished since the last check.
        return await find_existing() if waited else None

    async def _is_live(self, holder: str, attempt: Attempt) -> bool:
        """Verify a hint with the engine: the attempt may be over, and its worker gone."""
        # The store's content is not trusted: only an id of ours goes into a request.
        if not _PAYMENT_ID.fullmatch(holder):
            return False
        looked_up = await self._engine.look_up(
            holder, attempt.chosen.order_id, attempt.operation.call_headers, attempt.operation.policy.settings.look_ms
        )
        return isinstance(looked_up, EngineAnswered) and looked_up.payment.status in _LIVE_STATUSES


def _longest_submit_ms(attempt: Attempt) -> int:
    """From the first look-up to the engine's answer."""
    settings = attempt.operation.policy.settings
    return settings.look_ms + settings.check_ms + settings.decide_ms + settings.submit_ms


def _body(attempt: Attempt) -> str:
    """A hash of the body, for a store that others may read.

    Short on purpose: a guess at the card token or code in the fingerprint cannot be verified,
    because one in 2³² matches by chance.
    """
    return hashlib.sha256(f"{attempt.payment_id} {attempt.fingerprint}".encode()).hexdigest()[:8]
