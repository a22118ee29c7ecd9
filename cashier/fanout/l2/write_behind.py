"""The queue of writes to the shared store: bounded, in order, and never without its deletes.

No I/O.
"""

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
    """Delete one key, or all keys with a prefix. `publish`: tell the other workers."""

    source: str
    key: str | None
    prefix: str | None
    publish: bool


# Whether it is a drop, its source, key and prefix.
QueueKey: TypeAlias = tuple[bool, str, str | None, str | None]


class WriteBehind:
    """Puts and drops, first in, first out. At most `capacity` puts and as many drops.

    A repeated operation replaces the queued one and moves to the end. A put beyond the capacity is
    refused. A drop never is: if there are too many, the drops of each source merge into one for all
    of its keys.
    """

    __slots__ = ("_capacity", "_drops", "_queue")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._queue: OrderedDict[QueueKey, Put | Drop] = OrderedDict()
        self._drops = 0

    def __len__(self) -> int:
        return len(self._queue)

    def __repr__(self) -> str:
        return f"<WriteBehind puts={len(self._queue) - self._drops} drops={self._drops} of {self._capacity} each>"

    def put(self, put: Put) -> bool:
        """Whether the put, or a younger one of the same key, is queued now."""
        queue_key = (False, put.source, put.key, None)
        queued = self._queue.get(queue_key)
        if queued is None and len(self._queue) - self._drops >= self._capacity:
            return False
        if not isinstance(queued, Put) or queued.stored.born_ms <= put.stored.born_ms:
            self._queue[queue_key] = put
            self._queue.move_to_end(queue_key)
        return True

    def drop(self, drop: Drop) -> None:
        queue_key = (True, drop.source, drop.key, drop.prefix)
        queued = self._queue.get(queue_key)
        if queued is None:
            self._make_room()
            self._drops += 1
        self._queue[queue_key] = _merged(drop, queued)
        self._queue.move_to_end(queue_key)

    def requeue(self, drop: Drop) -> None:
        """Put back a drop that failed: at the front, unless the same was queued since."""
        queue_key = (True, drop.source, drop.key, drop.prefix)
        queued = self._queue.get(queue_key)
        self._queue[queue_key] = _merged(drop, queued)
        if queued is None:
            self._drops += 1
            self._queue.move_to_end(queue_key, last=False)

    def take(self) -> Put | Drop | None:
        """Remove and return the first; None if the queue is empty."""
        if not self._queue:
            return None
        _, first = self._queue.popitem(last=False)
        self._drops -= isinstance(first, Drop)
        return first

    def forget_puts(self) -> int:
        """Remove all puts and return their number."""
        puts = [queue_key for queue_key, queued in self._queue.items() if isinstance(queued, Put)]
        for queue_key in puts:
            del self._queue[queue_key]
        return len(puts)

    def _make_room(self) -> None:
        if self._drops < self._capacity:
            return
        by_source: dict[str, Drop] = {}
        for queue_key, queued in list(self._queue.items()):
            if isinstance(queued, Drop):
                drop_all = Drop(queued.source, None, "", queued.publish)
                by_source[queued.source] = _merged(drop_all, by_source.get(queued.source))
                del self._queue[queue_key]
        for drop in by_source.values():
            self._queue[True, drop.source, None, ""] = drop
        self._drops = len(by_source)


def _merged(drop: Drop, queued: Put | Drop | None) -> Drop:
    return replace(drop, publish=True) if isinstance(queued, Drop) and queued.publish else drop
