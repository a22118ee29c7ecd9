"""Shares new connections evenly among the workers of one listening socket.

The kernel wakes every worker for a new connection, and the first to come takes it. So of the
connections that a load balancer opens at once and keeps, one worker often got nearly all. Here a
worker that has more than another leaves a new connection to the others for a moment. It takes it
then: they may be busy, or hang.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from multiprocessing import get_context
from typing import Any

# Several turns of the loop of a worker that is not busy.
YIELD_S = 0.002
# If the lowest count stays the same for this number of yields, the worker that has it may hang.
# Then each further yield accepts a burst, so that new connections do not wait for that worker.
UNANSWERED_YIELDS = 5
BURST_CONNECTIONS = 32
# While the process cannot accept, as for want of files, its loop must not spin.
RETRY_S = 0.1
# For workers that SIGTTIN adds. Further ones share the last slot.
_SPARE_SLOTS = 8
# Larger than any count: no worker yields to this one.
_CLOSED = 1 << 62
_FREE = _CLOSED + 1


class WorkerCount:
    """The connections of one worker, beside those of the others, in memory that they share.

    The supervisor claims one for each worker that it starts, and releases it after its end.
    """

    def __init__(self, counts: Any, slot: int) -> None:
        """`counts`: from `shared_counts`."""
        self._counts = counts
        self._slot = slot
        self._closed = False

    def __repr__(self) -> str:
        return f"<WorkerCount {self._counts[self._slot]} of {[count for count in self._counts if count < _CLOSED]}>"

    @classmethod
    def claim(cls, counts: Any) -> WorkerCount:
        slot = next((slot for slot, count in enumerate(counts) if count == _FREE), len(counts) - 1)
        counts[slot] = _CLOSED
        return cls(counts, slot)

    def release(self) -> None:
        self._counts[self._slot] = _FREE

    def set(self, connections: int) -> None:
        if not self._closed:
            self._counts[self._slot] = connections

    def close(self) -> None:
        """The worker stops: it waits for no other, and no other for it."""
        self._counts[self._slot] = _CLOSED
        self._closed = True

    @property
    def is_ahead(self) -> bool:
        """Whether another worker has fewer connections."""
        return not self._closed and self._counts[self._slot] > self.lowest

    @property
    def lowest(self) -> int:
        lowest: int = min(self._counts)
        return lowest


def shared_counts(workers: int) -> Any:
    """Room for the counts of this many workers. Can be sent to a process that starts."""
    return get_context("spawn").RawArray("q", [_FREE] * (workers + _SPARE_SLOTS))


class BalancedListener:
    """Accepts connections in this worker. As `asyncio.Server`, as far as uvicorn uses it.

    `count`: of this worker; who makes and loses connections sets it.
    """

    def __init__(
        self, listener: socket.socket, make_connection: Callable[[], asyncio.Protocol], count: WorkerCount
    ) -> None:
        """Start in the running loop. `listener` listens already."""
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._make_connection = make_connection
        self._count = count
        self._lowest = self._unanswered_yields = 0
        self._opening: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None
        listener.setblocking(False)
        count.set(0)
        self._watch()

    def __repr__(self) -> str:
        return f"<BalancedListener {self._count!r}{' waiting' if self._timer else ''}>"

    def close(self) -> None:
        """Accept no more. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
        else:
            self._loop.remove_reader(self._listener)

    async def wait_closed(self) -> None:
        """What was accepted is open."""
        await asyncio.gather(*self._opening)

    def _watch(self) -> None:
        self._timer = None
        self._loop.add_reader(self._listener, self._on_connection)

    def _on_connection(self) -> None:
        if self._count.is_ahead:
            self._pause(YIELD_S, self._accept_after_yield)
        else:
            self._accept()

    def _accept_after_yield(self) -> None:
        self._watch()
        unanswered, self._lowest = self._lowest == self._count.lowest, self._count.lowest
        self._unanswered_yields = self._unanswered_yields + 1 if unanswered else 0
        most = 1 if self._unanswered_yields < UNANSWERED_YIELDS else BURST_CONNECTIONS
        while most and self._accept():
            most -= 1

    def _pause(self, seconds: float, resume: Callable[[], None]) -> None:
        self._loop.remove_reader(self._listener)
        self._timer = self._loop.call_later(seconds, resume)

    def _accept(self) -> bool:
        """Accept one connection. False if there is none, or it cannot be accepted."""
        try:
            accepted, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):  # another worker was first, or the client has gone
            return False
        except OSError:
            self._pause(RETRY_S, self._watch)
            return False
        opening = self._loop.create_task(self._open(accepted))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)
        return True

    async def _open(self, accepted: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._make_connection, accepted)
        except OSError:  # the client has gone
            accepted.close()
