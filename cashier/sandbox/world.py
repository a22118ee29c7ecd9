"""The world: who there is, what became of the orders, and the two services that decide and take money. One per sandbox.

State lives here and only in memory. Every server and every in-process upstream that is made on one world shares it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from cashier.sandbox.acquirer import SimulatedAcquirer
from cashier.sandbox.audit import AuditTerms, audit
from cashier.sandbox.engine import SimulatedEngine
from cashier.sandbox.engine_rules import RuleInputs
from cashier.sandbox.ledger import LedgerEntry, Ledger
from cashier.sandbox.payer_holdings import PayerHoldings
from cashier.sandbox.population import Population
from cashier.sandbox.risk import SimulatedRisk
from cashier.sandbox.world_clock import Clock, WorldClock, utc_now


class World:
    """The same seed, started at the same time, is the same world. `clock` tells the time with its offset."""

    def __init__(self, seed: int = 1, clock: Clock = utc_now) -> None:
        self.seed = seed
        self.clock = WorldClock(clock)
        self.population = Population(seed, self.clock())
        self.ledger = Ledger(self.clock)
        self.holdings = PayerHoldings(self.population, self.ledger, self.clock)
        self.acquirer = SimulatedAcquirer(self.population, self.clock, self.ledger)
        self.risk = SimulatedRisk(self.clock)
        self.engine = SimulatedEngine(
            RuleInputs(self.population, self.acquirer, self.risk, self.clock, self.holdings, used_codes=set()),
            self.ledger,
        )
        self._delayed: list[tuple[datetime, Callable[[], object]]] = []

    def __repr__(self) -> str:
        return f"World(seed={self.seed}, {self.population!r}, {self.acquirer!r}, {self.risk!r}, {self.engine!r}, {self.ledger!r})"

    def deliver_later(self, time: timedelta, arrive: Callable[[], object]) -> None:
        """A request that is still on its way arrives when so much time has passed."""
        self._delayed.append((self.clock() + time, arrive))

    def catch_up(self) -> None:
        """Do what time alone has done since: attempts expire, late requests arrive. Whoever asks the world anything calls this first."""
        self.engine.expire()
        if not self._delayed:
            return
        now = self.clock()
        arrived = sorted((one for one in self._delayed if one[0] <= now), key=lambda one: one[0])
        self._delayed = [one for one in self._delayed if one[0] > now]
        for _, arrive in arrived:
            arrive()

    def audit(self) -> list[str]:
        """What is wrong in the ledger, one sentence each."""
        entries = self.ledger.entries
        fees_bps = {channel["channel_id"]: channel.get("fee_bps", 0) for channel in self.population.all_channels}
        return audit(
            entries,
            AuditTerms(
                prices=self._prices(entries), opening=self._opening(entries), fees_bps=fees_bps, live=self.engine.live
            ),
        )

    def _prices(self, entries: tuple[LedgerEntry, ...]) -> dict[str, int]:
        placed = {entry.order_id: self.population.placed_order(entry.order_id) for entry in entries}
        return {order_id: order["amount"]["value"] for order_id, order in placed.items() if order}

    def _opening(self, entries: tuple[LedgerEntry, ...]) -> dict[tuple[str, str], int]:
        users = {entry.user_id: self.population.user(entry.user_id) for entry in entries}
        return {
            (user_id, account["account_id"]): account["available"]["value"]
            for user_id, person in users.items()
            if person
            for account in person.accounts or ()
        }
