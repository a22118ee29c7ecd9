"""Gauges: set by a timer where another process reads them, else by the reader."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import structlog

from cashier.metrics.store import Store
from cashier.telemetry.gauge_sampler import INTERVAL_S, GaugeSampler

LAG = "cashier_loop_lag_seconds"


def clock_ns() -> int:
    return round(asyncio.get_running_loop().time() * 1e9)


def sampler(store: Store, calls: list[float], *bugs: Exception) -> GaugeSampler:
    def fails() -> None:
        for bug in bugs:
            raise bug

    return GaugeSampler(
        [fails, lambda: calls.append(asyncio.get_running_loop().time())], store, store.histogram(LAG), clock_ns
    )


@pytest.mark.looptime
async def test_gauges_that_another_process_reads_are_set_twice_a_second(tmp_path: Path) -> None:
    store, calls = Store.create(tmp_path / "1.metrics"), list[float]()
    gauges = sampler(store, calls)
    gauges.start()
    await asyncio.sleep(10.2)
    assert len(calls) == 1 + 10.0 / INTERVAL_S
    assert store.histogram(LAG).value.count == len(calls) - 1
    gauges.stop()
    last = len(calls)
    await asyncio.sleep(10)
    assert len(calls) == last == 2 + 10.0 / INTERVAL_S


@pytest.mark.looptime
async def test_gauges_that_this_process_reads_are_set_by_a_snapshot_only() -> None:
    store, calls = Store(), list[float]()
    gauges = sampler(store, calls)
    gauges.start()
    await asyncio.sleep(3_600)
    assert calls == [0]
    store.snapshot()
    store.render()
    assert calls == [0, 3_600, 3_600]
    gauges.stop()
    store.snapshot()
    assert len(calls) == 4, "the last one is that of the end"


@pytest.mark.looptime
async def test_a_late_timer_is_the_lag_of_the_loop(tmp_path: Path) -> None:
    store, times = Store.create(tmp_path / "1.metrics"), iter([0, 700_000_000, 800_000_000, 1_300_000_000])
    gauges = GaugeSampler([], store, store.histogram(LAG), lambda: next(times))
    gauges.start()
    await asyncio.sleep(INTERVAL_S)
    gauges.stop()
    assert (store.histogram(LAG).value.count, store.histogram(LAG).value.sum_ns) == (1, 200_000_000)


@pytest.mark.looptime
async def test_a_bug_of_one_gauge_leaves_the_others(tmp_path: Path) -> None:
    calls: list[float] = []
    gauges = sampler(Store.create(tmp_path / "1.metrics"), calls, RuntimeError("of this gauge"))
    with structlog.testing.capture_logs() as lines:
        gauges.start()
        await asyncio.sleep(INTERVAL_S * 1.5)
        gauges.stop()
    assert len(calls) == 3
    assert [line["event"] for line in lines] == ["a gauge could not be read"] * 3
