"""The gateway recipes with the real programs: requests, event streams, long polls, restarts."""

from __future__ import annotations

import asyncio
import itertools
import signal
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from http.client import HTTPSConnection
from pathlib import Path
from typing import cast

import aiohttp
import pytest

from cashier.sandbox import CASES
from cashier.sandbox.weather import Constant, FaultProfile
from cashier.web.application import BODY_LIMIT_BYTES
from cashier.web.server import ServerSettings

from .gateways import (
    RECIPE,
    RECIPES,
    GatewayAddress,
    echo_server,
    events,
    free_ports,
    haproxy_edge,
    process,
    program_of,
    sent_headers,
    session,
    until_ready,
)
from .payer import ELSEWHERE, Payer
from .services import Service, end_all, write_configuration
from .upstreams import TIMEOUT_S, Upstreams

pytestmark = [pytest.mark.peers, pytest.mark.processes]

ORDER = CASES["chinese_shop"].request
JSON = {"Content-Type": "application/json"}
EVENTS = {"Accept": "text/event-stream"}


@pytest.fixture(params=list(RECIPE))
def gateway(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if program_of(name) is None:
        reason = f"{name} is not installed"
        (pytest.fail if request.config.getoption("--require-programs") else pytest.skip)(reason)
    return name


@pytest.fixture
def instances(port: int, secrets: set[str], tmp_path: Path) -> Iterator[list[int]]:
    """The ports of two running services. New ones for each world: a service remembers."""
    ports = free_ports(2)
    paths = [write_configuration(tmp_path / f"{each}.toml", port, port=each) for each in ports]
    running = [Service(path, secrets) for path in paths]
    yield ports
    end_all(running)


@pytest.fixture
async def url(gateway: str, instances: list[int], upstreams: Upstreams, tmp_path: Path) -> AsyncIterator[str]:
    """The gateway before both services."""
    for port in instances:
        await until_ready(f"http://127.0.0.1:{port}")
    with process(gateway, tmp_path, instances) as address:
        await until_ready(address)
        yield address


async def test_a_consultation_passes_with_its_request_id(url: str) -> None:
    async with session() as client:
        async with client.post(f"{url}/v1/consult", json=ORDER, headers={"X-Request-Id": "r-17"}) as response:
            assert (response.status, response.headers["X-Request-Id"]) == (200, "r-17")
            assert (await response.json())["payable"]
        async with client.post(f"{url}/v1/consult", json=ORDER) as response:
            assert response.headers["X-Request-Id"]
        async with client.post(f"{url}/v1/consult", data=b"{", headers=JSON) as response:
            assert (response.status, (await response.json())["code"]) == (400, "MALFORMED")


@pytest.mark.parametrize("excess", [1, 200_000])
async def test_a_large_body_is_refused(url: str, excess: int) -> None:
    """By the service with a problem, or by the gateway if it is very large."""
    async with session() as client:
        body = b" " * (BODY_LIMIT_BYTES + excess)
        async with client.post(f"{url}/v1/consult", data=body, headers=JSON) as response:
            assert response.status == 413
            if excess == 1:
                assert (await response.json(content_type=None))["code"] == "TOO_LARGE"
        async with client.post(f"{url}/v1/consult", json=ORDER) as response:
            assert response.status == 200


async def test_an_event_arrives_before_the_stream_ends(url: str, upstreams: Upstreams) -> None:
    slow_s = 1.5
    upstreams.weather.change("quota", FaultProfile(Constant(slow_s * 1000)))
    asked = {**ORDER, "deadline_ms": 4000}
    async with session() as client, client.post(f"{url}/v1/consult", json=asked, headers=EVENTS) as response:
        assert response.status == 200
        received = [each async for each in events(response)]
    # Other late sources may add an answer of their own.
    *answers, (last, _) = received
    assert {name for name, _ in answers} == {"answer"}
    assert last == "end"
    assert answers[-1][1] - answers[0][1] > slow_s / 2, "the first answer waited for the last"


async def test_a_long_poll_and_an_event_stream_follow_a_payment(
    url: str, upstreams: Upstreams, secrets: set[str]
) -> None:
    behind = cast("Service", GatewayAddress(url))  # a payer sends its requests there
    async with Payer(behind, secrets) as payer:
        payment = (await payer.submit(await payer.consult(ELSEWHERE), "k")).body
        (poll,) = await payer.start_connected([payer.look(payment, 20_000)])
        (stream,) = await payer.start_connected([payer.follow(payment)])
        await asyncio.sleep(1.0)
        assert [poll.done(), stream.done()] == [False, False]
        upstreams.world.engine.settle(payment["payment_id"], "SUCCEEDED")
        reply = await poll
        assert (reply.status, reply.body["status"]) == (200, "SUCCEEDED")
        assert [name for name, _ in await stream] == ["payment", "payment", "end"]
        assert payer.lost == 0


async def test_headers_pass_and_connections_are_reused(gateway: str, tmp_path: Path) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    own = {"traceparent": trace, "Authorization": "Bearer t", "X-Payment-Token": "p" * 4000, "X-Priority": "high"}
    async with echo_server() as (echo, first), echo_server() as (other, second), session() as client:
        with process(gateway, tmp_path, [first, second]) as url:
            await until_ready(url)
            forged = {"X-Forwarded-For": "203.0.113.7"}
            async with client.post(f"{url}/v1/consult?a=b", data=b"{}", headers={**own, **forged}) as response:
                head = await response.text()
            assert head.startswith("POST /v1/consult?a=b HTTP/1.1\r\n")
            headers = sent_headers(head)
            assert {name: headers[name.lower()] for name in own} == own
            assert headers["x-request-id"]
            assert headers["x-forwarded-for"] == "127.0.0.1", "a client's claim counts for nothing"
            before = echo.connections + other.connections
            for _ in range(200):
                async with client.post(f"{url}/v1/consult", data=b"{}") as response:
                    assert response.status == 200
            # Checks of health may open some.
            assert echo.connections + other.connections - before < 50


@pytest.mark.parametrize(
    ("name", "before"),
    [
        ("nginx", "\n        keepalive_timeout "),
        ("haproxy", "pool-purge-delay "),
        ("caddy", "\t\t\tkeepalive "),
        ("envoy", "\n          common_http_protocol_options: {idle_timeout: "),
    ],
)
def test_a_gateway_closes_idle_connections_first(name: str, before: str) -> None:
    text = (RECIPES / RECIPE[name].file).read_text()
    idle_s = float(text.split(before, 1)[1].split("s")[0])
    # HAProxy closes half of them at each step; seven steps leave none of a hundred.
    assert idle_s * (7 if name == "haproxy" else 1) < ServerSettings().keep_alive_s


@pytest.mark.parametrize("gateway", ["haproxy"], indirect=True)
async def test_haproxy_answers_once_more_on_connections_that_a_reload_found_idle(gateway: str, tmp_path: Path) -> None:
    """Clients do not repeat a payment by themselves whose connection was closed under it."""
    async with echo_server() as (_, first), echo_server() as (_, second):
        with haproxy_edge(tmp_path, [first, second]) as edge:
            await until_ready(edge.url, edge.trust)
            with closing(HTTPSConnection("127.0.0.1", edge.port, timeout=TIMEOUT_S, context=edge.trust)) as connection:
                connection.connect()
                connection.auto_open = 0  # no other connection takes the place of one that was closed
                answers = [await asyncio.to_thread(_posted, connection)]
                edge.rotate()
                await edge.until_shown()
                async with asyncio.timeout(TIMEOUT_S):
                    # The former process is told to end a moment after the new one serves.
                    while answers[-1] != (200, "close"):
                        answers.append(await asyncio.to_thread(_posted, connection))
    assert {status for status, _ in answers} == {200}
    assert len(answers) > 1


@pytest.mark.parametrize("gateway", ["haproxy"], indirect=True)
async def test_haproxy_loses_no_connection_at_a_reload(gateway: str, tmp_path: Path) -> None:
    """New ones and kept ones. The former process hands its listening socket to the new one."""
    async with echo_server() as (_, first), echo_server() as (_, second):
        with haproxy_edge(tmp_path, [first, second]) as edge:
            await until_ready(edge.url, edge.trust)
            load = Load(edge.url, edge.trust)
            for _ in range(10):
                before = load.seen.total()
                edge.rotate()
                await edge.until_shown()
                while load.seen.total() < before + 8:  # noqa: ASYNC110 - a busy machine is slow, not wrong
                    await asyncio.sleep(0.01)
            await load.end()
    assert set(load.seen) == {"200"}, load.seen


def _posted(connection: HTTPSConnection) -> tuple[int, str | None]:
    """Status, and what the gateway says of the connection."""
    connection.request("POST", "/v1/payments", b"{}")
    response = connection.getresponse()
    response.read()
    return response.status, response.getheader("connection")


class Load:
    """Clients of a gateway. `seen`: responses by status, and the errors."""

    def __init__(self, url: str, trust: ssl.SSLContext | bool = True) -> None:
        self.seen: Counter[str] = Counter()
        self._url = url
        self._trust = trust
        self._ends = asyncio.Event()
        self._tasks = [asyncio.create_task(self._send(keeps=number % 2 == 0)) for number in range(8)]

    async def end(self) -> None:
        self._ends.set()
        await asyncio.gather(*self._tasks)

    async def _send(self, *, keeps: bool) -> None:
        """Requests one after the other, over one connection (`keeps`) or a new one each time."""
        connector = aiohttp.TCPConnector(ssl=self._trust, force_close=not keeps)
        timeout = aiohttp.ClientTimeout(total=30)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as client:
            for number in itertools.count():
                if self._ends.is_set():
                    return
                await self._request(client, number)
                await asyncio.sleep(0.02)

    async def _request(self, client: aiohttp.ClientSession, number: int) -> None:
        """Consultations, and requests that a gateway must not repeat."""
        path, body = (("/v1/consult", ORDER), ("/v1/invalidate", {"source": "quota", "key": "u_1"}))[number % 2]
        try:
            async with client.post(f"{self._url}{path}", json=body) as response:
                await response.read()
                self.seen[str(response.status)] += 1
        except (aiohttp.ClientError, TimeoutError) as error:
            self.seen[repr(error)] += 1


# Only nginx sends no checks of `/readyz`.
@pytest.mark.parametrize(
    ("gateway", "workers"),
    [("nginx", 1), ("nginx", 2), ("haproxy", 2), ("caddy", 1), ("envoy", 2)],
    indirect=["gateway"],
)
async def test_a_rolling_restart_under_load_fails_no_request(
    gateway: str, workers: int, port: int, secrets: set[str], upstreams: Upstreams, tmp_path: Path
) -> None:
    """With the default delay."""
    ports = free_ports(2)
    delay_s = ServerSettings().shutdown_delay_s
    paths = [
        write_configuration(tmp_path / f"{each}.toml", port, port=each, workers=workers, shutdown_delay_s=delay_s)
        for each in ports
    ]
    running = [Service(path, secrets) for path in paths]
    started = list(running)
    try:
        with process(gateway, tmp_path, ports) as url:
            for each in ports:
                await until_ready(f"http://127.0.0.1:{each}")
            await until_ready(url)
            load = Load(url)
            for index, path in enumerate(paths):
                await asyncio.sleep(1.0)
                running[index].stop()
                assert await running[index].ended() in (0, -signal.SIGTERM)
                await asyncio.sleep(0.5)
                running[index] = Service(path, secrets)
                started.append(running[index])
                await until_ready(f"http://127.0.0.1:{ports[index]}")
            await asyncio.sleep(2.0)
            await load.end()
    finally:
        end_all(started)
    assert set(load.seen) == {"200"}, load.seen
    assert load.seen["200"] > 500
