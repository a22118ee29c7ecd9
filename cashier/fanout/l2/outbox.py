"""The invalidations that a worker has not sent yet: bounded, and none is ever lost. No I/O."""

from __future__ import annotations

from asyncio import Future
from collections import Counter, OrderedDict
from collections.abc import Iterable

from msgspec import Struct

from cashier.fanout.l2.invalidation import Invalidation


class OutgoingInvalidation(Struct, eq=False):
    """`publish`: to the other workers too.

    `stored`: it is invalid in the store. `returned`: its message came back on our subscription.
    `waiters` get True when both are the case. `sent_s`: the loop's time of the last try.
    """

    invalidation: Invalidation
    publish: bool
    waiters: list[Future[bool]]
    stored: bool = False
    returned: bool = False
    sent_s: float = 0.0

    @property
    def confirmed(self) -> bool:
        return self.stored and (self.returned or not self.publish)

    def resolve(self) -> None:
        """Wake the waiters, once."""
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(True)


class Outbox:
    """First in, first out. Equal invalidations that are not sent yet merge into one.

    Beyond the capacity those of each source merge into one for all of its keys.
    """

    __slots__ = ("_capacity", "_queue")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._queue: OrderedDict[Invalidation, OutgoingInvalidation] = OrderedDict()

    def __len__(self) -> int:
        return len(self._queue)

    def __repr__(self) -> str:
        return f"<Outbox {len(self)} of {self._capacity}>"

    def add(self, invalidation: Invalidation, *, publish: bool, waiter: Future[bool] | None = None) -> None:
        outgoing = OutgoingInvalidation(invalidation, publish, [] if waiter is None else [waiter])
        self._merge(outgoing)
        if len(self._queue) > self._capacity:
            queued, self._queue = self._queue, OrderedDict()
            for each in queued.values():
                each.invalidation = Invalidation(each.invalidation.source, None, "")
                self._merge(each)

    def take(self, most: int) -> list[OutgoingInvalidation]:
        """Remove and return the first ones."""
        return [self._queue.popitem(last=False)[1] for _ in range(min(most, len(self._queue)))]

    def requeue(self, failed: Iterable[OutgoingInvalidation]) -> None:
        """Put back what was not confirmed, in front."""
        for outgoing in reversed(list(failed)):
            self._merge(outgoing)
            self._queue.move_to_end(outgoing.invalidation, last=False)

    def by_source(self) -> dict[str, int]:
        return dict(Counter(invalidation.source for invalidation in self._queue))

    def _merge(self, outgoing: OutgoingInvalidation) -> None:
        queued = self._queue.get(outgoing.invalidation)
        if queued is None:
            self._queue[outgoing.invalidation] = outgoing
        else:
            queued.publish = queued.publish or outgoing.publish
            queued.waiters += outgoing.waiters
