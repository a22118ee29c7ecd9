"""The lab of the benchmarks: counts, order of timer calls, parsing of answers."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from benchmarks.lab import Lab
from benchmarks.lab.load import SAMPLES, ResponseReader, open_load
from benchmarks.lab.load_results import LOST, NEVER_SENT, OK, REFUSED, Histogram, RequestOutcome
from benchmarks.lab.precise_timer import PreciseTimer
from benchmarks.lab.process import PROGRAM_CORE, cpu_s, process, python, tree
from benchmarks.lab.requests import check_bare_merge, check_consultation
from benchmarks.lab.upstream import Behaviour, LeanUpstream, start_upstream
from benchmarks.studies.overload import quantile, recovery_s

LENGTH = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 11\r\n\r\nhello world"
BUSY = b"HTTP/1.1 503 No\r\ncontent-length:11\r\n\r\nhello world"
EMPTY = b"HTTP/1.1 404 Not Found\r\nCONTENT-LENGTH: 0\r\n\r\n"


@asynccontextmanager
async def precise_timer() -> AsyncIterator[PreciseTimer]:
    timer = PreciseTimer(asyncio.get_running_loop())
    try:
        yield timer
    finally:
        timer.close()


async def until_empty(timer: PreciseTimer) -> None:
    async with asyncio.timeout(30):
        while timer:  # noqa: ASYNC110  # the calls give no other signal
            await asyncio.sleep(0.001)


async def test_a_timer_calls_in_due_order_and_never_early() -> None:
    called: list[int] = []
    early: list[int] = []
    now_s = time.perf_counter()

    def call(n: int, due_s: float) -> None:
        called.append(n)
        if time.perf_counter() < due_s:
            early.append(n)

    async with precise_timer() as timer:
        for n in (3, 1, 4, 0, 2):
            timer.at(now_s + n / 500, partial(call, n, now_s + n / 500))
        await until_empty(timer)
    assert called == [0, 1, 2, 3, 4]
    assert not early


async def test_a_thousand_calls_due_at_once_keep_their_order() -> None:
    called: list[int] = []
    due_s = time.perf_counter() + 0.005
    async with precise_timer() as timer:
        for n in range(1_000):
            timer.at(due_s, partial(called.append, n))
        await until_empty(timer)
    assert called == list(range(1_000))


async def test_an_overdue_call_is_made_soon_but_not_within_the_request_for_it() -> None:
    called: list[str] = []
    async with precise_timer() as timer:
        timer.at(0.0, partial(called.append, "long ago"))
        assert not called
        await until_empty(timer)
    assert called == ["long ago"]


async def test_a_call_may_schedule_another_and_an_earlier_one_goes_first() -> None:
    called: list[str] = []

    def first() -> None:
        called.append("first")
        timer.at(time.perf_counter() + 0.001, partial(called.append, "scheduled by it"))

    async with precise_timer() as timer:
        timer.at(time.perf_counter() + 60, partial(called.append, "much later"))
        timer.at(time.perf_counter(), first)
        async with asyncio.timeout(30):
            while len(called) < 2:  # noqa: ASYNC110  # the calls give no other signal
                await asyncio.sleep(0.001)
    assert called == ["first", "scheduled by it"]


async def test_a_failing_call_does_not_affect_the_others() -> None:
    called: list[int] = []
    errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))

    def fail() -> None:
        raise KeyError

    async with precise_timer() as timer:
        timer.at(1.0, fail)
        timer.at(2.0, partial(called.append, 1))
        await until_empty(timer)
    assert called == [1]
    assert isinstance(errors[0]["exception"], KeyError)


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [(LENGTH, 200, b"hello world"), (BUSY, 503, b"hello world"), (EMPTY, 404, b"")],
)
def test_the_end_of_an_answer_is_found_wherever_it_is_cut(answer: bytes, status: int, body: bytes) -> None:
    for cut in range(1, len(answer)):
        reader = ResponseReader()
        assert not reader.feed(answer[:cut])
        assert reader.feed(answer[cut:])
        assert (reader.status, reader.body()) == (status, body)
    byte_by_byte = ResponseReader()
    assert [byte_by_byte.feed(bytes([each])) for each in answer] == [False] * (len(answer) - 1) + [True]
    assert byte_by_byte.body() == body


@pytest.mark.parametrize(
    "answer", [LENGTH + b"!", b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", b"nonsense\r\n\r\n"]
)
def test_a_malformed_answer_is_refused(answer: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        ResponseReader().feed(answer)


def test_a_histogram_takes_seconds_and_gives_milliseconds() -> None:
    histogram, other = Histogram(), Histogram()
    assert math.isnan(histogram.at(0.5))
    for ms in range(1, 101):
        histogram.record(ms / 1000)
    other.record(1_000_000)
    histogram.add(other)
    assert histogram.count == 101
    assert histogram.at(0.5) == pytest.approx(51, rel=0.002)
    assert histogram.at(1) == pytest.approx(60_000, rel=0.002)


def test_incomplete_answers_are_detected() -> None:
    parts = ("order", "merchant", "member", "card", "balance", "channel", "quota")
    answer = b"{" + b",".join(b'"%b":{"a":1}' % part.encode() for part in parts)
    assert check_bare_merge(answer + b',"marketing":{"a":1}}') is None
    assert check_bare_merge(answer + b',"marketing":null}') == "without marketing"
    assert check_bare_merge(answer + b"}") == "without marketing"
    consultation = b'{"sources":[{"name":"card","status":"TIMEOUT"}],"payable":true,"methods":[1]}'
    assert check_consultation(consultation) == "without card"


class Server(asyncio.Protocol):
    """Answers; refuses `/refuses`, answers `/slow` after 50 ms, disconnects at `/cut`."""

    connections = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        Server.connections += 1

    def data_received(self, data: bytes) -> None:
        match data.split()[1]:
            case b"/cut":
                self._transport.close()
            case b"/refuses":
                self._transport.write(b'HTTP/1.1 503 No\r\nContent-Length: 21\r\n\r\n{"code":"OVERLOADED"}')
            case b"/slow":
                answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
                asyncio.get_running_loop().call_later(0.05, self._transport.write, answer)
            case _:
                self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


@asynccontextmanager
async def answering() -> AsyncIterator[int]:
    Server.connections = 0
    async with await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0) as listening:
        yield listening.sockets[0].getsockname()[1]


@pytest.mark.timing
async def test_a_closed_loop_counts_every_answer_and_leaves_none_in_flight() -> None:
    async with answering() as port, open_load(port, [b"GET /ok\r\n\r\n"], connections=3) as load:
        first = await load.closed(0.05)
        again = await load.closed(0.05)
    assert first.answered > 3
    assert first.histogram.count == first.answered == first.statuses.total()
    assert again.answered > 3
    assert Server.connections == 3


@pytest.mark.timing
async def test_waiting_for_a_connection_counts_as_latency() -> None:
    async with answering() as port, open_load(port, [b"GET /slow\r\n\r\n"], connections=1) as load:
        interval = await load.open(100, 0.1, keep=True)
    latencies = [outcome.latency_s for outcome in interval.outcomes]
    assert len(latencies) > 4
    # In sequence, and almost all arrived at once.
    assert max(latencies) > 0.05 * (len(latencies) - 3)


@pytest.mark.timing
async def test_arrivals_are_the_same_for_the_same_seed() -> None:
    async def requests_of(seed: int) -> list[int]:
        requests = [b"GET /%d\r\n\r\n" % n for n in range(50)]
        async with answering() as port, open_load(port, requests, connections=1, seed=seed) as load:
            return [outcome.request for outcome in (await load.open(500, 0.1, keep=True)).outcomes]

    first, again, other = [await requests_of(seed) for seed in (1, 1, 2)]
    assert first == again
    assert first[:20] != other[:20]


@pytest.mark.timing
async def test_refused_and_lost_requests_are_counted_and_lost_connections_are_replaced() -> None:
    requests = [b"GET /cut\r\n\r\n", b"GET /refuses\r\n\r\n", b"GET /ok\r\n\r\n"]
    async with answering() as port, open_load(port, requests, connections=64) as load:
        first = await load.open(300, 0.1)
        second = await load.open(300, 0.1)
    for each in (first, second):
        assert min(each.answered, each.refused, each.statuses[LOST]) > 0
        assert each.failed == each.statuses[LOST]
    assert Server.connections > 64


@pytest.mark.timing
async def test_a_request_that_waits_too_long_is_given_up_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.lab.load.PATIENCE_S", 0.06)
    async with answering() as port, open_load(port, [b"GET /slow\r\n\r\n"], connections=1) as load:
        interval = await load.arrive(200, 0.3)
        given_up = interval.statuses[NEVER_SENT]
        await load.rest()
    assert given_up > 0
    assert interval.failed == interval.statuses[NEVER_SENT] >= given_up


@pytest.mark.timing
async def test_the_first_answers_of_each_interval_are_checked() -> None:
    checked: list[bytes] = []

    def check(body: bytes) -> str:
        checked.append(body)
        return "not it"

    async with answering() as port, open_load(port, [b"GET /ok\r\n\r\n"], connections=2, check=check) as load:
        await load.closed(0.05)
        again = await load.closed(0.05)
    assert set(checked) == {b"ok"}
    assert len(checked) == 2 * SAMPLES
    assert again.looked_at == SAMPLES
    assert again.wrong == ["not it"] * SAMPLES


@pytest.mark.timing
def test_the_cpu_of_ended_children_counts() -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    child_first = f"import subprocess, sys, time; subprocess.run([sys.executable, '-c', {burn!r}])"
    parent = f"{child_first}; print('ready', flush=True); time.sleep(60)"
    with process(PROGRAM_CORE, python()[0], "-c", parent) as child:
        assert child.first_line == "ready"
        assert tree(child.pid) == [child.pid]
        assert cpu_s(child.pid) >= 0.28
    assert child.popen.returncode is not None


@pytest.mark.parametrize("ready", [None, lambda: False])
def test_a_program_that_ends_before_it_is_ready_reports_its_error_output(
    tmp_path: Path, ready: Callable[[], bool] | None
) -> None:
    words = [python()[0], "-c", "import sys; sys.stderr.write('no such shop'); sys.exit(3)"]
    with (
        pytest.raises(RuntimeError, match=r"ended with 3 .*no such shop"),
        process(None, *words, ready=ready, log=tmp_path / "log"),
    ):
        pass


def test_a_quick_lab_is_short_and_a_full_one_is_not(tmp_path: Path) -> None:
    progress: list[str] = []
    quick, full = Lab(tmp_path, quick=True, on_progress=progress.append), Lab(tmp_path, rounds=3)
    assert (full.seconds(2.5), full.count(2_000), full.rounds) == (2.5, 2_000, 3)
    assert (quick.seconds(2.5) < 1, quick.count(2_000) <= 100, quick.rounds) == (True, True, 1)
    quick.skip("nginx is absent")
    assert quick.skipped == progress == ["nginx is absent"]


@pytest.fixture(scope="module")
def lean(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LeanUpstream]:
    with start_upstream(Lab(tmp_path_factory.mktemp("lab"), quick=True), users=5) as running:
        yield running


def ask(port: int, target: str, body: bytes = b"") -> bytes:
    head = f"{'POST' if body else 'GET'} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()

    async def once() -> bytes:
        async with open_load(port, [head + body], connections=1, check=bodies.append) as load:
            await load.open(10_000, 0.001)
            return bodies[0] if bodies else b""

    bodies: list[bytes] = []
    return asyncio.run(once())


def port_of(lean: LeanUpstream, name: str) -> int:
    return int(lean.urls[name].rpartition(":")[2])


@pytest.mark.processes
def test_the_upstream_answers_for_every_source_and_counts_by_source(lean: LeanUpstream) -> None:
    lean.behave(Behaviour())
    assert b'"u_100001"' in ask(port_of(lean, "card"), "/members/u_100001/cards")
    assert b'"answers":[{"ok":' in ask(port_of(lean, "card"), "/batch/cards", b'{"requests":[{"user_id":"u_100001"}]}')
    seen = lean.seen()
    assert seen.calls["card"] >= 2
    assert 0 < seen.keys["card"] < seen.calls["card"]
    assert {name for name, calls in seen.calls.items() if calls} == {"card"}
    assert not seen.held


@pytest.mark.timing
def test_the_upstream_delays_as_configured_and_reports_the_actual_delay(lean: LeanUpstream) -> None:
    lean.behave(Behaviour({"order": 20.0, "card": 1.0}))
    ask(port_of(lean, "order"), "/orders/o_100001")
    ask(port_of(lean, "card"), "/members/u_100001/cards")
    held = lean.seen().held
    assert held["order"].p50_ms >= 19.9
    assert held["card"].p50_ms >= 0.99
    assert set(held) == {"order", "card"}


@pytest.mark.processes
def test_the_upstream_refuses_a_behaviour_of_an_unknown_source(lean: LeanUpstream) -> None:
    with pytest.raises(ValueError, match="no such sources: shop"):
        lean.behave(Behaviour(hanging=("shop",)))


def test_recovery_is_the_first_window_in_which_all_were_served_at_normal_latency() -> None:
    def outcome(at_s: float, status: int = OK, latency_s: float = 0.01) -> RequestOutcome:
        return RequestOutcome(at_s, 0, status, latency_s)

    calm = [outcome(n / 100) for n in range(300)]
    assert recovery_s(calm, 1.0, 3.0, 0.01) == 0
    assert recovery_s([*calm, outcome(1.12, REFUSED)], 1.0, 3.0, 0.01) == pytest.approx(0.15)
    assert recovery_s(
        [*calm, *(outcome(1 + n / 100, latency_s=0.05) for n in range(50))], 1.0, 3.0, 0.01
    ) == pytest.approx(0.5)
    assert recovery_s([outcome(n / 100, REFUSED) for n in range(300)], 1.0, 3.0, 0.01) is None
    assert recovery_s([], 1.0, 3.0, 0.01) is None
    assert quantile([], 0.99) == 0
    assert quantile(range(100), 0.99) == 99
