"""A real service far below its capacity, on a machine that gives it little CPU.

By the host: it is stopped three quarters of the time. By weight: five busy loops beside it have a
higher priority. By quota: busy loops in its own cgroup (a container with `cpu.max`) use it up.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import pytest

from benchmarks.lab.load import open_load
from tests.service.test_overload import requests, wait_until_connectable
from tests.support.command_processes import ROOT

pytestmark = pytest.mark.timing

COST_MS = 1.0
PER_S = 50.0
SECONDS = 4.0
# Other programs use the machine so much that even these few requests are an overload.
TOO_BUSY_MS = 500.0
STOPPED_S, RUNNING_S = 0.03, 0.01
# Weighs a third of a busy loop.
NICE = 5
CGROUPS = Path("/sys/fs/cgroup")
PERIOD_US, QUOTA_US = 100_000, 32_000


class Served(NamedTuple):
    requests: int
    refused: int
    p99_ms: float


@contextlib.contextmanager
def processes(commands: Sequence[Sequence[str]]) -> Iterator[list[subprocess.Popen[str]]]:
    """Run them until the block ends. In our session, because the kernel weighs sessions apart."""
    with contextlib.ExitStack() as stack:
        started = []
        for command in commands:
            process = stack.enter_context(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True))
            stack.callback(process.kill)
            started.append(process)
        yield started


@contextlib.contextmanager
def cpu_quota_cgroup() -> Iterator[Path]:
    """A cgroup with a quota, in version 1 or 2. Skips the test where we may not make one."""
    legacy = CGROUPS / "cpu" / "cpu.cfs_quota_us"
    cgroup = (legacy.parent if legacy.exists() else CGROUPS) / f"cashier-{uuid.uuid4().hex}"
    try:
        if not legacy.exists():
            (CGROUPS / "cgroup.subtree_control").write_text("+cpu")
        cgroup.mkdir()
    except OSError as error:
        pytest.skip(f"cannot make a cgroup: {error}")
    try:
        if legacy.exists():
            (cgroup / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (cgroup / "cpu.cfs_quota_us").write_text(str(QUOTA_US))
        else:
            (cgroup / "cpu.max").write_text(f"{QUOTA_US} {PERIOD_US}")
        yield cgroup
    finally:
        cgroup.rmdir()


@contextlib.contextmanager
def stopped_again_and_again(pid: int) -> Iterator[None]:
    ended = threading.Event()

    def run() -> None:
        while not ended.is_set():
            os.kill(pid, signal.SIGSTOP)
            time.sleep(STOPPED_S)
            os.kill(pid, signal.SIGCONT)
            time.sleep(RUNNING_S)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextlib.contextmanager
def busy_loops(count: int, cgroup: Path | None = None) -> Iterator[None]:
    with processes([[sys.executable, "-c", "while True: pass"]] * count) as loops:
        if cgroup is not None:
            enter(cgroup, loops)
        yield


def enter(cgroup: Path, members: Sequence[subprocess.Popen[str]]) -> None:
    for process in members:
        (cgroup / "cgroup.procs").write_text(str(process.pid))


def serve_beside(starve: Callable[[subprocess.Popen[str]], AbstractContextManager[None]], nice: int = 0) -> Served:
    command = ["nice", f"-n{nice}", sys.executable, "-m", "tests.support.overload_server", str(COST_MS)]
    with processes([command]) as (service,):
        assert service.stdout is not None
        port = int(service.stdout.readline())

        async def run() -> Served:
            await wait_until_connectable(port)
            async with open_load(port, requests(), connections=100) as load:
                await load.open(PER_S, 1.0)
                with starve(service):
                    interval = await load.open(PER_S, SECONDS)
            return Served(interval.statuses.total(), interval.refused, interval.at(0.99))

        return asyncio.run(run())


def check_starved(served: Served) -> None:
    if served.p99_ms > TOO_BUSY_MS:
        pytest.skip(f"other programs use the machine: {served}")
    assert served.p99_ms > 20, f"the service was not starved: {served}"
    assert served.refused <= served.requests // 200


def test_a_host_that_takes_the_core_away_causes_no_refusals() -> None:
    check_starved(serve_beside(lambda service: stopped_again_and_again(service.pid)))


def test_busy_loops_beside_the_service_cause_no_refusals() -> None:
    check_starved(serve_beside(lambda _: busy_loops(5), NICE))


def test_a_quota_that_others_use_up_causes_no_refusals() -> None:
    with cpu_quota_cgroup() as cgroup:

        @contextlib.contextmanager
        def beside(service: subprocess.Popen[str]) -> Iterator[None]:
            enter(cgroup, [service])
            with busy_loops(2, cgroup):
                yield

        check_starved(serve_beside(beside))
