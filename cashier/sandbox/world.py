"""The world: who there is, what became of the orders, and the two services that decide and take money. One per sandbox.

State lives here and only in memory. Every server and every in-process upstream that is made on one world shares it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from cashier.sandbox.acquirer import Acquirer
from cashier.sandbox.audit import Terms, audit
from cashier.sandbox.engine import Engine
from cashier.sandbox.engine_rules import Desk
from cashier.sandbox.ledger import Entry, Ledger
from cashier.sandbox.payer_holdings import Holdings
from cashier.sandbox.population import Cast
from cashier.sandbox.risk import Risk
from cashier.sandbox.world_clock import Clock, WorldClock, utc_now


class World:
    """The same seed, started at the same time, is the same world. `clock` tells the time with its offset."""

    def __init__(self, seed: int = 1, clock: Clock = utc_now) -> None:
        self.seed = seed
        self.clock = WorldClock(clock)
        self.cast = Cast(seed, self.clock())
        self.ledger = Ledger(self.clock)
        self.holdings = Holdings(self.cast, self.ledger, self.clock)
        self.acquirer = Acquirer(self.cast, self.clock, self.ledger)
        self.risk = Risk(self.clock)
        self.engine = Engine(
            Desk(self.cast, self.acquirer, self.risk, self.clock, self.holdings, used_codes=set()), self.ledger
        )
        self._on_the_way: list[tuple[datetime, Callable[[], object]]] = []

    def __repr__(self) -> str:
        return f"World(seed={self.seed}, {self.cast!r}, {self.acquirer!r}, {self.risk!r}, {self.engine!r}, {self.ledger!r})"

    def later(self, time: timedelta, arrive: Callable[[], object]) -> None:
        """A request that is still on its way arrives when so much time has passed."""
        self._on_the_way.append((self.clock() + time, arrive))

    def catch_up(self) -> None:
        """Do what time alone has done since: attempts expire, late requests arrive. Whoever asks the world anything calls this first."""
        self.engine.expire()
        if not self._on_the_way:
            return
        now = self.clock()
        arrived = sorted((one for one in self._on_the_way if one[0] <= now), key=lambda one: one[0])
        self._on_the_way = [one for one in self._on_the_way if one[0] > now]
        for _, arrive in arrived:
            arrive()

    def audit(self) -> list[str]:
        """What is wrong in the ledger, one sentence each."""
        entries = self.ledger.entries
        fees_bps = {channel["channel_id"]: channel.get("fee_bps", 0) for channel in self.cast.all_channels}
        return audit(
            entries,
            Terms(
                prices=self._prices(entries), opening=self._opening(entries), fees_bps=fees_bps, live=self.engine.live
            ),
        )

    def _prices(self, entries: tuple[Entry, ...]) -> dict[str, int]:
        placed = {entry.order_id: self.cast.placed_order(entry.order_id) for entry in entries}
        return {order_id: order["amount"]["value"] for order_id, order in placed.items() if order}

    def _opening(self, entries: tuple[Entry, ...]) -> dict[tuple[str, str], int]:
        people = {entry.user_id: self.cast.person(entry.user_id) for entry in entries}
        return {
            (user_id, account["account_id"]): account["available"]["value"]
            for user_id, person in people.items()
            if person
            for account in person.accounts or ()
        }
