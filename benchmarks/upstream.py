"""A lean upstream: the sandbox's answers for a crowd, encoded ahead, found by path, alone or in batches. Not measured: it must cost little.

`python -m benchmarks.upstream` prints its port and serves until its input ends. `--delay-ms` holds every answer back by so much.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import Any, cast

import httptools
import msgspec
import uvloop

from cashier.sandbox import LocalUpstreams, World, weather_named

FIRST = 100_000
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}"
PROMOTIONS = "/members/{user_id}/promotions?merchant_id={merchant_id}&currency={currency}&value={value}"
# What a batch asks for, one by one.
BATCHES = {
    b"/batch/orders": "/orders/{order_id}",
    b"/batch/merchants": "/merchants/{merchant_id}",
    b"/batch/members": "/members/{user_id}",
    b"/batch/cards": "/members/{user_id}/cards",
    b"/batch/balances": "/members/{user_id}/balances",
    b"/batch/quotas": "/members/{user_id}/quotas?currency={currency}",
    b"/batch/promotions": PROMOTIONS,
}


class Answers(asyncio.Protocol):
    def __init__(self, answers: dict[bytes, bytes], delay_s: float) -> None:
        self._answers = answers
        self._delay_s = delay_s
        self._parser = httptools.HttpRequestParser(self)
        self._target = self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one without saying so

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        target = BATCHES.get(self._target)
        answer = self._answers.get(self._target, NOT_FOUND) if target is None else self._many(target)
        self._target = self._body = b""
        if self._delay_s:
            asyncio.get_running_loop().call_later(self._delay_s, self._answer, answer)
        else:
            self._transport.write(answer)

    def _answer(self, answer: bytes) -> None:
        if not self._transport.is_closing():  # whoever asked may have gone meanwhile
            self._transport.write(answer)

    def _many(self, target: str) -> bytes:
        found = (self._answers.get(target.format_map(asked).encode()) for asked in msgspec.json.decode(self._body)["requests"])
        parts = (b'{"error":{"status":404}}' if one is None else b'{"ok":%b}' % one.partition(b"\r\n\r\n")[2] for one in found)
        return with_head(b'{"answers":[%b]}' % b",".join(parts))


async def answers(users: int) -> dict[bytes, bytes]:
    """Every answer that consultations of `users` users of the crowd can need, by its target."""
    upstreams = LocalUpstreams(World(), weather_named("still"))
    found = {b"/channels?currency=CNY&country=CN": whole(await upstreams["channel"](currency="CNY", country="CN"))}
    for n in range(FIRST, FIRST + users):
        user, order = f"u_{n}", await upstreams["order"](order_id=f"o_{n}")
        assert order is not None
        amount, merchant = order["amount"], order["merchant_id"]
        promotions = PROMOTIONS.format(user_id=user, merchant_id=merchant, **amount)
        asked: dict[str, Any] = {
            f"/orders/o_{n}": order,
            f"/merchants/{merchant}": await upstreams["merchant"](merchant_id=merchant),
            f"/members/{user}": await upstreams["member"](user_id=user),
            f"/members/{user}/cards": await upstreams["card"](user_id=user),
            f"/members/{user}/balances": await upstreams["balance"](user_id=user),
            f"/members/{user}/quotas?currency=CNY": await upstreams["quota"](user_id=user, currency="CNY"),
            promotions: await upstreams["marketing"](user_id=user, merchant_id=merchant, amount=amount),
        }
        found.update({target.encode(): whole(answer) for target, answer in asked.items()})
    return found


def whole(answer: Any) -> bytes:
    return with_head(msgspec.json.encode(answer))


def with_head(body: bytes) -> bytes:
    return HEAD % len(body) + body


async def serve(users: int, delay_ms: float) -> None:
    loop = asyncio.get_running_loop()
    found = await answers(users)
    server = await loop.create_server(lambda: Answers(found, delay_ms / 1000), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="serve nothing: build the answers, and end")
    parser.add_argument("--users", type=int, default=2_000)
    parser.add_argument("--delay-ms", type=float, default=0)
    told = parser.parse_args()
    if told.quick:
        print(f"{len(uvloop.run(answers(10)))} answers for 10 users")
    else:
        uvloop.run(serve(told.users, told.delay_ms))


if __name__ == "__main__":
    main()
