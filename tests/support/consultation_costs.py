"""What one warm consultation costs, counted and not timed: `python -m tests.support.consultation_costs` writes it as JSON. Judged by `test_costs`.

`--by-function` tells instead which functions are entered how often, and how many C functions each calls, the most first.

A process of its own, so that every clock, all dice and the order of sets are the same each time. The service is the whole one, from
the bytes of a request to the bytes of its answer, on a loop that is turned by hand; its eight sources answer 2 ms after they were asked.
Consultations come every 4 ms, from customers in turn, and a second of them is counted after three, so that what a source does once a
second is in it once. Each kind of counting has a stretch to itself, and does not count itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any

from tests.support.manual_loop import Clock, HandTurned, Pipe

CLOCK = Clock()
CUSTOMERS = 50
A_SECOND = 250
EVERY_MS = 4
ANSWERS_AFTER_MS = 2
SOURCES = ("order", "merchant", "member", "card", "balance", "channel", "quota", "marketing")
PROMOTIONS = "/members/{user_id}/promotions?merchant_id={merchant_id}&currency={currency}&value={value}"
# Below the package; the first that fits.
PARTS = (
    ("web/codec.py", "encode"),
    ("tokens/consult_token.py", "encode"),
    ("tokens/jws.py", "encode"),
    ("web/", "web"),
    ("fanout/", "fanout"),
    ("wire/", "wire"),
    ("sources/", "sources"),
    ("domain/", "domain"),
    ("", "consult"),
)


class Seeded(random.Random):
    """The same dice for everybody who did not bring a seed."""

    def __init__(self, seed: Any = 1) -> None:
        super().__init__(seed)


def stand_still() -> None:
    """The clocks and dice of this process, before anything takes a copy of them."""
    for name in ("perf_counter_ns", "monotonic_ns", "thread_time_ns", "time_ns"):
        setattr(time, name, CLOCK.ns)
    for name in ("perf_counter", "monotonic", "time"):
        setattr(time, name, CLOCK.s)
    random.seed(1)
    setattr(random, "Random", Seeded)  # noqa: B010 - to mypy an assignment would be to a type


class World:
    """The service, its eight sources and its customers."""

    def __init__(self, *, cached: bool) -> None:
        self._answers: dict[bytes, bytes] = {}
        self._questions: list[bytes] = []
        self.answered: list[bytes] = []
        self.at_answer: Callable[[], None] = lambda: None
        self.loop = HandTurned(CLOCK, self._asked)  # type: ignore[abstract] # what is missing is not used
        self.loop.run(self._furnish())
        self.loop.run(self._open(cached=cached))
        self._client = self.loop.accept(self._answered)
        self._turn = 0

    async def _furnish(self) -> None:
        import msgspec

        from cashier.sandbox import LocalUpstreams, World, weather_named
        from cashier.sandbox.generated_users import FIRST

        world = World()
        ask = LocalUpstreams(world, weather_named("still"))
        found = {"/channels?currency=CNY&country=CN": await ask["channel"](currency="CNY", country="CN")}
        for n in range(FIRST, FIRST + CUSTOMERS):
            user, told = f"u_{n}", world.cast.crowd.consult_request(n)
            amount, merchant = told["amount"], told["merchant_id"]
            found[f"/orders/o_{n}"] = await ask["order"](order_id=f"o_{n}")
            found[f"/merchants/{merchant}"] = await ask["merchant"](merchant_id=merchant)
            found[f"/members/{user}"] = await ask["member"](user_id=user)
            found[f"/members/{user}/cards"] = await ask["card"](user_id=user)
            found[f"/members/{user}/balances"] = await ask["balance"](user_id=user)
            found[f"/members/{user}/quotas?currency=CNY"] = await ask["quota"](user_id=user, currency="CNY")
            promotions = PROMOTIONS.format(user_id=user, merchant_id=merchant, **amount)
            found[promotions] = await ask["marketing"](user_id=user, merchant_id=merchant, amount=amount)
            body = msgspec.json.encode(told)
            head = "POST /v1/consult HTTP/1.1\r\nHost: cashier\r\nContent-Type: application/json\r\n"
            self._questions.append(f"{head}X-Request-Id: r_{n}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        for target, answer in found.items():
            body = msgspec.json.encode(answer)
            self._answers[target.encode()] = (
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )

    async def _open(self, *, cached: bool) -> None:
        from cashier.asgi import configured_app
        from cashier.web.server import ServerSettings, make_server

        text = '[tokens]\nsecrets = ["' + "c" * 32 + '"]\n'
        for name in SOURCES:
            text += f'[sources.{name}]\nurl = "http://127.0.0.1:1"\n' + ("" if cached else "cache = false\n")
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "cashier.toml"
            path.write_text(text)
            server = make_server(ServerSettings(), lambda: configured_app(str(path)))
            server.config.load()
        server.lifespan = server.config.lifespan_class(server.config)
        await server.startup([object()])  # type: ignore[list-item] # in the place of a socket

    def _asked(self, pipe: Pipe, question: bytes) -> None:
        """What is written at once comes at once. Only the scatter's order decides who answers first."""
        for head in question.split(b"\r\n\r\n")[:-1]:
            self.loop.come(ANSWERS_AFTER_MS, self._answer, pipe, self._answers[head.split(b" ", 2)[1]])

    def _answer(self, pipe: Pipe, answer: bytes) -> None:
        if not pipe.closing:
            pipe.protocol.data_received(answer)

    def _answered(self, pipe: Pipe, data: bytes) -> None:
        self.at_answer()
        self.answered.append(data)

    def consult(self) -> None:
        """The next customer, and all that happens until the one after."""
        self._client.protocol.data_received(self._questions[self._turn % CUSTOMERS])
        self._turn += 1
        self.loop.pass_ms(EVERY_MS)

    def consult_for_a_second(self) -> None:
        self.answered.clear()
        for _ in range(A_SECOND):
            self.consult()
        status = {answer[:15] for answer in self.answered if answer.startswith(b"HTTP/1.1 ")}
        assert status == {b"HTTP/1.1 200 OK"}, status
        assert not any(b'"degraded":true' in answer for answer in self.answered)

    @property
    def writes(self) -> tuple[int, int]:
        """To clients, to sources."""
        return self._client.writes, sum(pipe.writes for pipe in self.loop.upstream_pipes)


