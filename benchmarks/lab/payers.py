"""Payers with open pages: their sessions, the requests of their browsers, and random arrivals."""

from __future__ import annotations

import asyncio
import gzip
import http.client
from collections.abc import Sequence
from contextlib import closing
from itertools import cycle
from random import Random
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from benchmarks.lab.in_process import arrive_at_random
from benchmarks.lab.upstream import FIRST_USER
from cashier.sandbox import World

DOCUMENT, UPDATE, STREAM = "text/html", "application/json", "text/event-stream"
_PATIENCE_S = 10.0
_AGENT = (
    "Mozilla/5.0 (Linux; Android 14; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Mobile Safari/537.36"
)


class OpenPage(NamedTuple):
    """A page whose link a browser has opened. `path`: of the page. `cookie`: of its session."""

    path: str
    cookie: str

    def request(self, *, below: str = "", accept: str = DOCUMENT, keep_alive: bool = True) -> bytes:
        """`below`: the rest of the path, such as `/methods`."""
        lines = (
            f"GET {self.path}{below} HTTP/1.1",
            "Host: 127.0.0.1",
            f"Accept: {accept}",
            "Accept-Encoding: gzip, deflate, br",
            "Accept-Language: zh-CN,zh;q=0.9",
            f"Cookie: {self.cookie}",
            "Sec-Fetch-Site: same-origin",
            f"User-Agent: {_AGENT}",
            *(() if keep_alive else ("Connection: close",)),
        )
        return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


def open_checkouts(port: int, users: int) -> list[OpenPage]:
    """The checkout of each user's order."""
    crowd = World().population.generated
    bodies = (crowd.consult_request(number) for number in range(FIRST_USER, FIRST_USER + users))
    return [_opened(port, "/v1/cashier-sessions", body) for body in bodies]


def open_tills(port: int, merchants: Sequence[str]) -> list[OpenPage]:
    """A till of each merchant."""
    fields = {"terminal_id": "t_1", "currency": "CNY"}
    return [_opened(port, "/v1/till-sessions", {"merchant_id": merchant, **fields}) for merchant in merchants]


def _opened(port: int, sessions: str, body: Any) -> OpenPage:
    """Raises RuntimeError if the service opens no page."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE_S)) as connection:
        connection.request("POST", sessions, msgspec.json.encode(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        opened = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"the answer to {sessions} is {answer.status}: {opened.decode()}")
        link = urlsplit(msgspec.json.decode(opened)["url"])
        connection.request("GET", f"{link.path}?{link.query}")
        answer = connection.getresponse()
        answer.read()
    cookies = [value.partition(";")[0] for name, value in answer.getheaders() if name.lower() == "set-cookie"]
    if not cookies:
        raise RuntimeError(f"the link of {sessions} opens nothing: {answer.status}")
    return OpenPage(link.path, "; ".join(cookies))


class Visitors:
    """Browsers that arrive at random, each on a connection of its own.

    A payer loads the checkout and follows its updates to their end. For every `PAYERS_PER_CODE`
    payers a till shows its merchant's printed code, which is drawn for it. `unanswered`: requests
    without a 200.
    """

    PAYERS_PER_CODE = 4

    def __init__(self, port: int, checkouts: Sequence[OpenPage], tills: Sequence[OpenPage], seed: int = 1) -> None:
        self.payers = self.codes = self.unanswered = 0
        self._port = port
        self._checkouts = cycle(checkouts)
        self._tills = cycle(tills)
        self._random = Random(seed)

    def __repr__(self) -> str:
        return f"Visitors({self.payers} payers, {self.codes} codes, {self.unanswered} unanswered)"

    async def arrive(self, per_s: float, seconds: float) -> None:
        """`per_s` payers on average. Returns when all are served."""
        visits: list[asyncio.Task[None]] = []
        await arrive_at_random(
            per_s, seconds, self._random, lambda _: visits.append(asyncio.create_task(self._visit()))
        )
        await asyncio.gather(*visits)

    async def _visit(self) -> None:
        page = next(self._checkouts)
        self.payers += 1
        await self._load(page.request(keep_alive=False))
        await self._load(page.request(below="/methods", accept=STREAM, keep_alive=False))
        if self.payers % self.PAYERS_PER_CODE == 0:
            self.codes += 1
            await self._load(next(self._tills).request(below="/code", keep_alive=False))

    async def _load(self, request: bytes) -> None:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                with closing(writer):
                    writer.write(request)
                    answer = await reader.read()
        except (OSError, TimeoutError):
            answer = b""
        self.unanswered += not answer.startswith(b"HTTP/1.1 200 ")


def weights(port: int, page: OpenPage) -> dict[str, int]:
    """Bytes of document, style sheet and script as they are sent."""
    document = _fetched(port, page.path, page.cookie)
    html = gzip.decompress(document).decode()
    found = {name: _between(html, before, '"') for name, before in _ASSETS}
    return {"document": len(document), **{name: len(_fetched(port, path, "")) for name, path in found.items()}}


_ASSETS = (("style sheet", '<link rel="stylesheet" href="'), ("script", '<script src="'))


def _between(text: str, before: str, after: str) -> str:
    return text.partition(before)[2].partition(after)[0]


def _fetched(port: int, path: str, cookie: str) -> bytes:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE_S)) as connection:
        connection.request("GET", path, headers={"Accept-Encoding": "gzip", "Cookie": cookie})
        answer = connection.getresponse()
        body = answer.read()
    if answer.status != 200 or answer.getheader("content-encoding") != "gzip":
        raise RuntimeError(f"the answer to {path} is {answer.status}")
    return body
