"""The world: population, orders, ledger, risk and engine of one sandbox.

It holds all state, in memory only. All servers and in-process upstreams of one world share it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from datetime import datetime, timedelta

from cashier.sandbox.acquirer import SimulatedAcquirer
from cashier.sandbox.audit import AuditTerms, audit
from cashier.sandbox.decline_rules import RuleInputs
from cashier.sandbox.engine import SimulatedEngine
from cashier.sandbox.ledger import Ledger, LedgerEntry
from cashier.sandbox.payer_holdings import PayerHoldings
from cashier.sandbox.risk import SimulatedRisk
from cashier.sandbox.seed_data import Population
from cashier.sandbox.shop import SimulatedShop
from cashier.sandbox.storefront import Storefront
from cashier.sandbox.world_clock import Clock, WorldClock, utc_now


class World:
    """The same seed and start time give the same world. `clock` returns aware times."""

    def __init__(self, seed: int = 1, clock: Clock = utc_now) -> None:
        self.seed = seed
        self.clock = WorldClock(clock)
        self.population = Population(seed, self.clock())
        self.ledger = Ledger(self.clock)
        self.holdings = PayerHoldings(self.population, self.ledger, self.clock)
        self.acquirer = SimulatedAcquirer(self.population, self.clock, self.ledger)
        self.shop = SimulatedShop(self.population, self.clock)
        self.storefront = Storefront(self.population, self.clock)
        self.risk = SimulatedRisk(self.clock)
        self.engine = SimulatedEngine(
            RuleInputs(
                population=self.population,
                acquirer=self.acquirer,
                risk=self.risk,
                clock=self.clock,
                holdings=self.holdings,
                used_codes=set(),
            ),
            self.ledger,
        )
        self._delayed: list[tuple[datetime, Callable[[], object]]] = []

    def __repr__(self) -> str:
        parts = (self.population, self.acquirer, self.risk, self.engine, self.ledger)
        return f"World(seed={self.seed}, {', '.join(map(repr, parts))})"

    def deliver_later(self, delay: timedelta, arrive: Callable[[], object]) -> None:
        """Call `arrive` once `delay` has passed on the world's clock."""
        self._delayed.append((self.clock() + delay, arrive))

    def catch_up(self) -> None:
        """Expire attempts and deliver late requests. Call it before reading the world."""
        self.engine.expire()
        if not self._delayed:
            return
        now = self.clock()
        due = sorted((delayed for delayed in self._delayed if delayed[0] <= now), key=lambda delayed: delayed[0])
        self._delayed = [delayed for delayed in self._delayed if delayed[0] > now]
        for _, arrive in due:
            arrive()

    def audit(self) -> list[str]:
        """The audit's violations, one sentence each."""
        entries = self.ledger.entries
        fees_bps, steps = self._channel_terms()
        return audit(
            entries,
            AuditTerms(
                prices=self._prices(entries),
                opening=self._opening(entries),
                fees_bps=fees_bps,
                steps=steps,
                live=self.engine.live,
            ),
        )

    def _channel_terms(self) -> tuple[dict[str, set[int]], dict[str, set[int]]]:
        """Fees and steps of all channels, present and past."""
        fees_bps: dict[str, set[int]] = defaultdict(set)
        steps: dict[str, set[int]] = defaultdict(set)
        for channel in (*self.population.all_channels, *self.population.past_channels):
            channel_id = channel["channel_id"]
            fees_bps[channel_id].add(channel.get("fee_bps", 0))
            steps[channel_id].add(channel.get("step", 1))
            for term in channel.get("terms", ()):
                fees_bps[f"{channel_id}/{term['term_id']}"].add(term["fee_bps"])
        return fees_bps, steps

    def _prices(self, entries: tuple[LedgerEntry, ...]) -> dict[str, int]:
        placed = {entry.order_id: self.population.placed_order(entry.order_id) for entry in entries}
        return {order_id: order["amount"]["value"] for order_id, order in placed.items() if order}

    def _opening(self, entries: tuple[LedgerEntry, ...]) -> dict[tuple[str | None, str], int]:
        users = {entry.user_id: self.population.user(entry.user_id) for entry in entries}
        return {
            (user_id, account["account_id"]): account["available"]["value"]
            for user_id, user in users.items()
            if user
            for account in user.accounts or ()
        }
