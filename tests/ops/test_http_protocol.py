"""A client that never ends its request, or reads nothing, loses its connection to the port."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from starlette.types import ASGIApp
from uvicorn import Config
from uvicorn.server import ServerState

from cashier.ops.application import OperationsState, application
from cashier.ops.http_protocol import REQUEST_S, STALLED_S, BoundedHttp
from cashier.ops.server import KEEP_ALIVE_S
from cashier.settings.loader import configuration

pytestmark = pytest.mark.looptime
REQUEST = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n"
HELD = b"GET /held HTTP/1.1\r\nHost: h\r\n\r\n"
HEAD = b"GET / HTTP/1.1\r\nHost: h\r\nX: "


class Connection(asyncio.Transport):
    """A connection to a protocol, at whose other end is a test. `state`: that of its server."""

    def __init__(self, state: ServerState | None = None, most: int | None = None, app: ASGIApp | None = None) -> None:
        super().__init__()
        self.sent = b""
        self.cut_at: float | None = None
        config = Config(
            app or self._app,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            timeout_keep_alive=KEEP_ALIVE_S,
            limit_concurrency=most,
        )
        config.load()
        self.protocol = BoundedHttp(config, state or ServerState(), {})
        self.protocol.connection_made(self)

    async def _app(self, scope: Any, _receive: Any, send: Any) -> None:
        if scope["path"] == "/held":
            await asyncio.Event().wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += data

    def abort(self) -> None:
        self.cut_at = asyncio.get_running_loop().time()
        self.protocol.connection_lost(ConnectionAbortedError())

    def close(self) -> None:
        if self.cut_at is None:
            self.abort()

    def is_closing(self) -> bool:
        return self.cut_at is not None

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


@pytest.mark.parametrize("begun", [b"", b"G", HEAD, POST, POST + b"x" * 9])
async def test_a_request_that_does_not_end_is_cut(begun: bytes) -> None:
    connection = Connection()
    if begun:
        connection.protocol.data_received(begun)
    await asyncio.sleep(REQUEST_S - 1)
    assert connection.cut_at is None
    await asyncio.sleep(1.1)
    assert connection.cut_at == REQUEST_S


@pytest.mark.parametrize("begun", [HEAD, POST])
async def test_a_byte_now_and_then_does_not_keep_it(begun: bytes) -> None:
    connection = Connection()
    connection.protocol.data_received(begun)
    for _ in range(9):
        await asyncio.sleep(1)
        connection.protocol.data_received(b"x")
    await asyncio.sleep(1.1)
    assert connection.cut_at == REQUEST_S


async def test_between_two_requests_there_is_the_time_of_keep_alive_and_a_later_one_has_its_own_bound() -> None:
    connection = Connection()
    for _ in range(3):
        connection.protocol.data_received(REQUEST)
        await asyncio.sleep(KEEP_ALIVE_S - 1)
        assert connection.cut_at is None
    assert connection.sent.count(b"200 OK") == 3
    connection.protocol.data_received(HEAD)
    now = asyncio.get_running_loop().time()
    await asyncio.sleep(REQUEST_S + 1)
    assert connection.cut_at == now + REQUEST_S


async def test_a_reader_that_stalls_is_cut_and_a_slow_one_is_not() -> None:
    connection = Connection()
    connection.protocol.data_received(REQUEST)
    for _ in range(3):
        connection.protocol.pause_writing()
        await asyncio.sleep(STALLED_S - 1)
        connection.protocol.resume_writing()
        await asyncio.sleep(1)
    assert connection.cut_at is None
    connection.protocol.pause_writing()
    now = asyncio.get_running_loop().time()
    await asyncio.sleep(STALLED_S + 1)
    assert connection.cut_at == now + STALLED_S


WITHOUT_A_REQUEST = [b"", b"G", HEAD, POST, POST + b"x" * 9, REQUEST, REQUEST + HEAD]


@pytest.mark.parametrize("begun", WITHOUT_A_REQUEST)
async def test_at_the_bound_the_longest_idle_connection_makes_room(begun: bytes) -> None:
    state, open_ones = ServerState(), []
    held = Connection(state, 3)
    held.protocol.data_received(HELD)
    for _ in range(20):
        connection = Connection(state, 3)
        if begun:
            connection.protocol.data_received(begun)
        await asyncio.sleep(0.01)
        open_ones.append(connection)
        assert [each.cut_at is None for each in open_ones[-3:]] == [False, True, True][-len(open_ones) :]
    assert held.cut_at is None


async def test_at_the_bound_a_new_connection_is_cut_if_all_others_wait_for_responses() -> None:
    state = ServerState()
    held = [Connection(state, 3) for _ in range(3)]
    for each in held:
        each.protocol.data_received(HELD)
    assert Connection(state, 3).cut_at is not None
    assert [each.cut_at for each in held] == [None] * 3
    held[0].close()
    assert Connection(state, 3).cut_at is None


def port_with_a_form() -> ASGIApp:
    """That of the sign-in, where no form of these tests gets to the token."""
    auth: Any = object()
    return application(OperationsState(configuration({}, "test"), None, auth, asyncio.Event()))


OF_US = b"Host: 127.0.0.1\r\nSec-Fetch-Site: same-origin\r\n"
FORM = b"POST /sign-in HTTP/1.1\r\n" + OF_US
INVALID = {
    "a control character": b"\x00\r\n\r\n",
    "an upgrade": b"GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    "a chunk": b"GET /healthz HTTP/1.1\r\n" + OF_US + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a chunk of a HEAD": b"HEAD /healthz HTTP/1.1\r\n" + OF_US + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a chunk of a form": FORM + b"Transfer-Encoding: chunked\r\n\r\n3\r\na=bzz\r\n",
    "a trailer": FORM + b"Transfer-Encoding: chunked\r\n\r\n0\r\n: x\r\n\r\n",
    "a second request": b"GET /healthz HTTP/1.1\r\n" + OF_US + b"\r\n\x00\r\n\r\n",
    "an end within a form": FORM + b"Content-Length: 9\r\n\r\na=",
}


@pytest.mark.parametrize("invalid", INVALID)
@pytest.mark.parametrize("pause", [False, True])
async def test_what_is_wrong_with_a_request_is_no_line_in_the_log(
    caplog: pytest.LogCaptureFixture, invalid: str, pause: bool
) -> None:
    app, data = port_with_a_form(), INVALID[invalid]
    with caplog.at_level(logging.WARNING):
        for at in range(0, len(data), 3):
            connection = Connection(app=app)
            for part in filter(None, (data[:at], data[at:])):
                if connection.cut_at is None:
                    connection.protocol.data_received(part)
                if pause:
                    await asyncio.sleep(0.01)
            connection.close()
            await asyncio.sleep(0.01)
    assert caplog.records == []
