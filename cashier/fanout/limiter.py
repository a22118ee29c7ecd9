"""Limiter: how many calls an address may have under way. It grows while it is used and nothing is lost, and shrinks on loss. Pure.

Additive increase, multiplicative decrease on timeouts and refusals: what a client can see of a server's queue is loss, not delay (the
advice of Netflix's concurrency-limits for clients).
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

UNLIMITED = 1 << 30


class LimiterSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`limiter`. How many calls may be under way to one address: `start` at first, then between `least` and `most`.

    It starts at what a pool has by default, 64 connections and 256 that may wait for one, and not at concurrency-limits' 20: the first
    burst after a start would lose sales to a guess, and a sick address costs so many calls once.
    """

    start: Annotated[int, Meta(ge=1)] = 320
    least: Annotated[int, Meta(ge=1)] = 1
    most: Annotated[int, Meta(ge=1)] = 400

    def __post_init__(self) -> None:
        if self.least > self.most:
            raise ValueError(f"least = {self.least} is above most = {self.most}; least is the lower bound")

    def within(self, limit: int) -> int:
        return min(max(limit, self.least), self.most)


class Limiter:
    """`limit` is read before each call: no more than so many under way."""

    __slots__ = ("_credit", "_cut_ns", "limit", "settings")

    def __init__(self, settings: LimiterSettings | None) -> None:
        """None: no limit."""
        self.settings = settings
        self.limit = UNLIMITED if settings is None else settings.within(settings.start)
        self._credit = 0
        self._cut_ns = 0

    def reconfigure(self, settings: LimiterSettings | None) -> None:
        """Other bounds from now on; what was learned stays, within them."""
        if settings is None:
            self.limit = UNLIMITED
        elif self.settings is None:
            self.limit = settings.within(settings.start)
        else:
            self.limit = settings.within(self.limit)
        self.settings = settings

    def restart(self) -> None:
        """It has been left alone, and answers again: what it could not bear when it was sick says nothing of now."""
        if self.settings is not None:
            self.limit = max(self.limit, self.settings.within(self.settings.start))

    def grow(self) -> None:
        """A call succeeded while at least half of the limit was in use; unused, it would grow without having been tried."""
        if self.settings is None or self.limit >= self.settings.most:
            return
        self._credit += 1
        if self._credit >= self.limit:
            self._credit = 0
            self.limit += 1

    def lost(self, began_ns: int, now_ns: int) -> None:
        """A call that began then timed out or was refused. Those that were under way at the last cut are the same loss, told again."""
        if self.settings is None or began_ns < self._cut_ns:
            return
        self.limit = max(self.settings.least, self.limit * 9 // 10)
        self._credit = 0
        self._cut_ns = now_ns

    def __repr__(self) -> str:
        return f"<Limiter {'off' if self.settings is None else self.limit}>"
