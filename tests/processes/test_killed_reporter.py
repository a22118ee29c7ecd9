"""What a killed worker has reported stays at the operations port."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cashier.ops.collector import collecting
from cashier.ops.record_store import RecordStore
from cashier.telemetry.records import Verdict
from tests.support.command_processes import ROOT

pytestmark = pytest.mark.processes


async def until(happens: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not happens():  # noqa: ASYNC110 - the other process sets no event
            await asyncio.sleep(0.01)


async def test_the_records_of_a_killed_worker_stay(tmp_path: Path) -> None:
    records = RecordStore()
    async with collecting(tmp_path, records):
        workers = [
            await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.processes.reporting_worker",
                str(tmp_path),
                cwd=ROOT,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
            )
            for _ in range(2)
        ]
        first, second = (worker.pid for worker in workers)
        try:
            await until(lambda: {each.worker for each in records.records()} == {first, second})
            await until(lambda: set(records.states) == {first, second})
            os.kill(first, signal.SIGKILL)
            await workers[0].wait()
            await until(lambda: set(records.states) == {second})
            kept = [each for each in records.records(order_id="o_1") if each.worker == first]
            assert kept
            assert {each.verdicts for each in kept} == {(Verdict.FAILED,)}
            later = len(list(records.records()))
            await until(lambda: len(list(records.records())) > later)
        finally:
            for worker in workers:
                if worker.returncode is None:
                    worker.kill()
                    await worker.wait()
