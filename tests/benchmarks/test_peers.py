"""The peers: each must do the work that it is measured for, or its figure means nothing.

A peer that is not installed fails these tests, because they run only on request.
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
from benchmarks.lab.upstream import FIRST_USER, PROMOTIONS, SOURCE_NAMES, Behaviour, LeanUpstream, start_upstream
from benchmarks.peers import GATEWAYS, PEERS, Peer, versions
from cashier.consultation.source_table import SOURCE_SPECS
from cashier.sandbox import World

pytestmark = pytest.mark.peers

USERS = 40
AT_ONCE = 32
# The machine may stand still during one.
ATTEMPTS = 10
CROWD = World().population.generated
CACHED = {spec.source.name for spec in SOURCE_SPECS if spec.cache.on}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("peers"), quick=True, on_progress=lambda _: None)


@pytest.fixture(scope="module")
def sources(lab: Lab) -> Iterator[LeanUpstream]:
    with start_upstream(lab, users=USERS) as upstream:
        yield upstream


@pytest.fixture(scope="module", params=PEERS, ids=lambda peer: peer.name)
def peer(request: pytest.FixtureRequest) -> Peer:
    chosen: Peer = request.param
    if (reason := chosen.absent()) is not None:
        pytest.fail(reason)
    return chosen


@pytest.fixture(scope="module")
def served(peer: Peer, lab: Lab, sources: LeanUpstream) -> Iterator[Served]:
    with peer.start(lab, sources.urls) as service:
        yield service


def connected(port: int) -> closing[http.client.HTTPConnection]:
    return closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20))


def consult(connection: http.client.HTTPConnection, n: int) -> dict[str, Any]:
    body = msgspec.json.encode(CROWD.consult_request(n))
    connection.request("POST", "/v1/consult", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    body = answer.read()
    assert answer.status == 200, body
    assert answer.getheader("Content-Length") == str(len(body))
    assert not answer.will_close
    merged: dict[str, Any] = json.loads(body)
    return merged


def timed_consultations(port: int, n: int) -> Iterator[tuple[dict[str, Any], float]]:
    """Answer and duration in ms of one attempt after the other."""
    with connected(port) as connection:
        for _ in range(ATTEMPTS):
            start_s = time.perf_counter()
            answer = consult(connection, n)
            yield answer, (time.perf_counter() - start_s) * 1000


def direct_answers(sources: LeanUpstream, n: int) -> dict[str, Any]:
    """The answers of the sources, asked one by one; None for a 404."""
    request = CROWD.consult_request(n)
    user, merchant, amount = request["user_id"], request["merchant_id"], request["amount"]
    targets = {
        "order": f"/orders/{request['order_id']}",
        "merchant": f"/merchants/{merchant}",
        "member": f"/members/{user}",
        "card": f"/members/{user}/cards",
        "balance": f"/members/{user}/balances",
        "channel": f"/channels?currency={amount['currency']}&country={request['country']}",
        "quota": f"/members/{user}/quotas?currency={amount['currency']}",
        "marketing": PROMOTIONS.format(user_id=user, merchant_id=merchant, **amount),
    }
    # Every port answers for all sources.
    with connected(int(sources.urls["order"].rpartition(":")[2])) as connection:
        return {name: get(connection, target) for name, target in targets.items()}


def get(connection: http.client.HTTPConnection, target: str) -> Any:
    connection.request("GET", target)
    answer = connection.getresponse()
    body = answer.read()
    return json.loads(body) if answer.status == 200 else None


def test_a_peer_merges_the_eight_answers_and_keeps_its_connection(served: Served, sources: LeanUpstream) -> None:
    with connected(served.port) as connection:
        connection.connect()
        first_socket = connection.sock
        for n in (FIRST_USER + 1, FIRST_USER + 2):
            expected = direct_answers(sources, n)
            assert all(expected.values())
            assert consult(connection, n) == expected
        assert connection.sock is first_socket


def test_concurrent_consultations_get_their_own_answers(served: Served, sources: LeanUpstream) -> None:
    def consult_once(n: int) -> dict[str, Any]:
        with connected(served.port) as connection:
            return consult(connection, n)

    users = range(FIRST_USER + 3, FIRST_USER + 3 + AT_ONCE)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        merged = list(pool.map(consult_once, users))
    assert merged == [direct_answers(sources, n) for n in users]


def test_an_unknown_order_is_null(served: Served, sources: LeanUpstream) -> None:
    with connected(served.port) as connection:
        expected = direct_answers(sources, FIRST_USER + USERS)
        assert expected["order"] is None
        assert consult(connection, FIRST_USER + USERS) == expected


def test_a_peer_asks_all_sources_at_the_same_time(served: Served, sources: LeanUpstream) -> None:
    sources.behave(Behaviour(delay_ms=dict.fromkeys(SOURCE_NAMES, 100)))
    times_ms = []
    for _, took_ms in timed_consultations(served.port, FIRST_USER + 36):
        times_ms.append(took_ms)
        if took_ms < 350:
            break
    sources.behave(Behaviour())
    assert 100 <= min(times_ms) < 350


def test_a_peer_asks_again_only_for_what_it_does_not_cache(peer: Peer, served: Served, sources: LeanUpstream) -> None:
    sources.behave(Behaviour())
    with connected(served.port) as connection:
        first, second = consult(connection, FIRST_USER + 37), consult(connection, FIRST_USER + 37)
    calls = sources.seen().calls
    assert first == second == direct_answers(sources, FIRST_USER + 37)
    assert {name for name in SOURCE_NAMES if calls[name] < 2} == (CACHED if peer.caches else set())


@pytest.mark.parametrize("name", GATEWAYS)
def test_a_call_of_a_gateway_ends_by_its_timeout(name: str, lab: Lab, sources: LeanUpstream) -> None:
    gateway = next(peer for peer in PEERS if peer.name == name)
    n = FIRST_USER + 38
    expected = direct_answers(sources, n)
    with gateway.start(lab, sources.urls, call_timeout_ms=150) as served:
        sources.behave(Behaviour(hanging=("quota",)))
        attempts = []
        for answer, took_ms in timed_consultations(served.port, n):
            attempts.append((answer == {**expected, "quota": None}, 150 <= took_ms < 400))
            if all(attempts[-1]):
                break
    sources.behave(Behaviour())
    assert attempts[-1] == (True, True), attempts


def test_a_timeout_is_refused_by_a_peer_that_has_none(lab: Lab, sources: LeanUpstream) -> None:
    node = next(peer for peer in PEERS if not peer.limits_calls)
    with pytest.raises(ValueError, match="no timeout"):
        node.start(lab, sources.urls, call_timeout_ms=150)


def test_the_report_has_the_versions(peer: Peer) -> None:
    program = {
        "own_fanout": "uvicorn",
        "nginx_lua": "nginx",
        "nginx_lua_cached": "nginx",
        "go": "Go",
        "node": "Node",
        "aiohttp": "aiohttp",
        "fastapi_httpx": "httpx",
    }
    assert versions()[program[peer.name]][0].isdecimal()
