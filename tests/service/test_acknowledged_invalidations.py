"""Two services that share a Valkey that freezes, becomes a replica, or outlives one of them."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from cashier.sandbox import World
from cashier.sandbox.generated_population import FIRST_NUMBER
from tests.fanout.l2.valkey_server import Server, valkey_server
from tests.service.test_service import exchange
from tests.support.command_processes import Command, configured, eventually, running

pytestmark = pytest.mark.processes

USERS = 10
REQUESTS = [
    {**World().population.generated.consult_request(FIRST_NUMBER + number), "deadline_ms": 2500}
    for number in range(USERS)
]


class Pair:
    """Two services with one worker each. The second is only asked."""

    def __init__(self, first: Command, second: Command) -> None:
        self.first = first
        self._urls = [command.address("Serving on") for command in (first, second)]

    def warm(self) -> None:
        for place in (0, 1):
            eventually(partial(self._cached, place), "the cards are not cached")

    def _cached(self, place: int) -> bool:
        return all(self.card(place, number)["status"] == "CACHED" for number in range(USERS))

    def card(self, place: int, number: int) -> dict[str, Any]:
        status, answer = exchange("POST", f"{self._urls[place]}/v1/consult", REQUESTS[number])
        assert status == 200, answer
        return next(source for source in answer["sources"] if source["name"] == "card")

    def invalidate(self, number: int) -> str:
        body = {"source": "card", "key": REQUESTS[number]["user_id"]}
        status, answer = exchange("POST", f"{self._urls[0]}/v1/invalidate", body)
        assert status == 200, answer
        return str(answer["reach"])

    def fetched_since(self, number: int, since_s: float) -> bool:
        """Whether the second service serves cards that were fetched after this moment."""
        return bool(self.card(1, number)["age_ms"] <= (time.monotonic() - since_s) * 1000 + 1)

    def stale(self, since_s: float) -> list[int]:
        return [number for number in range(USERS) if not self.fetched_since(number, since_s)]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[str]:
    with running("sandbox", "--port", "0", "--weather", "still") as command:
        yield command.address("Sandbox on")


@pytest.fixture
def valkey() -> Iterator[Server]:
    with valkey_server() as server:
        yield server


@pytest.fixture
def pair(sandbox: str, valkey: Server, tmp_path: Path) -> Iterator[Pair]:
    path = configured(tmp_path, sandbox, "cache = { fresh_s = 60, stale_s = 120, error_s = 120 }\n")
    path.write_text(path.read_text().replace('shared = ""', f'shared = "{valkey.url}"'))
    with (
        running("serve", "--config", str(path)) as first,
        running("serve", "--config", str(path)) as second,
    ):
        yield Pair(first, second)


def test_no_acknowledgement_while_the_shared_cache_is_frozen(pair: Pair, valkey: Server) -> None:
    pair.warm()
    valkey.stall()
    reaches = {pair.invalidate(number) for number in range(USERS)}
    valkey.go_on()
    assert reaches == {"THIS_WORKER"}
    since_s = time.monotonic()
    eventually(lambda: pair.stale(since_s) == [], "an invalidation was lost")
    eventually(lambda: pair.invalidate(0) == "ALL_WORKERS", "the service did not reconnect")


@pytest.mark.parametrize("frozen_s", [0.0, 1.5])
def test_a_stop_loses_no_invalidation(pair: Pair, valkey: Server, frozen_s: float) -> None:
    pair.warm()
    if frozen_s:
        valkey.stall()
    since_s = time.monotonic()
    for number in range(USERS):
        pair.invalidate(number)
    pair.first.process.send_signal(signal.SIGTERM)
    time.sleep(frozen_s)
    valkey.go_on()
    status, _, logged = pair.first.wait()
    assert status in (0, -signal.SIGTERM)
    assert "were not sent" not in logged
    eventually(lambda: pair.stale(since_s) == [], "an invalidation was lost")


def test_a_replica_loses_no_invalidation(pair: Pair, valkey: Server) -> None:
    pair.warm()
    with valkey_server() as primary, redis.Redis(port=valkey.port) as client:
        client.execute_command("REPLICAOF", "127.0.0.1", primary.port)
        since_s = time.monotonic()
        reaches = [pair.invalidate(number) for number in range(USERS)]
        assert set(reaches) == {"THIS_WORKER"}
        eventually(lambda: pair.stale(since_s) == [], "an invalidation was lost")


def test_an_acknowledged_invalidation_is_seen_at_once(pair: Pair) -> None:
    pair.warm()
    since_s = time.monotonic()
    assert {pair.invalidate(number) for number in range(USERS)} == {"ALL_WORKERS"}
    assert pair.stale(since_s) == []
