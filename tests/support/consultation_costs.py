"""Counted, not timed, cost of a warm consultation: `python -m tests.support.consultation_costs`
writes JSON.

`test_costs` judges it. `--by-function` lists instead how often each function is entered and how
many C functions it calls, the most first.

A process of its own, so that clocks, random numbers and the order of sets repeat. It holds the
whole service, from the bytes of a request to the bytes of its response, on a manual loop; its
sources answer after 2 ms. Customers take turns, one every 4 ms. One second is counted after three
of warm-up, so work that a source does once a second counts once. Each kind of counting has a second
of its own and does not count itself.
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
from unittest.mock import Mock

from tests.support.manual_loop import Clock, ManualLoop, Pipe

CLOCK = Clock()
CUSTOMERS = 50
CONSULTATIONS = 250  # one second
EVERY_MS = 4
ANSWERS_AFTER_MS = 2
SOURCES = ("order", "merchant", "member", "card", "balance", "channel", "quota", "marketing")
PROMOTIONS = "/members/{user_id}/promotions?merchant_id={merchant_id}&currency={currency}&value={value}"
# The part of a path below the package: the first prefix that matches.
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
    """A generator with the same seed wherever none is given."""

    def __init__(self, seed: Any = 1) -> None:
        super().__init__(seed)


def freeze_clocks_and_random() -> None:
    """Replace clocks and random numbers of this process, before any module copies them."""
    for name in ("perf_counter_ns", "monotonic_ns", "thread_time_ns", "time_ns"):
        setattr(time, name, CLOCK.ns)
    for name in ("perf_counter", "monotonic", "time"):
        setattr(time, name, CLOCK.s)
    random.seed(1)
    setattr(random, "Random", Seeded)  # noqa: B010 - to mypy an assignment would be to a type


class CountedService:
    """The service, its sources and its customers."""

    def __init__(self, *, cached: bool) -> None:
        self._answers: dict[bytes, bytes] = {}
        self._requests: list[bytes] = []
        self.responses: list[bytes] = []
        self.on_response: Callable[[], None] = lambda: None
        self.loop = ManualLoop(CLOCK, self._schedule_answers)  # type: ignore[abstract] # implements what is used
        self.loop.run(self._record_answers())
        self.loop.run(self._open(cached=cached))
        self._client = self.loop.accept(self._receive_response)
        self._turn = 0

    async def _record_answers(self) -> None:
        """Take requests and the sources' answers from the sandbox's service."""
        import msgspec

        from cashier.sandbox import LocalUpstreams, World, weather_named
        from cashier.sandbox.generated_population import FIRST_NUMBER

        world = World()
        ask = LocalUpstreams(world, weather_named("still"))
        answers = {"/channels?currency=CNY&country=CN": await ask["channel"](currency="CNY", country="CN")}
        for n in range(FIRST_NUMBER, FIRST_NUMBER + CUSTOMERS):
            user, request = f"u_{n}", world.population.generated.consult_request(n)
            amount, merchant = request["amount"], request["merchant_id"]
            answers[f"/orders/o_{n}"] = await ask["order"](order_id=f"o_{n}")
            answers[f"/merchants/{merchant}"] = await ask["merchant"](merchant_id=merchant)
            answers[f"/members/{user}"] = await ask["member"](user_id=user)
            answers[f"/members/{user}/cards"] = await ask["card"](user_id=user)
            answers[f"/members/{user}/balances"] = await ask["balance"](user_id=user)
            answers[f"/members/{user}/quotas?currency=CNY"] = await ask["quota"](user_id=user, currency="CNY")
            promotions = PROMOTIONS.format(user_id=user, merchant_id=merchant, **amount)
            answers[promotions] = await ask["marketing"](user_id=user, merchant_id=merchant, amount=amount)
            body = msgspec.json.encode(request)
            head = "POST /v1/consult HTTP/1.1\r\nHost: cashier\r\nContent-Type: application/json\r\n"
            self._requests.append(f"{head}X-Request-Id: r_{n}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        for target, answer in answers.items():
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
        await server.startup([Mock()])  # stands for a socket

    def _schedule_answers(self, pipe: Pipe, requests: bytes) -> None:
        """Answer requests of one write at one time; the order is that of the scatter."""
        for head in requests.split(b"\r\n\r\n")[:-1]:
            self.loop.schedule_external(ANSWERS_AFTER_MS, self._answer, pipe, self._answers[head.split(b" ", 2)[1]])

    def _answer(self, pipe: Pipe, answer: bytes) -> None:
        if not pipe.closing:
            pipe.protocol.data_received(answer)

    def _receive_response(self, pipe: Pipe, data: bytes) -> None:
        self.on_response()
        self.responses.append(data)

    def consult(self) -> None:
        """Send the next customer's request, and run until the following one."""
        self._client.protocol.data_received(self._requests[self._turn % CUSTOMERS])
        self._turn += 1
        self.loop.advance(EVERY_MS)

    def consult_for_a_second(self) -> None:
        self.responses.clear()
        for _ in range(CONSULTATIONS):
            self.consult()
        status = {data[:15] for data in self.responses if data.startswith(b"HTTP/1.1 ")}
        assert status == {b"HTTP/1.1 200 OK"}, status
        assert not any(b'"degraded":true' in data for data in self.responses)

    @property
    def writes(self) -> tuple[int, int]:
        """Writes to clients and to sources."""
        return self._client.writes, sum(pipe.writes for pipe in self.loop.upstream_pipes)


