"""The world: who there is, what became of the orders, and the two services that decide and take money. One per sandbox.

State lives here and only in memory. Every server and every in-process upstream that is made on one world shares it.
"""

from __future__ import annotations

from datetime import UTC, datetime

from cashier.sandbox.acquirer import Acquirer, Clock
from cashier.sandbox.cast import Cast
from cashier.sandbox.engine import Engine
from cashier.sandbox.risk import Risk


def utc_now() -> datetime:
    return datetime.now(UTC)


class World:
    """The same seed, started at the same time, is the same world. `clock` tells the time with its offset."""

    def __init__(self, seed: int = 1, clock: Clock = utc_now) -> None:
        self.seed = seed
        self.cast = Cast(seed, clock())
        self.acquirer = Acquirer(self.cast, clock)
        self.risk = Risk(clock)
        self.engine = Engine(self.cast, self.acquirer, self.risk, clock)

    def __repr__(self) -> str:
        return f"World(seed={self.seed}, {self.cast!r}, {self.acquirer!r}, {self.risk!r}, {self.engine!r})"
