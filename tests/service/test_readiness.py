"""Readiness of a cashier: once it has connected to its required sources, and then for good."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from socket import socket
from typing import Any

import pytest
from structlog.testing import capture_logs

from cashier.consultation.source_table import SOURCE_NAMES
from cashier.core import Cashier

REQUIRED = ("order", "merchant", "member")
TIMEOUT_S = 60.0


@contextmanager
def bound_sockets() -> Iterator[dict[str, socket]]:
    """A bound socket per source. It refuses connections until it listens."""
    sockets = {name: socket() for name in SOURCE_NAMES}
    try:
        for listener in sockets.values():
            listener.bind(("127.0.0.1", 0))
        yield sockets
    finally:
        for listener in sockets.values():
            listener.close()


def configured(sockets: dict[str, socket], ready_wait_s: float, **each: Any) -> Cashier:
    urls = {name: f"http://127.0.0.1:{listener.getsockname()[1]}" for name, listener in sockets.items()}
    sources = {name: {"url": url, **each} for name, url in urls.items()}
    return Cashier(config={"server": {"ready_wait_s": ready_wait_s}, "sources": sources})


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while not condition():  # noqa: ASYNC110 - the state sets no event
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("each", [{}, {"http1": {"ahead": 0}}, {"transport": "aiohttp"}], ids=repr)
async def test_a_cashier_is_ready_once_every_required_source_has_accepted_and_stays_so(each: dict[str, Any]) -> None:
    with bound_sockets() as sockets:
        async with configured(sockets, 600.0, **each) as cashier:
            assert cashier.ready, "requests are served all the same"
            for name in REQUIRED:
                await asyncio.sleep(0.02)
                assert not cashier.sources_reached
                sockets[name].listen()
            await until(lambda: cashier.sources_reached)
            for name in REQUIRED:
                sockets[name].close()
            await asyncio.sleep(0.05)
            assert cashier.sources_reached


@pytest.mark.parametrize("ready_wait_s", [0.0, 0.1])
async def test_a_cashier_waits_for_its_sources_only_so_long_and_names_them(ready_wait_s: float) -> None:
    with bound_sockets() as sockets, capture_logs() as logs:
        async with configured(sockets, ready_wait_s) as cashier:
            await until(lambda: cashier.sources_reached)
        (line,) = logs
        assert set(line["missing"]) == set(REQUIRED)


async def test_a_cashier_over_functions_is_ready_at_once() -> None:
    async def function(**_: str) -> None:
        raise AssertionError("it must not be called")

    async with Cashier(sources=dict.fromkeys(SOURCE_NAMES, function)) as cashier:
        assert cashier.sources_reached


async def test_a_cashier_that_still_connects_can_be_closed() -> None:
    with bound_sockets() as sockets:
        async with configured(sockets, 600.0):
            pass
