"""Workers that share a Valkey: an invalidation reaches all of them, and its death costs misses, nothing else. Real processes throughout."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cashier.sandbox import CASES, World
from cashier.sandbox.generated_users import FIRST
from tests.fanout.l2.valkey_server import Server, valkey_server
from tests.service.test_service import exchange
from tests.support.command_processes import configured, eventually, running

pytestmark = pytest.mark.processes

REQUEST = {**CASES["chinese_shop"].request, "deadline_ms": 2500}
WORKERS = 2
# Each exchange has a connection of its own, and either worker may accept it: one of so many is missed once in a million.
BOTH = 20


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
    """By source, its report; and the consultation went well."""
    status, answer = exchange("POST", f"{service}/v1/consult", request)
    assert status == 200, answer
    assert answer["payable"]
    assert not answer["degraded"]
    return {source["name"]: source for source in answer["sources"]}


def warm(service: str) -> None:
    eventually(
        lambda: all(ask(service)["card"]["status"] == "CACHED" for _ in range(BOTH)),
        "the workers never had the cards cached",
    )


def invalidate(service: str, told: dict[str, str]) -> Any:
    status, answer = exchange("POST", f"{service}/v1/invalidate", told)
    assert status == 200, answer
    return answer


@pytest.mark.parametrize("told", [{"key": REQUEST["user_id"]}, {"prefix": REQUEST["user_id"][:2]}, {"prefix": ""}])
def test_what_is_invalidated_at_one_worker_is_forgotten_by_all(service: str, told: dict[str, str]) -> None:
    warm(service)
    answer = invalidate(service, {"source": "card", **told})
    assert answer["reach"] == "ALL_WORKERS"
    said = time.monotonic()

    def known_since() -> bool:
        """Fetched after it was said, by this worker or by the other: nothing that was known before. It would have stayed fresh for 30 s."""
        return bool(ask(service)["card"]["age_ms"] <= (time.monotonic() - said) * 1000 + 1)

    eventually(lambda: all(known_since() for _ in range(BOTH)), "some worker never heard of it")
    assert ask(service)["member"]["status"] == "CACHED"


def test_what_one_worker_has_fetched_another_finds(service: str) -> None:
    strangers = itertools.count(FIRST)

    def fetched_once() -> bool:
        """Cards of somebody whom no worker has seen. Each worker would fetch them once if it did not find them."""
        request = {**World().cast.crowd.consult_request(next(strangers)), "deadline_ms": 2500}
        return [ask(service, request)["card"]["status"] for _ in range(BOTH)].count("FRESH") == 1

    # The second worker may ask before what the first has fetched is written.
    eventually(fetched_once, "what one worker has fetched the other never finds")


def test_the_death_and_return_of_the_shared_cache_cost_no_answer(service: str, valkey: Server) -> None:
    warm(service)
    over = threading.Event()
    wrong: list[object] = []
    asked = [0]

    def keep(doing: Callable[[], object]) -> None:
        while not over.is_set():
            try:
                doing()
                asked[0] += 1
            except Exception as error:  # noqa: BLE001 - whatever it is, the test fails by it
                wrong.append(error)
                return

    def forget() -> None:
        invalidate(service, {"source": "card", "key": REQUEST["user_id"]})
        time.sleep(0.01)

    askers = [
        threading.Thread(target=keep, args=(doing,)) for doing in (lambda: ask(service), lambda: ask(service), forget)
    ]
    for asker in askers:
        asker.start()
    try:
        for harm, remedy in ((valkey.kill, valkey.start), (valkey.stall, valkey.go_on)):
            count = asked[0]
            eventually(lambda count=count: asked[0] > count + 50, "nobody asks")  # type: ignore[misc] # count is bound
            harm()
            count = asked[0]
            eventually(lambda count=count: asked[0] > count + 100, "nobody is answered while it is gone")  # type: ignore[misc] # count is bound
            remedy()
    finally:
        over.set()
        for asker in askers:
            asker.join()
    assert wrong == []
    eventually(
        lambda: invalidate(service, {"source": "card", "prefix": ""})["reach"] == "ALL_WORKERS",
        "it was never found again",
    )
    warm(service)
