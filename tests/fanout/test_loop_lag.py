"""The monitor of the loop's lag, on given clocks."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from cashier.fanout.load_shedding import CALM_TICK_MS, TICK_MS, DegradationLadder, ShedSettings
from cashier.fanout.loop_lag import LoopLagMonitor, RunDelay
from tests.support.virtual_time import clock_ns, run_in_virtual_time


def five_times_clock_ns() -> int:
    """On this clock the loop is five times too slow, so each tick is four ticks late."""
    return 5 * clock_ns()


def no_cpu_ns() -> int:
    return 0


def no_run_delay() -> RunDelay:
    return RunDelay("/nonexistent")


def run_monitor(
    ladder: DegradationLadder,
    cpu_ns: Callable[[], int],
    seconds: float = 1.0,
    clock: Callable[[], int] = five_times_clock_ns,
) -> LoopLagMonitor:
    monitor = LoopLagMonitor(ladder, clock, cpu_ns, no_run_delay)

    async def main() -> None:
        monitor.start()
        await asyncio.sleep(seconds)
        monitor.stop()

    run_in_virtual_time(main())
    return monitor


def test_lag_of_a_loop_that_works_all_the_time_is_its_own() -> None:
    ladder = DegradationLadder()
    ladder.queued_ms = 1.0
    run_monitor(ladder, five_times_clock_ns)
    assert ladder.lag_ms == pytest.approx(4 * TICK_MS)
    assert ladder.refusing


@pytest.mark.moves("cashier_loop_lag_seconds")
@pytest.mark.parametrize(
    ("cpu_ns", "clock", "late_ms", "tick_ms"),
    [
        (no_cpu_ns, clock_ns, 0, CALM_TICK_MS),
        (clock_ns, clock_ns, 0, TICK_MS),
        (five_times_clock_ns, five_times_clock_ns, 4 * TICK_MS, TICK_MS),
    ],
)
def test_each_tick_is_counted_with_its_lag_and_an_idle_loop_ticks_less_often(
    cpu_ns: Callable[[], int], clock: Callable[[], int], late_ms: int, tick_ms: int
) -> None:
    ladder = DegradationLadder()
    lag = ladder.metrics.histogram("cashier_loop_lag_seconds")
    run_monitor(ladder, cpu_ns, clock=clock)
    assert lag.value.count == pytest.approx(1_000 / tick_ms, abs=4)
    assert lag.value.sum_ns / lag.value.count == pytest.approx(late_ms * 1_000_000, abs=1_000)


def test_the_same_lag_of_a_loop_without_cpu_time_is_not() -> None:
    ladder = DegradationLadder()
    run_monitor(ladder, no_cpu_ns)
    assert ladder.lag_ms == 0
    assert ladder.withheld_ms == pytest.approx(4 * CALM_TICK_MS, rel=0.01)
    assert not ladder.refusing


def test_the_log_names_a_starved_loop_once_a_minute() -> None:
    # A hair below the lag, which is 80 ms on the clock of this loop.
    ladder = DegradationLadder(ShedSettings(refuse_lag_ms=79.5))
    with capture_logs() as records:
        run_monitor(ladder, no_cpu_ns, seconds=25)  # 125 s on its clock
    assert [record["log_level"] for record in records] == ["warning"] * 3
    assert "not by its load" in records[0]["event"]
    assert (records[0]["withheld_ms"], records[0]["own_lag_ms"]) == (80, 0)


def test_an_overloaded_loop_is_not_called_starved() -> None:
    with capture_logs() as records:
        run_monitor(DegradationLadder(), five_times_clock_ns)
    assert records == []


def test_the_monitor_does_not_run_with_shedding_off() -> None:
    ladder = DegradationLadder(ShedSettings(enabled=False))
    run_monitor(ladder, five_times_clock_ns)
    assert not ladder.refusing


@pytest.mark.parametrize("content", ["", "12", "1 x 3", "\xff"])
def test_an_unreadable_scheduler_file_counts_as_unknown(content: str, tmp_path: Path) -> None:
    path = tmp_path / "schedstat"
    path.write_text(content)
    run_delay = RunDelay(str(path))
    assert run_delay() is None
    assert run_delay() is None
    assert "unknown" in repr(run_delay)


def test_a_missing_scheduler_file_counts_as_unknown() -> None:
    assert no_run_delay()() is None


def test_the_time_in_the_run_queue_is_read_anew_each_time(tmp_path: Path) -> None:
    path = tmp_path / "schedstat"
    path.write_text("74723034 120 6\n")
    run_delay = RunDelay(str(path))
    assert run_delay() == 120
    path.write_text("74723034 17120 6\n")
    assert run_delay() == 17_120
    run_delay.close()
    assert run_delay() is None


@pytest.mark.skipif(sys.platform != "linux", reason="of the Linux scheduler")
def test_a_stopped_monitor_leaves_no_file_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    monitor = LoopLagMonitor(DegradationLadder())

    async def main() -> None:
        for _ in range(3):
            monitor.start()
            monitor.start()
            monitor.stop()
            monitor.stop()

    asyncio.run(main())
    assert len(os.listdir("/proc/self/fd")) == before