def part_of(code: CodeType) -> str:
    """The part that code belongs to. Empty for the test's own code and the loop, which is C in
    uvloop."""
    import uvicorn

    import cashier

    path = code.co_filename
    if path.startswith(_home(cashier)):
        below = path.removeprefix(_home(cashier))
        return next(part for prefix, part in PARTS if below.startswith(prefix))
    if path.startswith(str(Path(__file__).parent.parent)) or path.startswith(_home(asyncio)):
        return ""
    return "server" if path.startswith(_home(uvicorn)) else "libraries"


def _home(package: ModuleType) -> str:
    return str(Path(package.__file__ or "").parent) + "/"


@contextlib.contextmanager
def profiled(python: Counter[CodeType], c: Counter[CodeType]) -> Iterator[None]:
    """Count entries into Python functions, and calls of C functions by caller.

    A coroutine is entered once per wake-up.
    """

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


def entered(service: CountedService) -> tuple[Counter[CodeType], Counter[CodeType]]:
    """The entries of each function in one second, and its calls of C functions."""
    python: Counter[CodeType] = Counter()
    c: Counter[CodeType] = Counter()
    with profiled(python, c):
        service.consult_for_a_second()
    return python, c


def calls(service: CountedService) -> dict[str, float]:
    """Functions entered and C functions called, by part."""
    counts: Counter[str] = Counter()
    for what, counted in zip(("functions", "C functions"), entered(service), strict=True):
        for code, times in counted.items():
            if part := part_of(code):
                counts[f"{what}, {part}"] += times
                counts[f"{what}, all"] += times
    return {what: times / CONSULTATIONS for what, times in sorted(counts.items())}


def by_function(service: CountedService) -> Iterator[str]:
    python, c = entered(service)
    for code in sorted(python | c, key=lambda code: -python[code] - c[code]):
        if part := part_of(code):
            line = f"{Path(code.co_filename).name}:{code.co_firstlineno} {code.co_qualname}"
            yield f"{python[code] / CONSULTATIONS:8.2f} {c[code] / CONSULTATIONS:8.2f}  {part:10} {line}"


def loop_requests(service: CountedService) -> dict[str, float]:
    made, reads, (to_clients, to_sources) = service.loop.made.copy(), CLOCK.reads, service.writes
    service.consult_for_a_second()
    names = ("tasks", "futures", "callbacks", "timers")
    counts = {f"loop, {name}": (service.loop.made[name] - made[name]) / CONSULTATIONS for name in names}
    clients, sources = service.writes
    return counts | {
        "clock reads": (CLOCK.reads - reads) / CONSULTATIONS,
        "writes, to the client": (clients - to_clients) / CONSULTATIONS,
        "writes, to sources": (sources - to_sources) / CONSULTATIONS,
    }


def memory(service: CountedService) -> dict[str, float]:
    """`held`: objects at the response beyond those before the request. `garbage`: cycles for the
    collector."""
    held: list[int] = []
    service.on_response = lambda: held.append(gc.get_count()[0])
    objects, kib = [], []
    tracemalloc.start()
    for _ in range(CONSULTATIONS):
        gc.collect()
        before, traced = gc.get_count()[0], tracemalloc.get_traced_memory()[0]
        held.clear()
        tracemalloc.reset_peak()
        service.consult()
        objects.append(held[-1] - before)
        kib.append((tracemalloc.get_traced_memory()[1] - traced) / 1024)
    tracemalloc.stop()
    service.on_response = lambda: None
    gc.collect()
    service.consult_for_a_second()
    garbage = gc.collect()
    # The median: now and then a list of the service itself grows.
    return {
        "memory, objects held": sorted(objects)[CONSULTATIONS // 2],
        "memory, KiB at most": round(sorted(kib)[CONSULTATIONS // 2]),
        "memory, garbage": garbage / CONSULTATIONS,
    }


def warm(*, cached: bool) -> CountedService:
    service = CountedService(cached=cached)
    gc.disable()
    for _ in range(3):
        service.consult_for_a_second()
    return service


def measured(*, cached: bool) -> dict[str, float]:
    service = warm(cached=cached)
    return {
        what: round(figure, 2) for what, figure in (calls(service) | loop_requests(service) | memory(service)).items()
    }


def main() -> None:
    freeze_clocks_and_random()
    import msgspec

    if "--by-function" in sys.argv:
        output = "\n".join([" entered  calls C  part       function", *by_function(warm(cached=False)), ""]).encode()
    else:
        output = msgspec.json.encode({"live": measured(cached=False), "cached": measured(cached=True)})
    asyncio._set_running_loop(None)
    sys.stdout.buffer.write(output)


if __name__ == "__main__":
    main()
