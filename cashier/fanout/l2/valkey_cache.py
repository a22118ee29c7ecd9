"""The second level in Valkey or Redis, through aiocache's Redis back end: reads, writes behind, and invalidations by pub/sub.

Nothing here may cost a consultation more than a miss. While the server is lost it is left alone, and one task looks for it.
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
from cashier.fanout.l2.valkey_client import CHANNEL, TROUBLE, ValkeySettings, back_end, key_of, keys_beginning
from cashier.fanout.l2.valkey_url import parse_valkey_url
from cashier.fanout.l2.write_behind import Drop, Put, WriteBehind

_log = structlog.get_logger("cashier.cache")

Dropped = Callable[[str, str | None, str | None], None]


class InvalidationMessage(Struct, frozen=True, array_like=True):
    """What workers tell each other on the channel. `teller`: the worker's own id, by which it knows its own words."""

    teller: bytes
    source: str
    key: str | None
    prefix: str | None


class ValkeyCache:
    """A `SecondLevel`, open between `open` and `close`, on one event loop. Its counters are plain integers for whoever shows them.

    `dropped(source, key, prefix)`: another worker invalidated this. `missed()`: invalidations may have gone unheard. Both are called on
    the loop. Raises ValueError for a wrong url.
    """

    def __init__(
        self,
        url: str,
        dropped: Dropped,
        missed: Callable[[], None],
        settings: ValkeySettings | None = None,
        *,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._address = parse_valkey_url(url)
        self._dropped = dropped
        self._missed = missed
        self._settings = settings or ValkeySettings()
        self._now_ms = now_ms
        self._me = os.urandom(8)
        self._standing = ServerHealth()
        self._tombstones = Tombstones()
        self._queue = WriteBehind(self._settings.writes)
        self._looks: set[asyncio.Task[None]] = set()
        self._background: list[asyncio.Task[None]] = []
        self._listening: asyncio.Task[None] | None = None
        self._lost, self._work, self._idle = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._heard_since_ms = 0
        self._scripts = 0  # under way
        self._decode = msgspec.msgpack.Decoder(InvalidationMessage).decode
        self.hits = self.misses = self.puts = self.dropped_puts = self.errors = self.losses = 0

    def __repr__(self) -> str:
        return f"<Valkey {self._address!r} {self._standing!r} hits={self.hits} misses={self.misses} {self._queue!r} {self._tombstones!r}>"

    @property
    def reachable(self) -> bool:
        return self._standing.good

    async def open(self) -> None:
        """Waits for the server as long as for any command, then goes on without it. Never fails because it is not there."""
        self._backend = back_end(self._address, self._settings)
        self._client = self._backend.client
        try:
            await self._find()
        except TROUBLE as trouble:
            self._tell_loss(trouble)
        self._background = [self._spawn(self._look_for_it()), self._spawn(self._write())]

    async def close(self) -> None:
        """Deletes and their messages are still sent, where that is a matter of a moment. Nothing is told to anybody afterwards."""
        self._queue.forget_puts()
        if self._standing.good and len(self._queue):
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.command_ms / 1000):
                    await self._idle.wait()
        self._standing.failed()
        tasks = [*self._background, *self._looks, *([self._listening] if self._listening else [])]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=self._settings.command_ms / 1000)
        with suppress(*TROUBLE):
            # Not through aiocache, whose close() calls what redis deprecates.
            await self._client.aclose()

    def get(self, source: str, key: str, found: Callable[[CachedAnswer | None], None]) -> PendingCall:
        if not self._standing.good or len(self._looks) >= self._settings.gets:
            self.misses += 1
            return _Answered(asyncio.get_running_loop().call_soon(found, None))
        look = _Look(found)
        task = asyncio.get_running_loop().create_task(self._look(source, key, look))
        self._looks.add(task)
        task.add_done_callback(self._looks.discard)
        task.add_done_callback(lambda _: look.answer(None))  # where it was cut off, because this closes
        task.add_done_callback(_loud)
        return look

    def put(self, source: str, key: str, kept: CachedAnswer, ttl_s: float) -> None:
        stored = StoredAnswer(kept.not_found, kept.body, self._now_ms() - kept.age_ms, round(ttl_s * 1000))
        if self._worth_writing(source, key, stored) and self._queue.put(Put(source, key, stored)):
            self._begin_work()
        else:
            self.dropped_puts += 1

    def drop(self, source: str, *, key: str | None = None, prefix: str | None = None) -> None:
        if (key is None) == (prefix is None):
            raise ValueError("either a key or a prefix is dropped")
        self._bury(Drop(source, key, prefix, tell=True))

    def _bury(self, drop: Drop) -> None:
        self._tombstones.bury(drop.source, key=drop.key, prefix=drop.prefix, now_ms=self._now_ms())
        self._queue.drop(drop)
        self._begin_work()

    def _worth_writing(self, source: str, key: str, stored: StoredAnswer) -> bool:
        """Not what may have been invalidated since its call began: told of or, while nobody was listening, untold."""
        if not self._standing.good or len(stored.body) > LARGEST_BYTES or stored.born_ms <= self._heard_since_ms:
            return False
        return not self._tombstones.buried(source, key, stored.born_ms)

    async def _look(self, source: str, key: str, look: _Look) -> None:
        kept = await self._read(source, key)
        if kept is None:
            self.misses += 1
        else:
            self.hits += 1
        look.answer(kept)

    async def run_script(self, script: str, key: bytes, *arguments: str | int) -> Any:
        """What a script on one key answers; None where it has no answer in the time of a read, or none is asked for. Raises nothing.

        One whose answer did not come may have been carried out.
        """
        if not self._standing.good or self._scripts >= self._settings.gets:
            return None
        self._scripts += 1
        try:
            return await self._asked(lambda: self._client.eval(script, 1, key, *arguments))
        finally:
            self._scripts -= 1

    async def _read(self, source: str, key: str) -> CachedAnswer | None:
        value = await self._asked(lambda: self._backend.get(key_of(source, key)))
        stored = None if value is None else unpack(value)
        if stored is None or self._tombstones.buried(source, key, stored.born_ms):
            return None
        return stored.at(self._now_ms())

    async def _asked(self, asking: Callable[[], Awaitable[Any]]) -> Any:
        """What the server answers in the time of a read. None where it does not; what that says of it is noted."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        try:
            async with asyncio.timeout(self._settings.get_ms / 1000):
                value = await asking()
        except TimeoutError as slow:
            self.errors += 1
            if self._standing.slow(began_s, loop.time()):
                self._tell_loss(slow)
            return None
        except ResponseError:  # it lives, and says that this is none of ours
            self.errors += 1
            return None
        except Exception as trouble:  # noqa: BLE001 - whatever goes wrong in a cache, its client included, is a miss
            self._lose(trouble)
            return None
        self._standing.quick()
        return value

    async def _write(self) -> None:
        """Everything that is written goes through here, one after the other: no delete is overtaken by an earlier write."""
        while True:
            operation = self._queue.take() if self._standing.good else None
            if operation is None:
                self._idle.set()
                self._work.clear()
                await self._work.wait()
            elif isinstance(operation, Put):
                await self._carry_out_put(operation)
            else:
                await self._carry_out_drop(operation)

    async def _carry_out_put(self, put: Put) -> None:
        stored = put.stored
        left_ms = stored.born_ms + stored.ttl_ms - self._now_ms()
        if left_ms < 1 or not self._worth_writing(put.source, put.key, stored):
            self.dropped_puts += 1
            return
        try:
            # A float, because only that has milliseconds, and does not call what redis deprecates.
            async with asyncio.timeout(self._settings.command_ms / 1000):
                await self._backend.set(key_of(put.source, put.key), pack(stored), ttl=left_ms / 1000)
            self.puts += 1
        except ResponseError:  # out of memory, perhaps: it still lives, and may be read
            self.errors += 1
            self.dropped_puts += 1
        except TROUBLE as trouble:
            self.dropped_puts += 1
            self._lose(trouble)

    async def _carry_out_drop(self, drop: Drop) -> None:
        try:
            async with asyncio.timeout(self._settings.command_ms / 1000) as bound:
                if drop.prefix is None:
                    await self._backend.delete(key_of(drop.source, drop.key or ""))
                else:
                    async for keys in keys_beginning(self._client, drop.source, drop.prefix):
                        if keys:
                            await self._client.unlink(*keys)
                        bound.reschedule(asyncio.get_running_loop().time() + self._settings.command_ms / 1000)
                if drop.tell:
                    await self._client.publish(
                        CHANNEL,
                        msgspec.msgpack.encode(InvalidationMessage(self._me, drop.source, drop.key, drop.prefix)),
                    )
        except TROUBLE as trouble:
            self._queue.back(drop)
            self._lose(trouble)

    def _begin_work(self) -> None:
        self._idle.clear()
        self._work.set()

    def _lose(self, trouble: BaseException) -> None:
        self.errors += 1
        if self._standing.failed():
            self._tell_loss(trouble)

    def _tell_loss(self, trouble: BaseException) -> None:
        self.losses += 1
        self.dropped_puts += self._queue.forget_puts()
        self._lost.set()
        _log.warning("shared cache lost", server=repr(self._address), trouble=type(trouble).__name__)

    async def _look_for_it(self) -> None:
        """The only one that asks anything of a server that is lost."""
        while True:
            await self._lost.wait()
            await asyncio.sleep(self._settings.alone_ms / 1000)
            wait = wait_exponential(multiplier=0.1, max=5) + wait_random(0, 0.2)
            seeking = AsyncRetrying(retry=retry_if_exception_type(TROUBLE), wait=wait, sleep=asyncio.sleep)
            await seeking(self._find)
            _log.info("shared cache back", server=repr(self._address))

    async def _find(self) -> None:
        """Raises what is in the way. Two questions, because the first may have to connect and the second shows how quick it is."""
        async with asyncio.timeout(self._settings.command_ms / 1000):
            await self._client.ping()
            listening = self._listening
            if listening is None or listening.done():
                listening = self._listening = await self._subscribe()
        async with asyncio.timeout(self._settings.get_ms / 1000):
            await self._client.ping()
        if listening.done():
            raise ConnectionError("the subscription is lost again")
        self._lost.clear()
        self._standing.found()
        self._begin_work()

    async def _subscribe(self) -> asyncio.Task[None]:
        subscription = self._client.pubsub()
        try:
            await subscription.subscribe(CHANNEL)
            if await subscription.get_message(timeout=self._settings.command_ms / 1000) is None:
                raise TimeoutError("no answer to a subscription")
        except BaseException:
            await subscription.aclose()
            raise
        listening = self._spawn(self._listen(subscription))
        if self._background:  # not the first, while it opens and nobody has anything that could have gone stale
            # From here on nothing goes unheard; what was asked of upstreams before may be what was invalidated meanwhile.
            self._heard_since_ms = self._now_ms()
            self._missed()
        return listening

    async def _listen(self, subscription: Any) -> None:
        """`subscription` is redis' PubSub, which is told never to reconnect by itself: that would hide what was missed."""
        asked = False
        try:
            while True:
                message = await subscription.get_message(timeout=self._settings.silence_ms / 1000)
                if message is None and asked:
                    raise TimeoutError("the subscription is silent")
                asked = message is None
                if message is None:
                    await subscription.ping()
                elif message["type"] == "message":
                    self._hear(message["data"])
        except Exception as trouble:
            self._lose(trouble)
            if not isinstance(trouble, TROUBLE):
                raise
        finally:
            await subscription.aclose()

    def _hear(self, told: bytes) -> None:
        try:
            message = self._decode(told)
        except msgspec.DecodeError:
            self.errors += 1
            return
        if message.teller == self._me or (message.key is None) == (message.prefix is None):
            return
        # An earlier write of this worker may have come to the server after the teller's delete.
        self._bury(Drop(message.source, message.key, message.prefix, tell=False))
        self._dropped(message.source, message.key, message.prefix)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(_loud)
        return task


class _Look:
    """A read under way. Abandoned it goes on to its near end, because cutting it off would cost its connection."""

    __slots__ = ("_found",)

    def __init__(self, found: Callable[[CachedAnswer | None], None]) -> None:
        self._found: Callable[[CachedAnswer | None], None] | None = found

    def answer(self, kept: CachedAnswer | None) -> None:
        found, self._found = self._found, None
        if found is not None:
            found(kept)

    def abandon(self) -> None:
        self._found = None


class _Answered:
    """A miss that is about to be told."""

    __slots__ = ("_telling",)

    def __init__(self, telling: asyncio.Handle) -> None:
        self._telling = telling

    def abandon(self) -> None:
        self._telling.cancel()


def _loud(task: asyncio.Task[None]) -> None:
    """A bug of ours, or of who was called back, must not lie unseen in a task until it is collected."""
    error = None if task.cancelled() else task.exception()
    if error is not None:
        task.get_loop().call_exception_handler(
            {"message": "cashier: the shared cache's work failed", "exception": error, "task": task}
        )