def part_of(code: CodeType) -> str:
    """Nothing for the scaffolding, and for the loop: uvloop does that in C."""
    import uvicorn

    import cashier

    path = code.co_filename
    if path.startswith(_home(cashier)):
        below = path.removeprefix(_home(cashier))
        return next(part for piece, part in PARTS if below.startswith(piece))
    if path.startswith(str(Path(__file__).parent.parent)) or path.startswith(_home(asyncio)):
        return ""
    return "server" if path.startswith(_home(uvicorn)) else "libraries"


def _home(package: ModuleType) -> str:
    return str(Path(package.__file__ or "").parent) + "/"


@contextlib.contextmanager
def profiled(python: Counter[CodeType], c: Counter[CodeType]) -> Iterator[None]:
    """Counts each entry into a Python function, and each call of a C function by who made it. A coroutine is entered once a wake-up."""

    def profile(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            python[frame.f_code] += 1
        elif event == "c_call":
            c[frame.f_code] += 1

    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(None)


def entered(world: World) -> tuple[Counter[CodeType], Counter[CodeType]]:
    """In a second: how often each function was entered, and how many C functions it called."""
    python: Counter[CodeType] = Counter()
    c: Counter[CodeType] = Counter()
    with profiled(python, c):
        world.consult_for_a_second()
    return python, c


def calls(world: World) -> dict[str, float]:
    """Functions entered and C functions called, by part."""
    found: Counter[str] = Counter()
    for what, counted in zip(("functions", "C functions"), entered(world), strict=True):
        for code, times in counted.items():
            if part := part_of(code):
                found[f"{what}, {part}"] += times
                found[f"{what}, all"] += times
    return {what: times / A_SECOND for what, times in sorted(found.items())}


def by_function(world: World) -> Iterator[str]:
    python, c = entered(world)
    for code in sorted(python | c, key=lambda code: -python[code] - c[code]):
        if part := part_of(code):
            line = f"{Path(code.co_filename).name}:{code.co_firstlineno} {code.co_qualname}"
            yield f"{python[code] / A_SECOND:8.2f} {c[code] / A_SECOND:8.2f}  {part:10} {line}"


def asked_of_the_loop(world: World) -> dict[str, float]:
    made, looks, (to_clients, to_sources) = world.loop.made.copy(), CLOCK.looks, world.writes
    world.consult_for_a_second()
    names = ("tasks", "futures", "turns asked for", "timers")
    found = {f"loop, {name}": (world.loop.made[name] - made[name]) / A_SECOND for name in names}
    clients, sources = world.writes
    return found | {
        "looks at the clock": (CLOCK.looks - looks) / A_SECOND,
        "writes, to the client": (clients - to_clients) / A_SECOND,
        "writes, to sources": (sources - to_sources) / A_SECOND,
    }


def memory(world: World) -> dict[str, float]:
    """`held`: when the answer goes out, beyond what there was before the request came. `garbage`: cycles, for the collector."""
    held: list[int] = []
    world.at_answer = lambda: held.append(gc.get_count()[0])
    objects, kib = [], []
    tracemalloc.start()
    for _ in range(A_SECOND):
        gc.collect()
        before, traced = gc.get_count()[0], tracemalloc.get_traced_memory()[0]
        held.clear()
        tracemalloc.reset_peak()
        world.consult()
        objects.append(held[-1] - before)
        kib.append((tracemalloc.get_traced_memory()[1] - traced) / 1024)
    tracemalloc.stop()
    world.at_answer = lambda: None
    gc.collect()
    world.consult_for_a_second()
    garbage = gc.collect()
    # The middle one: now and then a list of the engine's own grows.
    return {
        "memory, objects held": sorted(objects)[A_SECOND // 2],
        "memory, KiB at most": round(sorted(kib)[A_SECOND // 2]),
        "memory, garbage": garbage / A_SECOND,
    }


def warm(*, cached: bool) -> World:
    world = World(cached=cached)
    gc.disable()
    for _ in range(3):
        world.consult_for_a_second()
    return world


def measured(*, cached: bool) -> dict[str, float]:
    world = warm(cached=cached)
    return {
        what: round(figure, 2) for what, figure in (calls(world) | asked_of_the_loop(world) | memory(world)).items()
    }


def main() -> None:
    stand_still()
    import msgspec

    if "--by-function" in sys.argv:
        told = "\n".join([" entered  calls C  part       function", *by_function(warm(cached=False)), ""]).encode()
    else:
        told = msgspec.json.encode({"live": measured(cached=False), "cached": measured(cached=True)})
    asyncio._set_running_loop(None)
    sys.stdout.buffer.write(told)


if __name__ == "__main__":
    main()
