"""Workers that share a Valkey, as real processes: invalidations reach all, an outage costs only
misses."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cashier.sandbox import CASES, World
from cashier.sandbox.generated_population import FIRST_NUMBER
from tests.fanout.l2.valkey_server import Server, valkey_server
from tests.service.test_service import exchange
from tests.support.command_processes import configured, eventually, running

pytestmark = pytest.mark.processes

REQUEST = {**CASES["chinese_shop"].request, "deadline_ms": 2500}
WORKERS = 2
# Each request has its own connection, which either worker may accept. Twenty miss a worker once in
# a million.
BOTH_WORKERS = 20


@pytest.fixture(scope="module")
def sandbox() -> Iterator[str]:
    with running("sandbox", "--port", "0", "--weather", "still") as command:
        yield command.address("Sandbox on")


@pytest.fixture(scope="module")
def valkey() -> Iterator[Server]:
    with valkey_server() as server:
        yield server


@pytest.fixture(scope="module")
def service(sandbox: str, valkey: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    path = configured(tmp_path_factory.mktemp("shared"), sandbox, "")
    text = path.read_text().replace('shared = ""', f'shared = "{valkey.url}"')
    assert valkey.url in text
    path.write_text(text)
    with running("serve", "--config", str(path), "--workers", str(WORKERS)) as command:
        yield command.address("Serving on")


def ask(service: str, request: dict[str, Any] = REQUEST) -> dict[str, Any]:
    """The report of each source of a consultation that is not degraded."""
    status, answer = exchange("POST", f"{service}/v1/consult", request)
    assert status == 200, answer
    assert answer["payable"]
    assert not answer["degraded"]
    return {source["name"]: source for source in answer["sources"]}


def warm(service: str) -> None:
    eventually(
        lambda: all(ask(service)["card"]["status"] == "CACHED" for _ in range(BOTH_WORKERS)),
        "the workers do not have the cards cached",
    )


def invalidate(service: str, request: dict[str, str]) -> Any:
    status, answer = exchange("POST", f"{service}/v1/invalidate", request)
    assert status == 200, answer
    return answer


@pytest.mark.parametrize("target", [{"key": REQUEST["user_id"]}, {"prefix": REQUEST["user_id"][:2]}, {"prefix": ""}])
def test_an_invalidation_at_one_worker_reaches_all(service: str, target: dict[str, str]) -> None:
    warm(service)
    answer = invalidate(service, {"source": "card", **target})
    assert answer["reach"] == "ALL_WORKERS"
    invalidated_s = time.monotonic()

    def fetched_since() -> bool:
        """Whether the cards were fetched after the invalidation. Cached ones would be fresh for 30
        s."""
        return bool(ask(service)["card"]["age_ms"] <= (time.monotonic() - invalidated_s) * 1000 + 1)

    eventually(lambda: all(fetched_since() for _ in range(BOTH_WORKERS)), "the invalidation did not reach every worker")
    assert ask(service)["member"]["status"] == "CACHED"


def test_one_worker_uses_what_another_has_fetched(service: str) -> None:
    new_users = itertools.count(FIRST_NUMBER)

    def fetched_once() -> bool:
        """Whether the cards of a new user are fetched once, and not once per worker."""
        request = {**World().population.generated.consult_request(next(new_users)), "deadline_ms": 2500}
        return [ask(service, request)["card"]["status"] for _ in range(BOTH_WORKERS)].count("FRESH") == 1

    # The second worker may read before the first has written.
    eventually(fetched_once, "each worker fetches for itself")


def test_an_outage_of_the_shared_cache_costs_no_answer(service: str, valkey: Server) -> None:
    warm(service)
    done = threading.Event()
    errors: list[object] = []
    calls = [0]

    def repeat(action: Callable[[], object]) -> None:
        while not done.is_set():
            try:
                action()
                calls[0] += 1
            except Exception as error:  # noqa: BLE001 - any error fails the test
                errors.append(error)
                return

    def invalidate_cards() -> None:
        invalidate(service, {"source": "card", "key": REQUEST["user_id"]})
        time.sleep(0.01)

    def wait_for_calls(more: int, message: str) -> None:
        enough = calls[0] + more
        eventually(lambda: calls[0] > enough, message)

    threads = [
        threading.Thread(target=repeat, args=(action,))
        for action in (lambda: ask(service), lambda: ask(service), invalidate_cards)
    ]
    for thread in threads:
        thread.start()
    try:
        for break_it, repair_it in ((valkey.kill, valkey.start), (valkey.stall, valkey.go_on)):
            wait_for_calls(50, "no requests")
            break_it()
            wait_for_calls(100, "no answers during the outage")
            repair_it()
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert errors == []
    eventually(
        lambda: invalidate(service, {"source": "card", "prefix": ""})["reach"] == "ALL_WORKERS",
        "the workers did not reconnect",
    )
    warm(service)
