"""The second level in Valkey or Redis: reads, writes behind, invalidations by pub/sub.

Nothing here costs a consultation more than a miss. A lost server gets no requests but those of one
task that probes it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import msgspec
import structlog
from tenacity import AsyncRetrying, retry_if_exception_type, wait_exponential, wait_random

from cashier.fanout.ask import PendingCall
from cashier.fanout.l2.entry_codec import LARGEST_BYTES, StoredAnswer, pack, unpack
from cashier.fanout.l2.interface import CachedAnswer, OnRead
from cashier.fanout.l2.invalidation import (
    FOR_EARLIER_RELEASES,
    LONGEST_TEXT,
    QueuedInvalidation,
    decode_message,
    sendable,
)
from cashier.fanout.l2.publisher import InvalidationPublisher
from cashier.fanout.l2.resp import MalformedReplyError, ReadOnlyError, Reply, ResponseError, command
from cashier.fanout.l2.server_health import ServerHealth
from cashier.fanout.l2.timed_reads import PendingRead, TimedReads
from cashier.fanout.l2.tombstones import TOLERANCE_MS, Tombstones
from cashier.fanout.l2.valkey_backend import (
    CHANNEL,
    VERSION_BYTES,
    WRITE,
    ValkeySettings,
    entry_keys,
    epoch_of,
    require_primary,
    write_arguments,
)
from cashier.fanout.l2.valkey_client import Resolve, ValkeyClient
from cashier.fanout.l2.valkey_connection import FAULTS, ValkeyConnection
from cashier.fanout.l2.valkey_url import parse_valkey_url
from cashier.fanout.l2.write_behind import Put, WriteBehind
from cashier.metrics.store import Store

# Between two probes of a lost server.
_LONGEST_PAUSE_S = 1
# Writes without a reply. Further ones wait in the queue, where a younger answer replaces an older.
_MOST_WRITING = 8

_PING = command("PING")

_log = structlog.get_logger("cashier.cache")

# Takes source, key and prefix; key or prefix is None.
OnInvalidation = Callable[[str, str | None, str | None], None]


def _ignore() -> None:
    """The default for a callback."""


class ValkeyCache:
    """A `SecondLevel`, usable between `open` and `close` on one event loop.

    `on_invalidation(source, key, prefix)`: another worker invalidated this. `on_cut_off()`: from
    now on invalidations may be lost. `on_gap()`: from now on they arrive, and some may have been
    lost. All are called on the loop. `resolve`: see `ValkeyClient`.
    Raises ValueError for an invalid URL.
    """

    def __init__(
        self,
        url: str,
        on_invalidation: OnInvalidation,
        on_gap: Callable[[], None],
        settings: ValkeySettings | None = None,
        *,
        on_cut_off: Callable[[], None] = _ignore,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        resolve: Resolve | None = None,
        metrics: Store | None = None,
    ) -> None:
        self.address = parse_valkey_url(url)
        self._resolve = resolve
        self._on_invalidation = on_invalidation
        self._on_gap = on_gap
        self._on_cut_off = on_cut_off
        self._settings = settings or ValkeySettings()
        self._now_ms = now_ms
        self._worker_id = os.urandom(8)
        self._health = ServerHealth()
        self._tombstones = Tombstones()
        self._queue = WriteBehind(self._settings.writes)
        self._publisher = InvalidationPublisher(self._worker_id, self._settings, self._lose)
        self._reads = TimedReads(self._settings.get_ms / 1000, self._judge, self._slow)
        self._writing = 0  # sent and not answered
        self._writes_due = False
        self._background: list[asyncio.Task[None]] = []
        self._listener: asyncio.Task[None] | None = None
        self._lost = asyncio.Event()
        self._subscribed = False
        self._closing = False
        self._subscribed_since_ms = 0
        self._epoch = ""
        self._scripts = 0  # in progress
        metrics = metrics or Store()
        self.hits = metrics.counter("cashier_valkey_reads_total", "hit")
        self.misses = metrics.counter("cashier_valkey_reads_total", "miss")
        self.puts = metrics.counter("cashier_valkey_writes_total", "stored")
        self.dropped_puts = metrics.counter("cashier_valkey_writes_total", "dropped")
        self.errors = metrics.counter("cashier_valkey_errors_total")
        self.losses = metrics.counter("cashier_valkey_losses_total")
        self._up = metrics.gauge("cashier_valkey_up")

    def __repr__(self) -> str:
        counts = f"hits={self.hits.value} misses={self.misses.value}"
        return (
            f"<ValkeyCache {self.address!r} {self._health!r} {counts} {self._queue!r} {self._publisher!r}"
            f" {self._tombstones!r}>"
        )

    @property
    def reachable(self) -> bool:
        return self._health.available

    @property
    def coherent(self) -> bool:
        return self._subscribed

    def sample(self) -> None:
        """Set the gauge."""
        self._up.set(self._subscribed)

    async def open(self) -> None:
        """Wait for the server as long as for any command, then continue without it.

        An absent server is no error.
        """
        self._client = ValkeyClient(self.address, self._settings.command_ms / 1000, self._resolve)
        try:
            await self._connect()
        except FAULTS as fault:
            self._announce_loss(fault)
        self._background = [self._spawn(work) for work in (self._watch(), self._publisher.run())]

    async def close(self) -> None:
        """Send queued invalidations, within `close_ms`, and log those that could not be sent.

        No callback runs afterwards.
        """
        self._queue.clear()
        unsent = await self._publisher.flush(self._settings.close_ms / 1000)
        if unsent:
            _log.warning("invalidations were not sent before the stop", server=repr(self.address), unsent=unsent)
        self._closing = True
        self._health.record_failure()
        tasks = [*self._background, *([self._listener] if self._listener else [])]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=self._settings.command_ms / 1000)
        await self._client.aclose()

    def get(self, source: str, key: str, on_read: OnRead) -> PendingCall:
        if not self._health.available or len(self._reads) >= self._settings.gets or len(key) > LONGEST_TEXT:
            self.misses.add()
            return _PendingMiss(asyncio.get_running_loop().call_soon(on_read, None, None))
        return self._reads.start(self._client.reads, self._epoch, source, key, on_read)

    def put(self, source: str, key: str, answer: CachedAnswer, ttl_s: float, version: bytes) -> None:
        stored = StoredAnswer(answer.not_found, answer.body, self._now_ms() - answer.age_ms, round(ttl_s * 1000))
        if self._worth_writing(source, key, stored) and self._queue.put(Put(source, key, stored, version)):
            self._write_soon()
        else:
            self.dropped_puts.add()

    def drop(self, source: str, *, key: str | None = None, prefix: str | None = None) -> None:
        self._invalidate(sendable(source, key, prefix))

    async def adrop(self, source: str, *, key: str | None = None, prefix: str | None = None) -> bool:
        """As `drop`. Whether it is confirmed within `command_ms`; if not, it is sent later.

        See `InvalidationPublisher`. At once False while cut off from the other workers.
        """
        invalidation = sendable(source, key, prefix)
        if not self._subscribed:
            self._invalidate(invalidation)
            return False
        confirmed: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._invalidate(invalidation, confirmed)
        try:
            async with asyncio.timeout(self._settings.command_ms / 1000):
                return await confirmed
        except TimeoutError:
            return False

    def _invalidate(self, invalidation: QueuedInvalidation, waiter: asyncio.Future[bool] | None = None) -> None:
        self._bury(invalidation)
        self._publisher.add(invalidation, waiter=waiter)

    def _bury(self, invalidation: QueuedInvalidation) -> None:
        self._tombstones.add(
            invalidation.source, key=invalidation.key, prefix=invalidation.prefix, now_ms=self._now_ms()
        )

    def _worth_writing(self, source: str, key: str, stored: StoredAnswer) -> bool:
        """Skip values that may have been invalidated since their call started.

        This includes the time while the subscription was down.
        """
        if (
            not self._health.available
            or len(stored.body) > LARGEST_BYTES
            or stored.born_ms <= self._subscribed_since_ms
        ):
            return False
        # Our own calls have our clock, so the tolerance for other clocks does not apply.
        return not self._tombstones.covers(source, key, stored.born_ms + TOLERANCE_MS)

    async def run_script(self, script: str, key: bytes, *arguments: str | int) -> Any:
        """Run a script on one key. Returns None if there is no result in the time of a read.

        Never raises. A script without a result may have been executed, unless the server was lost
        or too many scripts were in progress.
        """
        if not self._health.available or self._scripts >= self._settings.gets:
            return None
        started_s = asyncio.get_running_loop().time()
        self._scripts += 1
        try:
            async with asyncio.timeout(self._settings.get_ms / 1000):
                (reply,) = await self._client.reads.ask(command("EVAL", script, 1, key, *arguments))
        except TimeoutError:
            self._slow(started_s)
            return None
        except OSError as fault:
            self._lose(fault)
            return None
        finally:
            self._scripts -= 1
        return self._answer(reply)

    def _judge(self, read: PendingRead, reply: Reply) -> tuple[CachedAnswer | None, bytes | None]:
        """The answer and the version in the reply to a read."""
        value = self._answer(reply)
        answer = version = None
        if isinstance(value, bytes) and value.startswith(read.tokens):
            version = value[VERSION_BYTES : 2 * VERSION_BYTES] or None
            stored = unpack(value[2 * VERSION_BYTES :])
            if stored is not None and not self._tombstones.covers(read.source, read.key, stored.born_ms):
                answer = stored.at(self._now_ms())
        elif value is not None:
            self._lose(MalformedReplyError("the reply to another command"))
        if answer is None:
            self.misses.add()
        else:
            self.hits.add()
        return answer, version

    def _answer(self, reply: Reply) -> Reply:
        """A reply in time; None for a refusal and a fault."""
        if isinstance(reply, OSError):
            self._lose(reply)
            return None
        if isinstance(reply, ResponseError):  # the server works; it refuses this command
            self.errors.add()
            return None
        self._health.record_fast()
        return reply

    def _slow(self, started_s: float) -> None:
        """No reply in the time of a read."""
        self.errors.add()
        if self._health.record_slow(started_s, asyncio.get_running_loop().time()):
            self._announce_loss(TimeoutError())

    def _write_soon(self) -> None:
        """At the end of this turn: an invalidation in it still stops a write."""
        if not self._writes_due:
            self._writes_due = True
            asyncio.get_running_loop().call_soon(self._write)

    def _write(self) -> None:
        """Send queued writes, to be executed in their order."""
        self._writes_due = False
        while self._health.available and self._writing < _MOST_WRITING and (put := self._queue.take()) is not None:
            left_ms = put.stored.born_ms + put.stored.ttl_ms - self._now_ms()
            if left_ms < 1 or not self._worth_writing(put.source, put.key, put.stored):
                self.dropped_puts.add()
                continue
            self._writing += 1
            keys = entry_keys(self._epoch, put.source, put.key)
            arguments = write_arguments(keys, put.version, pack(put.stored), left_ms)
            WRITE.send(self._client.background, arguments, partial(self._written, put))

    def _written(self, put: Put, reply: Reply) -> None:
        self._writing -= 1
        if len(self._queue):
            self._write_soon()
        if reply == 1:
            self.puts.add()
            return
        self.dropped_puts.add()
        if reply == 0:  # invalidated since the call; the message may be late or lost
            self._on_invalidation(put.source, put.key, None)
        elif isinstance(reply, ReadOnlyError | OSError):
            self._lose(reply)
        else:  # out of memory, perhaps; reads still work
            self.errors.add()

    def _lose(self, fault: BaseException) -> None:
        self.errors.add()
        if self._health.record_failure():
            self._announce_loss(fault)
        if isinstance(fault, ReadOnlyError):
            self._unsubscribe()

    def _announce_loss(self, fault: BaseException) -> None:
        self.losses.add()
        self.dropped_puts.add(self._queue.clear())
        self._lost.set()
        self._client.close()
        _log.warning("shared cache lost", server=repr(self.address), trouble=type(fault).__name__)

    def _unsubscribe(self) -> None:
        """End a subscription that does not get the messages of all workers."""
        if self._listener is not None:
            self._listener.cancel()

    async def _watch(self) -> None:
        """Check a server that seems well, and reconnect to a lost one.

        No other task sends a lost server anything.
        """
        while True:
            try:
                async with asyncio.timeout(self._settings.silence_ms / 1000):
                    await self._lost.wait()
            except TimeoutError:
                await self._check()
                continue
            await asyncio.sleep(self._settings.alone_ms / 1000)
            wait = wait_exponential(multiplier=0.1, max=_LONGEST_PAUSE_S) + wait_random(0, 0.2)
            retrying = AsyncRetrying(retry=retry_if_exception_type(FAULTS), wait=wait, sleep=asyncio.sleep)
            await retrying(self._connect)
            _log.info("shared cache recovered", server=repr(self.address))

    async def _check(self) -> None:
        """Find a server that became a replica, hangs, or is not the one of our subscription.

        Replaces a connection that was closed between two commands.
        """
        try:
            async with asyncio.timeout(self._settings.command_ms / 1000):
                await self._client.open()
                for connection in self._client.connections:
                    await require_primary(connection)
            if self._publisher.overdue(asyncio.get_running_loop().time()):
                self._unsubscribe()
                raise ConnectionError("our own messages do not come back")
        except FAULTS as fault:
            self._lose(fault)

    async def _connect(self) -> None:
        """Raises the fault that prevents it, and leaves no connection for commands then.

        Two requests: the first may have to connect, the ping shows the speed.
        """
        try:
            async with asyncio.timeout(self._settings.command_ms / 1000):
                await self._client.open()
                await require_primary(self._client.background)
                epoch = await epoch_of(self._client.background)
                if epoch != self._epoch:  # a subscription may still hang on the server before this one
                    self._unsubscribe()
                    self._epoch = epoch
                listener = self._listener
                if listener is None or not self._subscribed or listener.cancelling():
                    listener = self._listener = await self._subscribe()
            async with asyncio.timeout(self._settings.get_ms / 1000):
                await self._client.reads.ask(_PING)
            if listener.done():
                raise ConnectionError("the subscription was lost again")
        except BaseException:
            self._client.close()
            raise
        self._lost.clear()
        self._health.record_recovery()
        self._publisher.connected(self._client, self._epoch)

    async def _subscribe(self) -> asyncio.Task[None]:
        if self._listener is not None:
            self._unsubscribe()
            await asyncio.wait([self._listener])  # its end must not undo what follows
        subscription = await self._client.connect(self._receive)
        try:
            (reply,) = await subscription.ask(command("SUBSCRIBE", CHANNEL))
            if isinstance(reply, ResponseError):
                raise reply
        except BaseException:
            subscription.close()
            raise
        self._subscribed = True
        listener = self._listen_to(subscription)
        if self._background:  # not the first subscription, in `open`, when nothing is cached yet
            # From here on no invalidation is lost; answers to earlier calls may have been
            # invalidated meanwhile.
            self._subscribed_since_ms = self._now_ms()
            self._on_gap()
        return listener

    def _listen_to(self, subscription: ValkeyConnection) -> asyncio.Task[None]:
        """Its end is handled outside of it: cancelled before its start, a task runs nothing."""

        def cut_off(_: asyncio.Task[None]) -> None:
            subscription.close()
            self._subscribed = False
            self._publisher.disconnected()
            if not self._closing:
                self._on_cut_off()

        listener = self._spawn(self._listen(subscription))
        listener.add_done_callback(cut_off)
        return listener

    async def _listen(self, subscription: ValkeyConnection) -> None:
        """Wait for the end of a subscription. One that does not answer a ping has ended, too."""
        silence_s = self._settings.silence_ms / 1000
        try:
            while not await subscription.ends_within(silence_s):
                async with asyncio.timeout(silence_s):
                    await subscription.ask(_PING)
            raise ConnectionError("the subscription has ended")
        except FAULTS as fault:
            self._lose(fault)

    def _receive(self, payload: bytes) -> None:
        try:
            message = decode_message(payload)
        except msgspec.DecodeError:
            self.errors.add()
            return
        if message.sender == self._worker_id:
            self._publisher.returned(message.token)
            return
        if message.token == FOR_EARLIER_RELEASES or (message.key is None) == (message.prefix is None):
            return
        invalidation = sendable(message.source, message.key, message.prefix)
        self._bury(invalidation)
        if not message.token:  # an earlier release does not invalidate what this one stores
            self._publisher.add(invalidation, publish=False)
        self._on_invalidation(message.source, message.key, message.prefix)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(_report_bug)
        return task


class _PendingMiss:
    """A miss whose callback is scheduled."""

    __slots__ = ("_delivery",)

    def __init__(self, delivery: asyncio.Handle) -> None:
        self._delivery = delivery

    def abandon(self) -> None:
        self._delivery.cancel()


def _report_bug(task: asyncio.Task[None]) -> None:
    """Report a bug of this module or of a callback at once, not when its task is collected."""
    error = None if task.cancelled() else task.exception()
    if error is not None:
        task.get_loop().call_exception_handler(
            {"message": "cashier: a task of the shared cache failed", "exception": error, "task": task}
        )
