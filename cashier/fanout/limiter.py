"""The concurrency limit of an address: grows while it is used without loss, shrinks on loss. Pure.

Additive increase, multiplicative decrease on timeouts and refusals: the sign of a server's queue
that a client can see is loss, not delay (Netflix concurrency-limits' advice for clients).

After a recovery the limit is small, and grows faster until the first loss halves it (the slow start
of TCP): the callers that failed meanwhile come again, all at once. At the usual limit they would
fill the queue of the address, time out, open its breaker and come again, for good.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Annotated

from msgspec import Meta, Struct

from cashier.fanout.failing_keys import FailingKeys

UNLIMITED = 1 << 30
# The limit after a recovery. Every quick answer adds one to it, and, until the first loss, so do
# eight others: an address that always takes most of its time has no quick ones.
_RESTART = 10
_RAMP_CREDIT = 8


class LimiterSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`limiter`: concurrent calls to one address; `start`, then between `least` and `most`.

    `start` is the default capacity of a pool, 64 connections and 256 queued calls, instead of
    concurrency-limits' 20: with a low guess the first burst after a start would lose sales, and a
    sick address costs these calls only once.
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
    """`limit`: the largest number of concurrent calls; callers read it before each call.

    `ramp_to`: after a recovery, the limit up to which `ramp` counts quick answers; else 0.
    """

    __slots__ = ("_credit", "_cut_ns", "_failing_keys", "_no_loss_yet", "limit", "ramp_to", "settings")

    def __init__(self, settings: LimiterSettings | None) -> None:
        """None: no limit."""
        self.settings = settings
        self.limit = UNLIMITED if settings is None else settings.within(settings.start)
        self.ramp_to = 0
        self._no_loss_yet = False  # since the recovery
        self._credit = 0
        self._cut_ns = 0
        self._failing_keys = FailingKeys()

    def reconfigure(self, settings: LimiterSettings | None) -> None:
        """Apply other bounds; the learned limit stays, within them."""
        if settings is None:
            self.limit = UNLIMITED
        elif self.settings is None:
            self.limit = settings.within(settings.start)
        else:
            self.limit = settings.within(self.limit)
        if self.ramp_to:
            self.ramp_to = 0 if settings is None else settings.within(settings.start)
        self.settings = settings

    def restart(self) -> None:
        """The address has recovered: forget the limit that it had while it was sick.

        Start with a small one, because nothing is known of the load that comes now.
        """
        if self.settings is not None:
            self.ramp_to = self.settings.within(self.settings.start)
            self.limit = self.settings.within(min(self.ramp_to, _RESTART))
            self._no_loss_yet = True

    def ramp(self) -> None:
        """Count a quick answer after a recovery."""
        if self.limit < self.ramp_to:
            self.limit += 1
        else:
            self.ramp_to = 0

    @property
    def _starts_slowly(self) -> bool:
        return self._no_loss_yet and self.limit < self.ramp_to

    def grow(self) -> None:
        """Count a success at half of the limit or more.

        A limit that is not used must not grow: it is untested.
        """
        if self.settings is None or self.limit >= self.settings.most:
            return
        self._credit += 1
        if self._credit >= (min(self.limit, _RAMP_CREDIT) if self._starts_slowly else self.limit):
            self._credit = 0
            self.limit += 1

    def shrink(self, started_ns: int, now_ns: int, key: Hashable = None) -> None:
        """Count a loss: a timeout or a refusal of a call that started at `started_ns`.

        Calls that were in progress at the last cut belong to the same loss and do not count again.
        `key`: what the loss may be specific to. Its further losses within ten seconds do not count:
        a user with a limit of their own must not lower that of all.
        """
        if self.settings is None or started_ns < self._cut_ns or not self._failing_keys.counts(key, now_ns):
            return
        self.limit = max(self.settings.least, self.limit // 2 if self._starts_slowly else self.limit * 9 // 10)
        self._no_loss_yet = False
        self._credit = 0
        self._cut_ns = now_ns

    def __repr__(self) -> str:
        return f"<Limiter {'off' if self.settings is None else self.limit}>"
