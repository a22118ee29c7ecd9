"""One address in front of several backends, as a balancer of TCP connections presents them.

Every connection is pinned to one backend for its life. A backend answers members by id, or has the
fault that a test gives it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from enum import Enum, auto
from random import Random
from typing import cast


class Fault(Enum):
    NONE = auto()
    ERROR = auto()  # 500
    UNAVAILABLE = auto()  # 503
    OVERLOADED = auto()  # 503 with Retry-After
    RATE_LIMITED = auto()  # 429
    FORBIDDEN = auto()  # 403, which is not in the contract
    HANGS = auto()
    GARBLES = auto()  # not HTTP
    NO_JSON = auto()
    UNKNOWN_PATH = auto()  # a 404 that is not the service's own
    SLOW = auto()  # 60 ms later
    SHIFTED = auto()  # each answer belongs to the request before
    WRONG_USER = auto()  # the answer is about another user
    RESETS = auto()
    ONE_ANSWER = auto()  # healthy, but closes after each answer
    HTTP_1_0 = auto()  # healthy, and so does this one


SLOW_S = 0.06
_STATUS = {
    Fault.ERROR: b"500 Internal Server Error\r\n",
    Fault.UNAVAILABLE: b"503 Service Unavailable\r\n",
    Fault.OVERLOADED: b"503 Service Unavailable\r\nRetry-After: 1\r\n",
    Fault.RATE_LIMITED: b"429 Too Many Requests\r\n",
    Fault.FORBIDDEN: b"403 Forbidden\r\n",
}


class PinnedBackends:
    """`faults`: of each backend, also for connections that are open. `connects`: loop times.

    `user_faults`: of all backends, for one user each.
    """

    def __init__(self, backends: int, seed: int = 1) -> None:
        self.faults = [Fault.NONE] * backends
        self.served = [0] * backends
        self.connects: list[float] = []
        self.open = 0
        self.port = 0
        self.user_faults: dict[str, Fault] = {}
        self.keys: list[str] = []  # of received POSTs: their bodies
        self._random = Random(seed)
        self._turn: list[int] = []

    def pin(self) -> int:
        """The backend of the next connection: all in turn, in a new random order each time."""
        self.connects.append(asyncio.get_running_loop().time())
        if not self._turn:
            self._turn = self._random.sample(range(len(self.faults)), len(self.faults))
        return self._turn.pop()

    def most_connects_in_a_second(self, since_s: float = 0.0) -> int:
        times = [moment_s for moment_s in self.connects if moment_s >= since_s]
        return max((sum(start <= moment < start + 1 for moment in times) for start in times), default=0)


class _Connection(asyncio.Protocol):
    def __init__(self, backends: PinnedBackends) -> None:
        self._backends = backends
        self._backend = backends.pin()
        self._received = b""
        self._held = _answer(b"200 OK\r\n", b'{"user_id":"nobody","status":"ACTIVE","country":"CN","kyc_level":1}')
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's has no such base class
        self._backends.open += 1

    def connection_lost(self, exc: BaseException | None) -> None:
        self._backends.open -= 1

    def data_received(self, data: bytes) -> None:
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, _, rest = self._received.partition(b"\r\n\r\n")
            _, _, length = head.lower().partition(b"content-length: ")
            body_bytes = int(length.split(b"\r\n")[0]) if length else 0
            if len(rest) < body_bytes:
                return
            self._received = rest[body_bytes:]
            if body_bytes:
                self._backends.keys.append(rest[:body_bytes].decode())
            self._serve(head.split(b" ")[1].decode().rsplit("/", 1)[-1])

    def _serve(self, user: str) -> None:
        assert self._transport is not None
        self._backends.served[self._backend] += 1
        fault = self._backends.user_faults.get(user, self._backends.faults[self._backend])
        body = b'{"user_id":"%s","status":"ACTIVE","country":"CN","kyc_level":1,"usage":[]}' % user.encode()
        answer = _answer(b"200 OK\r\n", body)
        write = self._transport.write
        if fault in _STATUS:
            write(_answer(_STATUS[fault], b"{}"))
            return
        match fault:
            case Fault.HANGS:
                pass
            case Fault.GARBLES:
                write(b"\x00\x01 no HTTP\r\n\r\n")
            case Fault.NO_JSON:
                write(_answer(b"200 OK\r\n", b"<html>"))
            case Fault.UNKNOWN_PATH:
                write(_answer(b"404 Not Found\r\n", b"<html>"))
            case Fault.SLOW:
                asyncio.get_running_loop().call_later(SLOW_S, write, answer)
            case Fault.SHIFTED:
                self._held, answer = answer, self._held
                write(answer)
            case Fault.WRONG_USER:
                write(answer.replace(user.encode(), b"?" * len(user)))
            case Fault.RESETS:
                self._transport.abort()
            case Fault.HTTP_1_0:
                write(answer.replace(b"HTTP/1.1", b"HTTP/1.0", 1))
                self._transport.close()
            case Fault.ONE_ANSWER:
                write(answer)
                self._transport.close()
            case _:
                write(answer)


def _answer(status: bytes, body: bytes) -> bytes:
    return b"HTTP/1.1 %sContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


@contextlib.asynccontextmanager
async def pinned_backends(backends: int = 4, seed: int = 1) -> AsyncIterator[PinnedBackends]:
    pinned = PinnedBackends(backends, seed)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(pinned), "127.0.0.1", 0)
    pinned.port = server.sockets[0].getsockname()[1]
    try:
        yield pinned
    finally:
        server.close()
        await server.wait_closed()
