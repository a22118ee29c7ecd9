"""Invalidation by the embedding program: reach, and what a recovery starts."""

from __future__ import annotations

import time
from typing import Any

import pytest

from cashier import Cashier
from cashier.consultation.source_table import SOURCE_NAMES
from cashier.fanout.l2.interface import Reach, SourceUnknown
from cashier.settings.loader import configuration
from tests.fanout.l2.valkey_server import until, valkey_server


def cashier(shared: str = "") -> Cashier:
    settings: dict[str, Any] = {
        "sources": {name: {"url": "http://127.0.0.1:9"} for name in SOURCE_NAMES},
        "tokens": {"secrets": ["s" * 32]},
        "cache": {"shared": shared},
    }
    return Cashier(config=configuration(settings, ""))


async def test_without_a_shared_cache_only_this_worker_is_reached() -> None:
    async with cashier() as alone:
        assert alone.invalidate("card", key="u_1").reach is Reach.THIS_WORKER
        assert (await alone.ainvalidate("card", prefix="u_1/")).reach is Reach.THIS_WORKER


async def test_with_a_shared_cache_all_workers_are_reached_by_those_who_wait() -> None:
    with valkey_server() as server:
        async with cashier(server.url) as one, cashier(server.url) as other:
            dropped: list[tuple[str, str | None, str | None]] = []
            valkey = other._parts.valkey
            assert valkey is not None
            valkey._on_invalidation = lambda *what: dropped.append(what)
            gaps: list[float] = []
            valkey._on_gap = lambda: gaps.append(time.monotonic())
            assert one.invalidate("card", key="u_1").reach is Reach.THIS_WORKER
            assert (await one.ainvalidate("card", key="u_2")).reach is Reach.ALL_WORKERS
            await until(lambda: len(dropped) == 2)
            assert dropped == [("card", "u_1", None), ("card", "u_2", None)]
            server.kill()
            await until(lambda: one._parts.valkey is not None and not one._parts.valkey.coherent)
            assert (await one.ainvalidate("card", key="u_3")).reach is Reach.THIS_WORKER
            server.start()
            # The one that recovers first may send before the other receives: then the other drops
            # everything as it subscribes.
            await until(lambda: bool(gaps))
            assert one._parts.valkey is not None
            await one._parts.valkey._publisher._idle.wait()
            assert set(dropped[2:]) <= {("card", "u_3", None)}


@pytest.mark.parametrize("what", [{}, {"key": "u_1", "prefix": "u_"}])
async def test_an_invalidation_names_a_key_or_a_prefix(what: dict[str, str]) -> None:
    async with cashier() as alone:
        with pytest.raises(ValueError, match="either a key or a prefix"):
            await alone.ainvalidate("card", **what)
        with pytest.raises(SourceUnknown):
            await alone.ainvalidate("crad", key="u_1")


async def test_one_recovery_lets_all_open_breakers_probe() -> None:
    async with cashier() as alone:
        now_ns = time.perf_counter_ns()
        breakers = {name: alone.pipelines[name].guard.endpoints[0].breaker for name in ("card", "member")}
        for breaker in breakers.values():
            for _ in range(20):
                breaker.record_failure(now_ns, now_ns)
            assert not breaker.closed
            assert breaker.probe_due_ns > now_ns + 1_000_000_000
        endpoint = alone.pipelines["card"].guard.endpoints[0]
        later_ns = breakers["card"].probe_due_ns
        assert breakers["card"].admits(later_ns, 1)
        endpoint.record_answer(later_ns, later_ns + 1, counted=False)
        assert breakers["card"].closed
        assert breakers["member"].probe_due_ns <= time.perf_counter_ns()
