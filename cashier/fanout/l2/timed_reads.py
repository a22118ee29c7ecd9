"""The reads in progress of the second level: bounded in number and in time.

One timer serves them all, so that a read that is answered in time costs none.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import TypeAlias

from cashier.fanout.l2.interface import CachedAnswer, OnRead
from cashier.fanout.l2.resp import Reply
from cashier.fanout.l2.valkey_backend import READ, VERSION_BYTES, read_arguments
from cashier.fanout.l2.valkey_connection import ValkeyConnection
from cashier.fanout.loop_stall import TURN_S, stalled


class PendingRead:
    """A read in progress. `tokens`: its reply starts with them.

    Abandoned, it keeps its place among the commands of its connection, and counts until it ends.
    """

    __slots__ = ("_on_read", "_reads", "connection", "key", "source", "started_s", "tokens")

    def __init__(
        self, reads: TimedReads, connection: ValkeyConnection, source: str, key: str, on_read: OnRead, started_s: float
    ) -> None:
        self._reads = reads
        self._on_read: OnRead | None = on_read
        self.connection = connection
        self.source = source
        self.key = key
        self.started_s = started_s
        self.tokens = os.urandom(VERSION_BYTES)

    def on_reply(self, reply: Reply) -> None:
        self._reads.answered(self, reply)

    def deliver(self, answer: CachedAnswer | None, version: bytes | None) -> None:
        on_read, self._on_read = self._on_read, None
        if on_read is not None:
            on_read(answer, version)

    def abandon(self) -> None:
        self._on_read = None


# Takes a read and its reply. Returns the answer and the version.
Judge: TypeAlias = Callable[[PendingRead, Reply], tuple[CachedAnswer | None, bytes | None]]


class TimedReads:
    """`judge` takes the replies that come in time, and faults; `on_slow` when a read started.

    A read without a reply in time is a miss.
    """

    __slots__ = ("_judge", "_on_slow", "_pending", "_timeout_s", "_timer")

    def __init__(self, timeout_s: float, judge: Judge, on_slow: Callable[[float], None]) -> None:
        self._timeout_s = timeout_s
        self._judge = judge
        self._on_slow = on_slow
        self._pending: dict[PendingRead, None] = {}  # the oldest first
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._pending)

    def start(self, connection: ValkeyConnection, epoch: str, source: str, key: str, on_read: OnRead) -> PendingRead:
        """See `SecondLevel.get`."""
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        read = PendingRead(self, connection, source, key, on_read, now_s)
        self._pending[read] = None
        if self._timer is None:
            due_s = now_s + self._timeout_s
            self._timer = loop.call_at(due_s, self._expire, due_s)
        READ.send(connection, read_arguments(epoch, source, key, read.tokens), read.on_reply)
        return read

    def answered(self, read: PendingRead, reply: Reply) -> None:
        if read in self._pending:
            del self._pending[read]
            read.deliver(*self._judge(read, reply))
        else:
            read.connection.overdue -= 1

    def _expire(self, due_s: float, waited: bool = False) -> None:
        """End the reads that are too old; after a stall of ours, one turn later: `loop_stall`."""
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        if not waited and stalled(int(due_s * 1e9), int(now_s * 1e9)):
            self._timer = loop.call_later(TURN_S, self._expire, due_s, True)
            return
        for read in [read for read in self._pending if read.started_s + self._timeout_s <= now_s]:
            del self._pending[read]
            read.connection.overdue += 1
            self._on_slow(read.started_s)
            read.deliver(None, None)
        oldest = next(iter(self._pending), None)
        if oldest is None:
            self._timer = None
        else:
            due_s = oldest.started_s + self._timeout_s
            self._timer = loop.call_at(due_s, self._expire, due_s)
