"""The attempts on orders that this worker knows to be live: its own memory, no I/O.

One attempt per order: first it is checked, then it is sent. A sent attempt stays until its end is
confirmed; time alone ends nothing. An attempt that another worker sent counts once it was seen
alive here.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from msgspec import Struct, field
from msgspec.structs import replace

from cashier.payments.errors import TooManyPayments
from cashier.tokens.payment_state_token import PaymentClaims

# The most recently paid. Engine and acquirer know of them, too.
MOST_PAID = 10_000
# About 100 MB. Slow kinds live for days, so the oldest that the engine has acknowledged are
# forgotten first: engine and acquirer know of those.
MOST_ATTEMPTS = 50_000


class LiveAttempt(Struct, eq=False):
    """`claims`: None while it is being checked; then those of its newest token.

    `acknowledged`: the engine reported it. `decided` is set once its checks and its submit have
    ended: only then it is known whether it is live.
    """

    payment_id: str
    claims: PaymentClaims | None = None
    acknowledged: bool = False
    decided: asyncio.Event = field(default_factory=asyncio.Event)


class LiveAttempts:
    """By order. `forgotten` counts live attempts that were dropped for the bound.

    `paid_by`: the payment that paid the order, by the acquirer's word. Its order itself may lag
    behind that.
    """

    def __init__(self, most_attempts: int = MOST_ATTEMPTS) -> None:
        self._by_order: OrderedDict[str, LiveAttempt] = OrderedDict()
        self._most_attempts = most_attempts
        self._paid: OrderedDict[str, tuple[str, float]] = OrderedDict()
        self.forgotten = 0

    def __len__(self) -> int:
        return len(self._by_order)

    def __repr__(self) -> str:
        return f"<LiveAttempts {len(self)} forgotten={self.forgotten}>"

    def claim(self, order: str, payment_id: str) -> LiveAttempt | None:
        """Claim the order for an attempt that is to be checked.

        Returns the other live attempt if there is one. Raises `TooManyPayments`.
        """
        present = self._by_order.get(order)
        if present is None:
            self._make_room()
            self._by_order[order] = LiveAttempt(payment_id)
        return None if present is None or present.payment_id == payment_id else present

    def mark_sent(self, order: str, claims: PaymentClaims) -> PaymentClaims | None:
        """Call right before the submit. Returns the claims of an earlier submit of this payment."""
        present = self._by_order[order]
        earlier, present.claims = present.claims, claims
        return earlier

    def mark_answered(self, order: str, payment_id: str) -> None:
        """The submit has ended, with or without an answer."""
        present = self._by_order.get(order)
        if present is not None and present.payment_id == payment_id:
            present.decided.set()

    def mark_unsent(self, order: str, payment_id: str, earlier: PaymentClaims | None) -> None:
        """The submit certainly never left, or was refused: what was known before holds again."""
        present = self._by_order.get(order)
        if present is not None and present.payment_id == payment_id:
            present.claims = earlier

    def note_alive(self, order: str, claims: PaymentClaims, *, acknowledged: bool) -> None:
        """A query saw it alive. A token from before the submit does not replace newer claims."""
        present = self._by_order.get(order)
        if present is None:
            if len(self) >= self._most_attempts:
                return
            present = self._by_order[order] = LiveAttempt(claims.payment_id)
        elif present.payment_id != claims.payment_id:
            return
        sent = present.claims or claims
        present.claims = replace(sent, told=claims.told, cancelled=sent.cancelled or claims.cancelled)
        present.acknowledged |= acknowledged
        present.decided.set()

    def release(self, order: str, payment_id: str) -> PaymentClaims | None:
        """It is over: return the claims of the payment if it was sent."""
        present = self._by_order.get(order)
        if present is None or present.payment_id != payment_id:
            return None
        del self._by_order[order]
        present.decided.set()
        return present.claims

    def note_paid(self, order: str, payment_id: str, until_s: float) -> None:
        """`until_s`: as `now_s` of `paid_by`."""
        self._paid[order] = (payment_id, until_s)
        self._paid.move_to_end(order)
        if len(self._paid) > MOST_PAID:
            self._paid.popitem(last=False)

    def paid_by(self, order: str, now_s: float) -> str | None:
        payment_id, until_s = self._paid.get(order, (None, 0.0))
        return payment_id if now_s < until_s else None

    def live(self, order: str) -> str | None:
        """The payment that was sent for the order, and lives."""
        present = self._by_order.get(order)
        return None if present is None or present.claims is None else present.payment_id

    def release_unsent(self, order: str, payment_id: str) -> bool:
        """End the checks. False: it was sent, so it stays."""
        present = self._by_order.get(order)
        if present is None or present.payment_id != payment_id:
            return True
        if present.claims is not None:
            return False
        self.release(order, payment_id)
        return True

    def _make_room(self) -> None:
        if len(self) < self._most_attempts:
            return
        oldest = next((order for order, attempt in self._by_order.items() if attempt.acknowledged), None)
        if oldest is None:
            raise TooManyPayments
        del self._by_order[oldest]
        self.forgotten += 1
