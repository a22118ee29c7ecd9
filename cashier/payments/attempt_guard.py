"""Guard against concurrent attempts on an order: what this worker knows, and hints of others.

This worker's own attempts (`live_attempts`) are certain: a second one waits while the first is
checked, and is refused until the first is confirmed over, whatever the engine would accept.

Of other workers the shared store holds three kinds of hints, and the engine has the last word:

- per order, the live attempt: a second one is refused before risk is called and before a text
  message goes out;
- per submit, the worker that runs it: a second worker waits for its outcome instead of sending
  another submit of this payment or of this order; and after a submit without an answer, that it
  may still arrive;
- per idempotency key, the body while only a challenge exists, which the engine does not know yet.

Without a store, or after losing it, the guard acts as if there were no other worker. Then the
engine's rules decide between workers: one live attempt per order, and each key is executed once.

An attempt is released by `mark_ended`, which `StatusFollower` calls for every final status. So to
replace an attempt, reverse it through the follower (claims with `cancelled`), and submit the next
one only if the resolved status is final.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar
from weakref import WeakValueDictionary

from msgspec import Struct

from cashier.domain.engine_contract import EngineAnswered, EngineStatus
from cashier.domain.payment_id import PAYMENT_ID
from cashier.payments.attempt import Attempt, order_key
from cashier.payments.attempt_leases import AttemptLeases, OtherAttempt
from cashier.payments.budgets import longest_submit_ms
from cashier.payments.errors import AcceptError, EngineUnavailable, InFlight, KeyReused, OrderBusy
from cashier.payments.live_attempts import LiveAttempts
from cashier.payments.ports import EnginePort
from cashier.source_errors import Unanswered
from cashier.tokens.payment_state_token import PaymentClaims

T = TypeVar("T")

_PAYMENT_ID = re.compile(PAYMENT_ID)
LIVE_STATUSES = frozenset({EngineStatus.PROCESSING, EngineStatus.ACTION_REQUIRED, EngineStatus.USER_PAYING})
# Whether the payment of these claims is confirmed over.
IsOver = Callable[[PaymentClaims], Awaitable[bool]]
# An attempt counts as live this long after the payer's deadline, unless its end is reported
# earlier.
_AFTER_DEADLINE_S = 60
# An order that is paid says so itself well within this.
_PAID_HINT_MS = 60_000
# Lifetime of a worker's claim on a submit, which the worker renews.
_SUBMIT_CLAIM_MS = 1_500
# The most recently challenged or sent; most engines remember what was sent.
_MAX_BODIES = 10_000
# Between the look-ups of a waiting worker.
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.05, 0.5


class _BoundKey(Struct, frozen=True):
    """The body that an idempotency key is bound to, as a hash, its order and its user."""

    body: str
    order: str
    user_id: str | None


class AttemptGuard:
    """The guard of one worker."""

    def __init__(self, attempt_leases: AttemptLeases, engine: EnginePort) -> None:
        self._attempt_leases = attempt_leases
        self._engine = engine
        self._worker = uuid.uuid4().hex
        self._bodies: OrderedDict[str, _BoundKey] = OrderedDict()
        self._submit_locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._live_attempts = LiveAttempts()

    def __repr__(self) -> str:
        return f"<AttemptGuard {self._live_attempts!r} {self._attempt_leases!r}>"

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
    async def order_claim(self, attempt: Attempt, is_over: IsOver) -> AsyncIterator[str | None]:
        """Claim the order for this attempt during its checks. Once it is sent, the claim stays.

        Yields the payment that has paid the order, if this worker or a hint knows one: then the
        attempt must not be sent, though its checks may say more.

        Waits while this worker checks another attempt on the order. Raises `OrderBusy` if another
        attempt is live: one of this worker until `is_over` confirms its end, one of another worker
        if the engine confirms it. Raises `EngineUnavailable` if the engine does not say;
        `KeyReused` if the key is bound to another body; `TooManyPayments`.
        """
        order, payment_id = order_key(attempt.chosen), attempt.payment_id
        await self._claim_here(order, attempt, is_over)
        try:
            succeeded = await self._claim_in_store(order, attempt)
            await self.bind_key(attempt, _longest_submit_ms(attempt) / 1_000)
            yield succeeded or self._paid_by_another(order, payment_id)
        except BaseException:
            if self._live_attempts.release_unsent(order, payment_id):
                await self._attempt_leases.release(order, payment_id)
                await self.unbind_key(attempt)
            raise
        self._live_attempts.release_unsent(order, payment_id)

    @contextmanager
    def sending(self, claims: PaymentClaims) -> Iterator[None]:
        """Around the one submit: from its start on the attempt is live, whatever becomes of it.

        An `AcceptError` says that nothing was sent. Raises `OrderBusy` if the attempt was replaced
        during its checks, and another one has claimed the order.
        """
        order = order_key(claims.chosen)
        if (paid_by := self._paid_by_another(order, claims.payment_id)) is not None:
            raise OrderBusy(paid_by)
        if (other := self._live_attempts.claim(order, claims.payment_id)) is not None:
            raise OrderBusy(other.payment_id)
        earlier = self._live_attempts.mark_sent(order, claims)
        try:
            yield
        except AcceptError:
            self._live_attempts.mark_unsent(order, claims.payment_id, earlier)
            raise
        except BaseException:
            self._live_attempts.mark_answered(order, claims.payment_id)
            raise
        self._live_attempts.mark_answered(order, claims.payment_id)

    async def live_or_paid(self, order: str) -> str | None:
        """The attempt that this worker or a hint knows for the order. To be verified."""
        known = self._live_attempts.live(order) or self._paid_by(order)
        if known is None and self._attempt_leases.shared:
            claim = await self._attempt_leases.claim(order, self._worker, 1)
            known = claim.holder if isinstance(claim, OtherAttempt) else None
        return known

    def taken_for(self, payment_id: str) -> tuple[str, str | None] | None:
        """The order and the user that this worker took the attempt for, if it remembers it."""
        bound = self._bodies.get(payment_id)
        return None if bound is None else (bound.order, bound.user_id)

    def require_same_body(self, attempt: Attempt) -> None:
        """Raise `KeyReused` if this worker knows the key with another body."""
        bound = self._bodies.get(attempt.payment_id)
        if bound is not None and bound.body != _body(attempt):
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
        self._bodies[attempt.payment_id] = _BoundKey(_body(attempt), order_key(attempt.chosen), attempt.chosen.user_id)
        self._bodies.move_to_end(attempt.payment_id)
        if len(self._bodies) > _MAX_BODIES:
            self._bodies.popitem(last=False)

    async def unbind_key(self, attempt: Attempt, *, sent: bool = False) -> None:
        """Withdraw the hint: nothing was sent, or the engine has the payment and its body.

        Another body that the key is bound to stays.
        """
        bound = self._bodies.get(attempt.payment_id)
        # Not every engine reports the body, so this worker remembers that of a sent payment.
        if not sent and bound is not None and bound.body == _body(attempt):
            del self._bodies[attempt.payment_id]
        await self._attempt_leases.release(f"body {attempt.payment_id}", _body(attempt))

    async def mark_live(self, claims: PaymentClaims, seconds_left: float, *, acknowledged: bool) -> None:
        """Announce an attempt that was seen alive.

        `claims`: with the last reported status. `seconds_left`: until the payer's deadline.
        `acknowledged`: the engine reported it.
        """
        order = order_key(claims.chosen)
        self._live_attempts.note_alive(order, claims, acknowledged=acknowledged)
        ttl_ms = max(1, int((seconds_left + _AFTER_DEADLINE_S) * 1_000))
        await self._attempt_leases.claim(order, claims.payment_id, ttl_ms)

    async def mark_arriving(self, payment_id: str, seconds: float) -> None:
        """Announce a submit without an answer: it may still arrive, though the engine has none."""
        await self._attempt_leases.claim(f"arriving {payment_id}", payment_id, int(seconds * 1_000))

    async def mark_ended(self, order: str, payment_id: str, paid_by: str | None = None) -> None:
        """The attempt is confirmed over: another one may be sent, unless the order is paid.

        `paid_by`: the payment that paid it. Its hint stays for a while: the order's own status may
        lag behind.
        """
        self._live_attempts.release(order, payment_id)
        if paid_by is not None:
            until_s = asyncio.get_running_loop().time() + _PAID_HINT_MS / 1_000
            self._live_attempts.note_paid(order, paid_by, until_s)
        if paid_by == payment_id:
            await self._attempt_leases.claim(order, payment_id, _PAID_HINT_MS)
        else:
            await self._attempt_leases.release(order, payment_id)

    async def mark_challenged(self, order: str, payment_id: str) -> None:
        """Nothing was sent: a payer who abandons a challenge must not keep other attempts out."""
        if self._live_attempts.release_unsent(order, payment_id):
            await self._attempt_leases.release(order, payment_id)

    def _paid_by(self, order: str) -> str | None:
        return self._live_attempts.paid_by(order, asyncio.get_running_loop().time())

    def _paid_by_another(self, order: str, payment_id: str) -> str | None:
        paid_by = self._paid_by(order)
        return None if paid_by == payment_id else paid_by

    async def _claim_here(self, order: str, attempt: Attempt, is_over: IsOver) -> None:
        loop = asyncio.get_running_loop()
        until_s = loop.time() + _longest_submit_ms(attempt) / 1_000
        while (other := self._live_attempts.claim(order, attempt.payment_id)) is not None:
            if not other.decided.is_set():
                try:
                    async with asyncio.timeout_at(until_s):
                        await other.decided.wait()
                except TimeoutError:
                    raise OrderBusy(other.payment_id) from None
            elif other.claims is not None and not await is_over(other.claims):
                raise OrderBusy(other.payment_id)
            else:
                self._live_attempts.release(order, other.payment_id)

    async def _claim_in_store(self, order: str, attempt: Attempt) -> str | None:
        """Announce the attempt, once the one that is announced is known to be over.

        Returns the announced one if it has succeeded: then this attempt is not announced.
        """
        loop, ttl_ms, wait_s = asyncio.get_running_loop(), _longest_submit_ms(attempt), _FIRST_WAIT_S
        until_s = loop.time() + ttl_ms / 1_000
        replaced: set[str] = set()
        while isinstance(claim := await self._attempt_leases.claim(order, attempt.payment_id, ttl_ms), OtherAttempt):
            holder = claim.holder
            if holder in replaced:
                return None  # a store that releases nothing
            # Before the look-up: a submit that is under way may not have arrived yet.
            if await self._is_claimed(f"submit {holder}"):
                if loop.time() + wait_s > until_s:
                    raise OrderBusy(holder)
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
            elif (
                await self._is_claimed(f"arriving {holder}")
                or (status := await self._status_of(holder, attempt)) in LIVE_STATUSES
            ):
                raise OrderBusy(holder)
            elif status is EngineStatus.SUCCEEDED:
                return holder
            else:
                # The other attempt ended unnoticed. Replace its hint, or this attempt would stay
                # unannounced until it expires.
                await self._attempt_leases.release(order, holder)
                replaced.add(holder)
        return None

    async def _is_claimed(self, key: str) -> bool:
        """Whether another worker holds the key now."""
        return isinstance(await self._attempt_leases.claim(key, self._worker, 1), OtherAttempt)

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

    async def _status_of(self, holder: str, attempt: Attempt) -> EngineStatus | None:
        """Verify a hint with the engine: the attempt may be over, and its worker gone.

        None if the engine has no such payment.
        """
        # The store's content is not trusted: only an id of ours goes into a request.
        if not _PAYMENT_ID.fullmatch(holder):
            return None
        looked_up = await self._engine.look_up(
            holder, attempt.chosen.order_id, attempt.operation.call_headers, attempt.operation.policy.settings.look_ms
        )
        if isinstance(looked_up, Unanswered):
            raise EngineUnavailable
        return looked_up.payment.status if isinstance(looked_up, EngineAnswered) else None


def _longest_submit_ms(attempt: Attempt) -> int:
    return longest_submit_ms(attempt.operation.policy.settings)


def _body(attempt: Attempt) -> str:
    """A hash of the body, for a store that others may read.

    Short on purpose: a guess at the card token or code in the fingerprint cannot be verified,
    because one in 2³² matches by chance.
    """
    return hashlib.sha256(f"{attempt.payment_id} {attempt.fingerprint}".encode()).hexdigest()[:8]
