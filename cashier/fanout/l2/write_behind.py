"""The queue of what is to be written to a shared store: bounded, in order, and never without its deletes. No I/O here."""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from cashier.fanout.l2.entry_codec import StoredAnswer


class Put(Struct, frozen=True):
    """Write `stored` under `key`."""

    source: str
    key: str
    stored: StoredAnswer


class Drop(Struct, frozen=True):
    """Delete one key, or all that begin with `prefix`. `tell`: other workers are to hear of it."""

    source: str
    key: str | None
    prefix: str | None
    tell: bool


Place: TypeAlias = tuple[bool, str, str | None, str | None]


class WriteBehind:
    """Puts and drops, first in, first out. At most `capacity` puts and as many drops.

    Of two of the same the later takes the place of both, at the end. A put beyond the capacity is refused. A drop never is: where there
    are too many, those of a source become one for all of it.
    """

    __slots__ = ("_capacity", "_drops", "_queue")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._queue: OrderedDict[Place, Put | Drop] = OrderedDict()
        self._drops = 0

    def __len__(self) -> int:
        return len(self._queue)

    def __repr__(self) -> str:
        return f"<WriteBehind puts={len(self._queue) - self._drops} drops={self._drops} of {self._capacity} each>"

    def put(self, put: Put) -> bool:
        """Whether it is queued, it or a younger one of the same key."""
        endpoint = (False, put.source, put.key, None)
        queued = self._queue.get(endpoint)
        if queued is None and len(self._queue) - self._drops >= self._capacity:
            return False
        if not isinstance(queued, Put) or queued.stored.born_ms <= put.stored.born_ms:
            self._queue[endpoint] = put
            self._queue.move_to_end(endpoint)
        return True

    def drop(self, drop: Drop) -> None:
        endpoint = (True, drop.source, drop.key, drop.prefix)
        queued = self._queue.get(endpoint)
        if queued is None:
            self._make_room()
            self._drops += 1
        self._queue[endpoint] = _either(drop, queued)
        self._queue.move_to_end(endpoint)

    def back(self, drop: Drop) -> None:
        """One that was taken and not carried out: it is the first again, unless the same has been queued since."""
        endpoint = (True, drop.source, drop.key, drop.prefix)
        queued = self._queue.get(endpoint)
        self._queue[endpoint] = _either(drop, queued)
        if queued is None:
            self._drops += 1
            self._queue.move_to_end(endpoint, last=False)

    def take(self) -> Put | Drop | None:
        """The first, which is off the queue then; None where there is none."""
        if not self._queue:
            return None
        _, first = self._queue.popitem(last=False)
        self._drops -= isinstance(first, Drop)
        return first

    def forget_puts(self) -> int:
        """How many there were."""
        puts = [endpoint for endpoint, queued in self._queue.items() if isinstance(queued, Put)]
        for endpoint in puts:
            del self._queue[endpoint]
        return len(puts)

    def _make_room(self) -> None:
        if self._drops < self._capacity:
            return
        wide: dict[str, Drop] = {}
        for endpoint, queued in list(self._queue.items()):
            if isinstance(queued, Drop):
                wide[queued.source] = _either(Drop(queued.source, None, "", queued.tell), wide.get(queued.source))
                del self._queue[endpoint]
        for drop in wide.values():
            self._queue[True, drop.source, None, ""] = drop
        self._drops = len(wide)


def _either(drop: Drop, other: Put | Drop | None) -> Drop:
    return replace(drop, tell=True) if isinstance(other, Drop) and other.tell else drop
