"""Fixtures of the process tests: one port for all sandboxes, and services started in advance."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fanout.l2.valkey_server import Server
from tests.fanout.l2.valkey_server import valkey_server as valkey_served

from .services import Fleet, Service, end_all, write_configuration
from .upstreams import Upstreams, listening_socket, served

Start = Callable[..., Service]


@pytest.fixture(scope="package")
def listener() -> Iterator[socket.socket]:
    with listening_socket() as listener:
        yield listener


@pytest.fixture(scope="package")
def port(listener: socket.socket) -> int:
    port: int = listener.getsockname()[1]
    return port


@pytest.fixture(scope="package")
def secrets() -> set[str]:
    """Texts that no service may print."""
    return set()


@pytest.fixture(scope="package")
def fleet(port: int, secrets: set[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    fleet = Fleet(write_configuration(tmp_path_factory.mktemp("fleet") / "cashier.toml", port), secrets)
    yield fleet
    fleet.end()


@pytest.fixture
async def upstreams(listener: socket.socket) -> AsyncIterator[Upstreams]:
    async with served(listener) as upstreams:
        yield upstreams


@pytest.fixture
def start(port: int, secrets: set[str], tmp_path: Path) -> Iterator[Start]:
    """Start services with their own configuration; the test's end kills them."""
    started: list[Service] = []

    def start_service(**settings: Any) -> Service:
        path = write_configuration(tmp_path / f"{len(started)}.toml", port, **settings)
        started.append(Service(path, secrets))
        return started[-1]

    yield start_service
    end_all(started)


@pytest.fixture(scope="package")
def valkey() -> Iterator[Server]:
    with valkey_served() as server:
        yield server


# A worker waits for another one's submit for at most the sum of these.
_SHORT_BUDGETS = "look_ms = 2000\ncheck_ms = 4000\ndecide_ms = 2000\nsubmit_ms = 4000"


class Pairs(dict[str, Service]):
    """Services with two workers each, started when they are asked for."""

    def __init__(self, start: Callable[[str], Service]) -> None:
        super().__init__()
        self._start = start

    def __missing__(self, name: str) -> Service:
        self[name] = service = self._start(name)
        return service


@pytest.fixture
def pairs(port: int, secrets: set[str], valkey: Server, tmp_path: Path) -> Iterator[dict[str, Service]]:
    """With and without a store between the workers. New for each world: a service remembers."""
    shared = {"alone": "", "with a Valkey": valkey.url}

    def start_pair(name: str) -> Service:
        path = write_configuration(
            tmp_path / f"{name}.toml", port, workers=2, shared=shared[name], accept=_SHORT_BUDGETS
        )
        return Service(path, secrets)

    services = Pairs(start_pair)
    yield services
    end_all(services.values())


@pytest.fixture(params=["alone", "with a Valkey"])
async def pair(request: pytest.FixtureRequest, pairs: dict[str, Service]) -> Service:
    return await pairs[request.param].ready()
