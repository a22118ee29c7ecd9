"""A real service at three times its capacity: real sockets, callers independent of each other.

`python -m benchmarks overload` measures how well it does. These tests hold on a busy machine too.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from benchmarks.lab.load import open_load
from benchmarks.lab.load_results import REFUSED, RequestOutcome
from tests.support.command_processes import ROOT
from tests.web.fake_service import BODY

pytestmark = pytest.mark.timing

COST_MS = 4.0
CAPACITY_PER_S = 1000 / COST_MS
CONNECTIONS = 100
SECONDS = 3.0
RECOVERY_S = 2.0
WINDOW_S = 0.2
DEADLINE_S = 0.15
CALM = 0.2
PRIORITIES = ("high", "normal", "normal", "normal", "low")


class LoadTest(NamedTuple):
    """The outcomes before, during and after the overload, and the status lines of /healthz during
    it."""

    before: list[RequestOutcome]
    during: list[RequestOutcome]
    after: list[RequestOutcome]
    end_s: float
    health: list[bytes]

    def share_in_time(self, priority: str) -> float:
        outcomes = [outcome for outcome in self.during if PRIORITIES[outcome.request] == priority]
        return sum(map(in_time, outcomes)) / len(outcomes)


def in_time(outcome: RequestOutcome) -> bool:
    return outcome.status == 200 and outcome.latency_s <= DEADLINE_S


@contextlib.contextmanager
def overload_server() -> Iterator[int]:
    command = [sys.executable, "-m", "tests.support.overload_server", str(COST_MS)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()


def requests() -> list[bytes]:
    head = (
        "POST /v1/consult HTTP/1.1\r\nHost: shop\r\nContent-Type: application/json\r\n"
        "X-Priority: {}\r\nContent-Length: {}\r\n\r\n"
    )
    return [head.format(priority, len(BODY)).encode() + BODY for priority in PRIORITIES]


async def wait_until_connectable(port: int) -> None:
    """The server prints its port before it accepts connections."""
    until_s = time.monotonic() + 60
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return await writer.wait_closed()
        assert time.monotonic() < until_s
        await asyncio.sleep(0.02)


async def health(port: int, seconds: float) -> list[bytes]:
    """The status lines of /healthz, polled for this time."""
    until_s, status_lines = time.monotonic() + seconds, []
    while time.monotonic() < until_s:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n")
        status_lines.append((await reader.read())[:12])
        writer.close()
        await writer.wait_closed()
        await asyncio.sleep(0.1)
    return status_lines


async def run(port: int) -> LoadTest:
    await wait_until_connectable(port)
    async with open_load(port, requests(), connections=CONNECTIONS) as load:
        before = await load.open(CAPACITY_PER_S * CALM, 1.0, keep=True)
        during, health_lines = await asyncio.gather(
            load.arrive(CAPACITY_PER_S * 3, SECONDS, keep=True), health(port, SECONDS)
        )
        end_s = time.perf_counter()
        late = await load.open(CAPACITY_PER_S * CALM, 2 * RECOVERY_S, keep=True)
    outcomes_since = [*during.outcomes, *late.outcomes]
    outcomes, after = (
        [outcome for outcome in outcomes_since if outcome.due_s < end_s],
        [outcome for outcome in outcomes_since if outcome.due_s >= end_s],
    )
    return LoadTest(before.outcomes, outcomes, after, end_s, health_lines)


@pytest.fixture(scope="module")
def load_test() -> LoadTest:
    with overload_server() as port:
        return asyncio.run(run(port))


def share_served(outcomes: list[RequestOutcome]) -> float:
    return sum(outcome.status == 200 for outcome in outcomes) / len(outcomes)


def test_before_the_overload_few_are_refused(load_test: LoadTest) -> None:
    assert share_served(load_test.before) > 0.9


def test_a_quarter_of_the_capacity_is_served_in_time(load_test: LoadTest) -> None:
    assert sum(map(in_time, load_test.during)) > 0.25 * CAPACITY_PER_S * SECONDS


def test_many_are_refused_and_quickly(load_test: LoadTest) -> None:
    refused = [outcome.latency_s for outcome in load_test.during if outcome.status == REFUSED]
    assert len(refused) > len(load_test.during) / 3
    assert statistics.median(refused) < DEADLINE_S / 3


def test_most_of_the_admitted_are_served_in_time(load_test: LoadTest) -> None:
    admitted = [outcome for outcome in load_test.during if outcome.status != REFUSED]
    assert sum(map(in_time, admitted)) > 0.6 * len(admitted)


def test_a_high_priority_is_served_far_better_than_a_low_one(load_test: LoadTest) -> None:
    assert load_test.share_in_time("high") > 0.3
    assert load_test.share_in_time("high") > 2 * load_test.share_in_time("low")


def test_the_health_endpoint_always_answers(load_test: LoadTest) -> None:
    assert set(load_test.health) == {b"HTTP/1.1 200"}


def test_two_seconds_after_the_overload_all_are_served_again(load_test: LoadTest) -> None:
    windows = [
        [outcome for outcome in load_test.after if at_s <= outcome.due_s - load_test.end_s < at_s + WINDOW_S]
        for at_s in (n * WINDOW_S for n in range(round(RECOVERY_S / WINDOW_S)))
    ]
    assert any(window and all(map(in_time, window)) for window in windows)
    assert share_served([outcome for outcome in load_test.after if outcome.due_s > load_test.end_s + RECOVERY_S]) > 0.9
