"""Readiness of a cashier: once it has connected to its required sources, and then for good."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from socket import socket
from typing import Any

import pytest
from structlog.testing import capture_logs

from cashier.consultation.source_table import SOURCE_NAMES
from cashier.core import Cashier
from cashier.fanout.ask import Importance
from cashier.fanout.reachability import Reachability
from cashier.settings.loader import configuration
from cashier.settings.schema import SERVICES
from cashier.wire.transport import CallHeaders

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


def states(cashier: Cashier) -> dict[str, Reachability]:
    return {row.name: row.state for row in cashier.reachability()}


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


@pytest.mark.parametrize("each", [{"http1": {"ahead": 0}}, {"transport": "aiohttp"}], ids=repr)
async def test_a_source_is_reachable_while_a_connection_is_open(each: dict[str, Any]) -> None:
    with bound_sockets() as sockets:
        async with configured(sockets, 600.0, **each) as cashier:
            assert states(cashier)["quota"] is Reachability.IDLE, "no call has needed a connection"
            quota = cashier.pipelines["quota"].guard
            failed: list[object] = []
            quota.start({"user_id": "u_1", "currency": "CNY"}, CallHeaders("r"), 500, lambda *got: failed.append(got))
            await until(lambda: bool(failed))
            assert states(cashier)["quota"] is Reachability.UNREACHABLE
            sockets["quota"].listen()
            quota.start({"user_id": "u_1", "currency": "CNY"}, CallHeaders("r"), 60_000, lambda *got: None)
            await until(lambda: states(cashier)["quota"] is Reachability.REACHABLE)
            accepted, _ = sockets["quota"].accept()
            sockets["quota"].close()
            accepted.close()
            await until(lambda: states(cashier)["quota"] is Reachability.UNREACHABLE)


async def test_an_open_breaker_is_reported_until_a_reload_turns_it_off() -> None:
    with bound_sockets() as sockets:
        sockets["quota"].listen()
        async with configured(sockets, 0.0, breaker=True) as cashier:
            await until(lambda: states(cashier)["quota"] is Reachability.REACHABLE)
            endpoint = cashier.pipelines["quota"].guard.endpoints[0]
            now_ns = time.perf_counter_ns()
            for _ in range(20):
                endpoint.record_failure(now_ns, now_ns, counted=False, overload=False)
            assert states(cashier)["quota"] is Reachability.BREAKER_OPEN
            sources = {
                name: {"url": settings.url, "breaker": False}
                for name in SOURCE_NAMES
                if (settings := cashier.config.settings.sources[name]) is not None
            }
            assert cashier.reload(configuration({"sources": sources}, "a test")) == ("[server] has changed",)
            assert states(cashier)["quota"] is Reachability.REACHABLE


async def test_the_report_lists_what_is_in_process_and_what_the_configuration_leaves_out() -> None:
    async def function(**_: str) -> None:
        raise AssertionError("it must not be called")

    without_marketing = {name: function for name in SOURCE_NAMES if name != "marketing"}
    async with Cashier(sources=without_marketing) as cashier:
        rows = cashier.reachability()
    left_out = {"marketing", *SERVICES}
    assert [row.name for row in rows] == [*SOURCE_NAMES, *SERVICES]
    assert {row.name for row in rows if row.state is Reachability.NOT_CONFIGURED} == left_out
    assert {row.state for row in rows if row.name not in left_out} == {Reachability.LOCAL}
    assert {row.name: row.importance for row in rows}["engine"] is None
    assert {row.name: row.importance for row in rows}["card"] is Importance.GATING
