"""A real service and three times as much as it can do: real sockets, callers who do not wait for each other.

How well it does is measured by `python -m benchmarks overload`. Here stands what must hold on a machine that is busy with other things
as well.
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


class Course(NamedTuple):
    """What came of everybody, and what /healthz said meanwhile."""

    before: list[RequestOutcome]
    during: list[RequestOutcome]
    after: list[RequestOutcome]
    end_s: float
    health: list[bytes]

    def served(self, word: str) -> float:
        those = [each for each in self.during if PRIORITIES[each.which] == word]
        return sum(in_time(each) for each in those) / len(those)


def in_time(outcome: RequestOutcome) -> bool:
    return outcome.status == 200 and outcome.latency_s <= DEADLINE_S


@contextlib.contextmanager
def overloadable() -> Iterator[int]:
    command = [sys.executable, "-m", "tests.support.overload_server", str(COST_MS)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()


def requests() -> list[bytes]:
    head = "POST /v1/consult HTTP/1.1\r\nHost: shop\r\nContent-Type: application/json\r\nX-Priority: {}\r\nContent-Length: {}\r\n\r\n"
    return [head.format(priority, len(BODY)).encode() + BODY for priority in PRIORITIES]


async def listening(port: int) -> None:
    """The port is ours before anybody listens."""
    until_s = time.monotonic() + 60
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return await writer.wait_closed()
        assert time.monotonic() < until_s
        await asyncio.sleep(0.02)


async def health(port: int, seconds: float) -> list[bytes]:
    """What /healthz says, again and again."""
    until_s, found = time.monotonic() + seconds, []
    while time.monotonic() < until_s:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n")
        found.append((await reader.read())[:12])
        writer.close()
        await writer.wait_closed()
        await asyncio.sleep(0.1)
    return found


async def run(port: int) -> Course:
    await listening(port)
    async with open_load(port, requests(), connections=CONNECTIONS) as load:
        before = await load.open(CAPACITY_PER_S * CALM, 1.0, keep=True)
        during, well = await asyncio.gather(load.arrive(CAPACITY_PER_S * 3, SECONDS, keep=True), health(port, SECONDS))
        end_s = time.perf_counter()
        late = await load.open(CAPACITY_PER_S * CALM, 2 * RECOVERY_S, keep=True)
    everybody = [*during.outcomes, *late.outcomes]
    outcomes, after = (
        [each for each in everybody if each.at_s < end_s],
        [each for each in everybody if each.at_s >= end_s],
    )
    return Course(before.outcomes, outcomes, after, end_s, well)


@pytest.fixture(scope="module")
def course() -> Course:
    with overloadable() as port:
        return asyncio.run(run(port))


def share_served(outcomes: list[RequestOutcome]) -> float:
    return sum(each.status == 200 for each in outcomes) / len(outcomes)


def test_before_it_hardly_anybody_is_refused(course: Course) -> None:
    assert share_served(course.before) > 0.9


def test_a_good_part_of_what_can_be_served_at_best_is_served_in_time(course: Course) -> None:
    assert sum(map(in_time, course.during)) > 0.25 * CAPACITY_PER_S * SECONDS


def test_most_are_refused_and_soon(course: Course) -> None:
    refused = [each.latency_s for each in course.during if each.status == REFUSED]
    assert len(refused) > len(course.during) / 3
    assert statistics.median(refused) < DEADLINE_S / 3


def test_those_who_are_let_in_are_not_let_in_for_nothing(course: Course) -> None:
    admitted = [each for each in course.during if each.status != REFUSED]
    assert sum(map(in_time, admitted)) > 0.6 * len(admitted)


def test_who_matters_more_is_served_far_better(course: Course) -> None:
    assert course.served("high") > 0.3
    assert course.served("high") > 2 * course.served("low")


def test_health_is_asked_for_in_vain_never(course: Course) -> None:
    assert set(course.health) == {b"HTTP/1.1 200"}


def test_within_two_seconds_of_the_end_all_are_served_again(course: Course) -> None:
    windows = [
        [each for each in course.after if at_s <= each.at_s - course.end_s < at_s + WINDOW_S]
        for at_s in (n * WINDOW_S for n in range(round(RECOVERY_S / WINDOW_S)))
    ]
    assert any(window and all(map(in_time, window)) for window in windows)
    assert share_served([each for each in course.after if each.at_s > course.end_s + RECOVERY_S]) > 0.9
