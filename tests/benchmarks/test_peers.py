"""The programs that we measure ourselves against: each must do what it is measured for, or its figure is worth nothing.

The absence of one that is not installed is a failure: these tests are left out unless they are asked for.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import msgspec
import pytest

from benchmarks.lab import Lab
from benchmarks.lab.service import Served
from benchmarks.lab.upstream import LeanUpstream, start_upstream
from benchmarks.lab.upstream_control import Behaviour
from benchmarks.lean_upstream import FIRST_USER, PROMOTIONS
from benchmarks.peers import PEERS, Peer, versions
from cashier.consultation.plan import SOURCE_NAMES, SOURCE_SPECS
from cashier.sandbox import World

pytestmark = pytest.mark.peers

USERS = 40
AT_ONCE = 32
CROWD = World().cast.crowd
CACHED = {question.source.name for question in SOURCE_SPECS if question.cache.on}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("peers"), quick=True, on_progress=lambda _: None)


@pytest.fixture(scope="module")
def sources(lab: Lab) -> Iterator[LeanUpstream]:
    with start_upstream(lab, users=USERS) as found:
        yield found


@pytest.fixture(scope="module", params=PEERS, ids=lambda peer: peer.name)
def peer(request: pytest.FixtureRequest) -> Peer:
    found: Peer = request.param
    if (reason := found.absent()) is not None:
        pytest.fail(reason)
    return found


@pytest.fixture(scope="module")
def served(peer: Peer, lab: Lab, sources: LeanUpstream) -> Iterator[Served]:
    with peer.start(lab, sources.urls) as found:
        yield found


def connected(port: int) -> closing[http.client.HTTPConnection]:
    return closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20))


def consult(connection: http.client.HTTPConnection, n: int) -> dict[str, Any]:
    body = msgspec.json.encode(CROWD.consult_request(n))
    connection.request("POST", "/v1/consult", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    read = answer.read()
    assert answer.status == 200, read
    assert answer.getheader("Content-Length") == str(len(read))
    assert not answer.will_close
    merged: dict[str, Any] = json.loads(read)
    return merged


def straight(sources: LeanUpstream, n: int) -> dict[str, Any]:
    """What the eight say when they are asked one by one; None where one knows nothing."""
    asked = CROWD.consult_request(n)
    user, merchant, amount = asked["user_id"], asked["merchant_id"], asked["amount"]
    targets = {
        "order": f"/orders/{asked['order_id']}",
        "merchant": f"/merchants/{merchant}",
        "member": f"/members/{user}",
        "card": f"/members/{user}/cards",
        "balance": f"/members/{user}/balances",
        "channel": f"/channels?currency={amount['currency']}&country={asked['country']}",
        "quota": f"/members/{user}/quotas?currency={amount['currency']}",
        "marketing": PROMOTIONS.format(user_id=user, merchant_id=merchant, **amount),
    }
    with connected(int(sources.urls["order"].rpartition(":")[2])) as connection:  # every port answers for all
        return {name: get(connection, target) for name, target in targets.items()}


def get(connection: http.client.HTTPConnection, target: str) -> Any:
    connection.request("GET", target)
    answer = connection.getresponse()
    read = answer.read()
    return json.loads(read) if answer.status == 200 else None


def test_it_gives_what_the_eight_say_twice_over_one_connection(served: Served, sources: LeanUpstream) -> None:
    with connected(served.port) as connection:
        connection.connect()
        first_socket = connection.sock
        for n in (FIRST_USER + 1, FIRST_USER + 2):
            said = straight(sources, n)
            assert all(said.values())
            assert consult(connection, n) == said
        assert connection.sock is first_socket


def test_many_at_once_each_get_their_own(served: Served, sources: LeanUpstream) -> None:
    def one(n: int) -> dict[str, Any]:
        with connected(served.port) as connection:
            return consult(connection, n)

    users = range(FIRST_USER + 3, FIRST_USER + 3 + AT_ONCE)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(one, users))
    assert found == [straight(sources, n) for n in users]


def test_what_a_source_does_not_know_is_null(served: Served, sources: LeanUpstream) -> None:
    with connected(served.port) as connection:
        said = straight(sources, FIRST_USER + USERS)
        assert said["order"] is None
        assert consult(connection, FIRST_USER + USERS) == said


def test_it_asks_all_at_the_same_time(served: Served, sources: LeanUpstream) -> None:
    sources.behave(Behaviour(delay_ms=dict.fromkeys(SOURCE_NAMES, 100)))
    with connected(served.port) as connection:
        began = time.perf_counter()
        consult(connection, FIRST_USER + 36)
        took_ms = (time.perf_counter() - began) * 1000
    sources.behave(Behaviour())
    assert 100 <= took_ms < 350


def test_it_asks_again_only_what_it_does_not_cache(peer: Peer, served: Served, sources: LeanUpstream) -> None:
    sources.behave(Behaviour())
    with connected(served.port) as connection:
        first, second = consult(connection, FIRST_USER + 37), consult(connection, FIRST_USER + 37)
    calls = sources.seen().calls
    assert first == second == straight(sources, FIRST_USER + 37)
    assert {name for name in SOURCE_NAMES if calls[name] < 2} == (CACHED if peer.caches else set())


def test_the_report_is_told_the_versions(peer: Peer) -> None:
    asked = {
        "own_fanout": "uvicorn",
        "nginx_lua": "nginx",
        "nginx_lua_cached": "nginx",
        "go": "Go",
        "node": "Node",
        "aiohttp": "aiohttp",
        "fastapi_httpx": "httpx",
    }
    assert versions()[asked[peer.name]][0].isdecimal()
