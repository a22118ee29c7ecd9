"""The number of recent challenges of one payer for one order, over all keys, and of resends.

Each new key may bring a new text message, so the number is bounded per order and payer; and so may
each resend, so their number is bounded per payment. Best effort: counted in this worker, and with a
shared store across workers; what is evicted or lost is not counted.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections import OrderedDict

from msgspec import Struct

from cashier.fanout.key_index import key_text
from cashier.payments.attempt import Attempt
from cashier.payments.attempt_leases import AttemptLeases
from cashier.payments.errors import RiskRejected
from cashier.payments.payment_metrics import PaymentMetrics

# From the first challenge on.
WINDOW_S = 3_600
# Orders with payers, and payments with resends. The one that began first is dropped first.
MOST_COUNTED = 10_000


class _Window(Struct, eq=False):
    until_s: float
    members: set[str]


class ChallengeCounts:
    """`refused` counts attempts beyond the bound."""

    def __init__(self, attempt_leases: AttemptLeases, counts: PaymentMetrics | None = None) -> None:
        self._attempt_leases = attempt_leases
        self._windows: OrderedDict[str, _Window] = OrderedDict()
        self._counts = counts or PaymentMetrics()

    def __repr__(self) -> str:
        return f"<ChallengeCounts {len(self._windows)} refused={self._counts.challenges_refused.value}>"

    async def require_fewer(self, attempt: Attempt) -> None:
        """Call before risk is asked: its decision may send a text message.

        Raises `RiskRejected` at the bound.
        """
        if await self._count(_key(attempt)) >= attempt.operation.policy.settings.most_challenges:
            self._counts.challenges_refused.add()
            raise RiskRejected("TOO_MANY_CHALLENGES")

    async def add(self, attempt: Attempt, challenge_id: str) -> None:
        """Risk has sent this one. The same one again does not count."""
        await self._add(_key(attempt), hashlib.sha256(challenge_id.encode()).hexdigest()[:16])

    async def resends(self, payment_id: str) -> int:
        return await self._count(f"resends {payment_id}")

    async def add_resend(self, payment_id: str) -> None:
        await self._add(f"resends {payment_id}", secrets.token_hex(8))

    async def _count(self, key: str) -> int:
        window = self._current(key)
        count = 0 if window is None else len(window.members)
        return max(count, await self._attempt_leases.count(key))

    async def _add(self, key: str, member: str) -> None:
        window = self._current(key)
        if window is None:
            window = self._windows[key] = _Window(asyncio.get_running_loop().time() + WINDOW_S, set())
            if len(self._windows) > MOST_COUNTED:
                self._windows.popitem(last=False)
        window.members.add(member)
        await self._attempt_leases.count(key, member, WINDOW_S * 1_000)

    def _current(self, key: str) -> _Window | None:
        window = self._windows.get(key)
        if window is not None and window.until_s <= asyncio.get_running_loop().time():
            del self._windows[key]
            return None
        return window


def _key(attempt: Attempt) -> str:
    """No payer can use up the challenges of another one."""
    chosen = attempt.chosen
    return f"challenges {key_text((chosen.merchant_id, chosen.order_id, chosen.user_id or ''))}"
