"""The queue of answers to write to the shared store: bounded and in order. No I/O."""

from __future__ import annotations

from collections import OrderedDict

from msgspec import Struct

from cashier.fanout.l2.entry_codec import StoredAnswer


class Put(Struct, frozen=True):
    """Write `stored` under `key`, if the store still has the version that was read before."""

    source: str
    key: str
    stored: StoredAnswer
    version: bytes


class WriteBehind:
    """First in, first out. Of two answers for one key the younger is kept, at the end.

    An answer beyond the capacity is refused.
    """

    __slots__ = ("_capacity", "_queue")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._queue: OrderedDict[tuple[str, str], Put] = OrderedDict()

    def __len__(self) -> int:
        return len(self._queue)

    def __repr__(self) -> str:
        return f"<WriteBehind {len(self)} of {self._capacity}>"

    def put(self, put: Put) -> bool:
        """Whether the put, or a younger one of the same key, is queued now."""
        queue_key = (put.source, put.key)
        queued = self._queue.get(queue_key)
        if queued is None and len(self._queue) >= self._capacity:
            return False
        if queued is None or queued.stored.born_ms <= put.stored.born_ms:
            self._queue[queue_key] = put
            self._queue.move_to_end(queue_key)
        return True

    def take(self) -> Put | None:
        """Remove and return the first; None if the queue is empty."""
        return self._queue.popitem(last=False)[1] if self._queue else None

    def clear(self) -> int:
        """Remove all and return their number."""
        removed = len(self._queue)
        self._queue.clear()
        return removed
