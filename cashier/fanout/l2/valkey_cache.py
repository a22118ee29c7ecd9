"""The second level in Valkey or Redis: reads, writes behind, invalidations by pub/sub.

Nothing here costs a consultation more than a miss. A lost server gets no requests but those of one
task that probes it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

import msgspec
import structlog
from msgspec import Struct
from redis.exceptions import ResponseError
from tenacity import AsyncRetrying, retry_if_exception_type, wait_exponential, wait_random

from cashier.fanout.ask import PendingCall
from cashier.fanout.l2.entry_codec import LARGEST_BYTES, StoredAnswer, pack, unpack
from cashier.fanout.l2.interface import CachedAnswer
from cashier.fanout.l2.server_health import ServerHealth
from cashier.fanout.l2.tombstones import Tombstones
from cashier.fanout.l2.valkey_backend import CHANNEL, FAULTS, ValkeySettings, backend_for, key_of, keys_with_prefix
from cashier.fanout.l2.valkey_connection import Resolve
from cashier.fanout.l2.valkey_url import parse_valkey_url
from cashier.fanout.l2.write_behind import Drop, Put, WriteBehind

_log = structlog.get_logger("cashier.cache")

# Takes source, key and prefix; key or prefix is None.
OnInvalidation = Callable[[str, str | None, str | None], None]


class InvalidationMessage(Struct, frozen=True, array_like=True):
    """A message between workers on the channel.

    `sender`: the worker's id, by which it ignores its own messages.
    """

    sender: bytes
    source: str
    key: str | None
    prefix: str | None


class ValkeyCache:
    """A `SecondLevel`, usable between `open` and `close` on one event loop.

    `on_invalidation(source, key, prefix)`: another worker invalidated this. `on_gap()`:
    invalidations may have been lost. Both are called on the loop. The counters are plain integers.
    `resolve`: see `backend_for`. Raises ValueError for an invalid URL.
    """

    def __init__(
        self,
        url: str,
        on_invalidation: OnInvalidation,
        on_gap: Callable[[], None],
        settings: ValkeySettings | None = None,
        *,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        resolve: Resolve | None = None,
    ) -> None:
        self._address = parse_valkey_url(url)
        self._resolve = resolve
        self._on_invalidation = on_invalidation
        self._on_gap = on_gap
        self._settings = settings or ValkeySettings()
        self._now_ms = now_ms
        self._worker_id = os.urandom(8)
        self._health = ServerHealth()
        self._tombstones = Tombstones()
        self._queue = WriteBehind(self._settings.writes)
        self._reads: set[asyncio.Task[None]] = set()
        self._background: list[asyncio.Task[None]] = []
        self._listener: asyncio.Task[None] | None = None
        self._lost, self._work, self._idle = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._subscribed_since_ms = 0
        self._scripts = 0  # in progress
        self._decode = msgspec.msgpack.Decoder(InvalidationMessage).decode
        self.hits = self.misses = self.puts = self.dropped_puts = self.errors = self.losses = 0

    def __repr__(self) -> str:
        counts = f"hits={self.hits} misses={self.misses}"
        return f"<ValkeyCache {self._address!r} {self._health!r} {counts} {self._queue!r} {self._tombstones!r}>"

    @property
    def reachable(self) -> bool:
        return self._health.available

    async def open(self) -> None:
        """Wait for the server as long as for any command, then continue without it.

        An absent server is no error.
        """
        self._backend = backend_for(self._address, self._settings, self._resolve)
        self._client = self._backend.client
        try:
            await self._connect()
        except FAULTS as fault:
            self._announce_loss(fault)
        self._background = [self._spawn(self._probe_while_lost()), self._spawn(self._write())]

    async def close(self) -> None:
        """Send queued deletes and their messages, within the time of one command.

        No callback runs afterwards.
        """
        self._queue.forget_puts()
        if self._health.available and len(self._queue):
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.command_ms / 1000):
                    await self._idle.wait()
        self._health.record_failure()
        tasks = [*self._background, *self._reads, *([self._listener] if self._listener else [])]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=self._settings.command_ms / 1000)
        with suppress(*FAULTS):
            # Not through aiocache: its close() calls what redis deprecates.
            await self._client.aclose()

    def get(self, source: str, key: str, on_read: Callable[[CachedAnswer | None], None]) -> PendingCall:
        if not self._health.available or len(self._reads) >= self._settings.gets:
            self.misses += 1
            return _PendingMiss(asyncio.get_running_loop().call_soon(on_read, None))
        read = _PendingRead(on_read)
        task = asyncio.get_running_loop().create_task(self._get(source, key, read))
        self._reads.add(task)
        task.add_done_callback(self._reads.discard)
        task.add_done_callback(lambda _: read.deliver(None))  # if `close` cancelled it
        task.add_done_callback(_report_bug)
        return read

    def put(self, source: str, key: str, answer: CachedAnswer, ttl_s: float) -> None:
        stored = StoredAnswer(answer.not_found, answer.body, self._now_ms() - answer.age_ms, round(ttl_s * 1000))
        if self._worth_writing(source, key, stored) and self._queue.put(Put(source, key, stored)):
            self._wake_writer()
        else:
            self.dropped_puts += 1

    def drop(self, source: str, *, key: str | None = None, prefix: str | None = None) -> None:
        if (key is None) == (prefix is None):
            raise ValueError("either a key or a prefix is dropped")
        self._invalidate(Drop(source, key, prefix, publish=True))

    def _invalidate(self, drop: Drop) -> None:
        self._tombstones.add(drop.source, key=drop.key, prefix=drop.prefix, now_ms=self._now_ms())
        self._queue.drop(drop)
        self._wake_writer()

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
        return not self._tombstones.covers(source, key, stored.born_ms)

    async def _get(self, source: str, key: str, read: _PendingRead) -> None:
        answer = await self._read(source, key)
        if answer is None:
            self.misses += 1
        else:
            self.hits += 1
        read.deliver(answer)

    async def run_script(self, script: str, key: bytes, *arguments: str | int) -> Any:
        """Run a script on one key. Returns None if there is no result in the time of a read.

        Never raises. A script without a result may have been executed, unless the server was lost
        or too many scripts were in progress.
        """
        if not self._health.available or self._scripts >= self._settings.gets:
            return None
        self._scripts += 1
        try:
            return await self._request(lambda: self._client.eval(script, 1, key, *arguments))
        finally:
            self._scripts -= 1

    async def _read(self, source: str, key: str) -> CachedAnswer | None:
        value = await self._request(lambda: self._backend.get(key_of(source, key)))
        stored = None if value is None else unpack(value)
        if stored is None or self._tombstones.covers(source, key, stored.born_ms):
            return None
        return stored.at(self._now_ms())

    async def _request(self, command: Callable[[], Awaitable[Any]]) -> Any:
        """Return the server's answer, or None if there is none within the time of a read.

        Records the server's health.
        """
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        try:
            async with asyncio.timeout(self._settings.get_ms / 1000):
                value = await command()
        except TimeoutError as slow:
            self.errors += 1
            if self._health.record_slow(started_s, loop.time()):
                self._announce_loss(slow)
            return None
        except ResponseError:  # the server works; it refuses this command
            self.errors += 1
            return None
        except Exception as fault:  # noqa: BLE001 - every fault of a cache, of its client too, is a miss
            self._lose(fault)
            return None
        self._health.record_fast()
        return value

    async def _write(self) -> None:
        """Execute all writes, one after the other: an earlier write never overtakes a delete."""
        while True:
            operation = self._queue.take() if self._health.available else None
            if operation is None:
                self._idle.set()
                self._work.clear()
                await self._work.wait()
            elif isinstance(operation, Put):
                await self._execute_put(operation)
            else:
                await self._execute_drop(operation)

    async def _execute_put(self, put: Put) -> None:
        stored = put.stored
        left_ms = stored.born_ms + stored.ttl_ms - self._now_ms()
        if left_ms < 1 or not self._worth_writing(put.source, put.key, stored):
            self.dropped_puts += 1
            return
        try:
            # A float: only that supports milliseconds, and avoids a call that redis deprecates.
            async with asyncio.timeout(self._settings.command_ms / 1000):
                await self._backend.set(key_of(put.source, put.key), pack(stored), ttl=left_ms / 1000)
            self.puts += 1
        except ResponseError:  # out of memory, perhaps; reads still work
            self.errors += 1
            self.dropped_puts += 1
        except FAULTS as fault:
            self.dropped_puts += 1
            self._lose(fault)

    async def _execute_drop(self, drop: Drop) -> None:
        try:
            async with asyncio.timeout(self._settings.command_ms / 1000) as bound:
                if drop.prefix is None:
                    await self._backend.delete(key_of(drop.source, drop.key or ""))
                else:
                    async for keys in keys_with_prefix(self._client, drop.source, drop.prefix):
                        if keys:
                            await self._client.unlink(*keys)
                        bound.reschedule(asyncio.get_running_loop().time() + self._settings.command_ms / 1000)
                if drop.publish:
                    await self._client.publish(
                        CHANNEL,
                        msgspec.msgpack.encode(
                            InvalidationMessage(self._worker_id, drop.source, drop.key, drop.prefix)
                        ),
                    )
        except FAULTS as fault:
            self._queue.requeue(drop)
            self._lose(fault)

    def _wake_writer(self) -> None:
        self._idle.clear()
        self._work.set()

    def _lose(self, fault: BaseException) -> None:
        self.errors += 1
        if self._health.record_failure():
            self._announce_loss(fault)

    def _announce_loss(self, fault: BaseException) -> None:
        self.losses += 1
        self.dropped_puts += self._queue.forget_puts()
        self._lost.set()
        _log.warning("shared cache lost", server=repr(self._address), trouble=type(fault).__name__)

    async def _probe_while_lost(self) -> None:
        """Reconnect to a lost server. No other task sends it anything meanwhile."""
        while True:
            await self._lost.wait()
            await asyncio.sleep(self._settings.alone_ms / 1000)
            wait = wait_exponential(multiplier=0.1, max=5) + wait_random(0, 0.2)
            retrying = AsyncRetrying(retry=retry_if_exception_type(FAULTS), wait=wait, sleep=asyncio.sleep)
            await retrying(self._connect)
            _log.info("shared cache recovered", server=repr(self._address))

    async def _connect(self) -> None:
        """Raises the fault that prevents it.

        Two pings: the first may have to connect, the second shows the speed.
        """
        async with asyncio.timeout(self._settings.command_ms / 1000):
            await self._client.ping()
            listener = self._listener
            if listener is None or listener.done():
                listener = self._listener = await self._subscribe()
        async with asyncio.timeout(self._settings.get_ms / 1000):
            await self._client.ping()
        if listener.done():
            raise ConnectionError("the subscription was lost again")
        self._lost.clear()
        self._health.record_recovery()
        self._wake_writer()

    async def _subscribe(self) -> asyncio.Task[None]:
        subscription = self._client.pubsub()
        try:
            await subscription.subscribe(CHANNEL)
            if await subscription.get_message(timeout=self._settings.command_ms / 1000) is None:
                raise TimeoutError("no answer to a subscription")
        except BaseException:
            await subscription.aclose()
            raise
        listener = self._spawn(self._listen(subscription))
        if self._background:  # not the first subscription, in `open`, when nothing is cached yet
            # From here on no invalidation is lost; answers to earlier calls may have been
            # invalidated meanwhile.
            self._subscribed_since_ms = self._now_ms()
            self._on_gap()
        return listener

    async def _listen(self, subscription: Any) -> None:
        """`subscription` is redis' PubSub.

        It must never reconnect by itself: that would hide lost messages.
        """
        pinged = False
        try:
            while True:
                message = await subscription.get_message(timeout=self._settings.silence_ms / 1000)
                if message is None and pinged:
                    raise TimeoutError("the subscription is silent")
                pinged = message is None
                if message is None:
                    await subscription.ping()
                elif message["type"] == "message":
                    self._receive(message["data"])
        except Exception as fault:
            self._lose(fault)
            if not isinstance(fault, FAULTS):
                raise
        finally:
            await subscription.aclose()

    def _receive(self, payload: bytes) -> None:
        try:
            message = self._decode(payload)
        except msgspec.DecodeError:
            self.errors += 1
            return
        if message.sender == self._worker_id or (message.key is None) == (message.prefix is None):
            return
        # An earlier write of this worker may have reached the server after the sender's delete.
        self._invalidate(Drop(message.source, message.key, message.prefix, publish=False))
        self._on_invalidation(message.source, message.key, message.prefix)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(_report_bug)
        return task


class _PendingRead:
    """A read in progress.

    Abandoned, it runs on to its near timeout: cancelling it would cost its connection.
    """

    __slots__ = ("_on_read",)

    def __init__(self, on_read: Callable[[CachedAnswer | None], None]) -> None:
        self._on_read: Callable[[CachedAnswer | None], None] | None = on_read

    def deliver(self, answer: CachedAnswer | None) -> None:
        on_read, self._on_read = self._on_read, None
        if on_read is not None:
            on_read(answer)

    def abandon(self) -> None:
        self._on_read = None


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
