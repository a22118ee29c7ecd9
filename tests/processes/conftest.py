"""What the tests of processes share: one port for their sandboxes, and services that were started before they are wanted."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from tests.fanout.l2.valkey_server import Server
from tests.fanout.l2.valkey_server import valkey_server as valkey_served

from .services import Fleet, Service, configured
from .upstreams import Upstreams, listening, served

Start = Callable[..., Service]


@pytest.fixture(scope="package")
def listener() -> Iterator[socket.socket]:
    with listening() as found:
        yield found


@pytest.fixture(scope="package")
def port(listener: socket.socket) -> int:
    found: int = listener.getsockname()[1]
    return found


@pytest.fixture(scope="package")
def secrets() -> set[str]:
    """What no service may ever print."""
    return set()


@pytest.fixture(scope="package")
def fleet(port: int, secrets: set[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    found = Fleet(configured(tmp_path_factory.mktemp("fleet") / "cashier.toml", port), secrets)
    yield found
    found.end()


@pytest.fixture
async def upstreams(listener: socket.socket) -> AsyncIterator[Upstreams]:
    async with served(listener) as found:
        yield found


@pytest.fixture
def start(port: int, secrets: set[str], tmp_path: Path) -> Iterator[Start]:
    """Starts a service of a configuration of its own; all are ended with the test."""
    started: list[Service] = []

    def one(**told: object) -> Service:
        path = configured(tmp_path / f"{len(started)}.toml", port, **told)  # type: ignore[arg-type] # as `configured` has them
        started.append(Service(path, secrets))
        return started[-1]

    yield one
    for service in started:
        service.end()


@pytest.fixture(scope="package")
def valkey() -> Iterator[Server]:
    with valkey_served() as server:
        yield server


# A worker believes that another is at a submit for as long as all steps together may take: the sum of these.
_IMPATIENT = "look_ms = 500\ncheck_ms = 1000\ndecide_ms = 500\nsubmit_ms = 4000"


@pytest.fixture(scope="package")
def pairs(
    port: int, secrets: set[str], valkey: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Service]]:
    """Two services of two workers each: of one the workers hear of each other, and of one they do not."""
    directory = tmp_path_factory.mktemp("pairs")
    found = {}
    for name, shared in (("alone", ""), ("with a Valkey", valkey.url)):
        path = configured(directory / f"{name}.toml", port, workers=2, shared=shared, accept=_IMPATIENT)
        found[name] = Service(path, secrets)
    yield found
    for service in found.values():
        service.end()


@pytest.fixture(params=["alone", "with a Valkey"])
async def pair(request: pytest.FixtureRequest, pairs: dict[str, Service]) -> Service:
    return await pairs[request.param].ready()
