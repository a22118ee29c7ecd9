"""The real sandbox behind a server that spoils its answers: wrong bodies, heads and connections."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import orjson
from msgspec import Struct

from cashier.sandbox import World, serve, weather_named


class Received(Struct):
    """A request. `number`: how many came before. `under_way`: others that have no answer yet."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    number: int
    under_way: int

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


class Answer(Struct):
    """An answer to change. `headers`: the whole head; None: that of `body`. `ends`: the connection
    is closed after it; without a header that says so.
    """

    status: int
    body: bytes
    headers: dict[str, str]
    ends: bool = False
    delay_s: float = 0.0
    silent: bool = False
    version: str = "1.1"

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    def put(self, value: Any, status: int | None = None) -> Answer:
        """With another body, whose length the head has."""
        self.body = value if isinstance(value, bytes) else orjson.dumps(value)
        self.headers["Content-Length"] = str(len(self.body))
        self.status = status or self.status
        return self

    def encoded(self) -> bytes:
        head = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        return f"HTTP/{self.version} {self.status} X\r\n{head}\r\n".encode() + self.body


Spoil = Callable[[Received, Answer], Answer]


@asynccontextmanager
async def spoiled_sandbox(
    spoil: Spoil, world: World | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """The address of a sandbox whose answers go through `spoil`."""
    async with serve(port=0, world=world or World(), weather=weather_named("still")) as port:
        service = _SpoiledService(port, spoil)
        server = await asyncio.start_server(service.accept, "127.0.0.1", 0, ssl=tls)
        try:
            yield f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            await service.stop()


class _SpoiledService:
    def __init__(self, port: int, spoil: Spoil) -> None:
        self._port = port
        self._spoil = spoil
        self._received = self._under_way = 0
        self._tasks: set[asyncio.Task[Any]] = set()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sandbox_reader, sandbox_writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    head, body = await _message(reader)
                    sandbox_writer.write(head + body)
                    answer = await self._answer(head, body, sandbox_reader)
                    if answer.silent:
                        await asyncio.Event().wait()
                    writer.write(answer.encoded())
                    await writer.drain()
                    if answer.ends:
                        return
        finally:
            sandbox_writer.close()
            writer.close()

    async def _answer(self, head: bytes, body: bytes, sandbox: asyncio.StreamReader) -> Answer:
        first, *lines = head.decode("latin-1").rstrip().split("\r\n")
        method, target, _ = first.split(" ")
        received = Received(method, target, _headers(lines), body, self._received, self._under_way)
        self._received += 1
        self._under_way += 1
        try:
            answer_head, answer_body = await _message(sandbox)
            first, *lines = answer_head.decode("latin-1").rstrip().split("\r\n")
            answer = self._spoil(received, Answer(int(first.split(" ")[1]), answer_body, _headers(lines)))
            if answer.delay_s:
                await asyncio.sleep(answer.delay_s)
            return answer
        finally:
            self._under_way -= 1


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = _headers(head.decode("latin-1").split("\r\n")).get("Content-Length", "0")
    return head, await reader.readexactly(int(length))


def _headers(lines: list[str]) -> dict[str, str]:
    return {name: value.strip() for name, colon, value in (line.partition(":") for line in lines) if colon}
