"""A real Prometheus scrapes a real service, and its alerts fire: an hour in a minute."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import aiohttp
import pytest

from cashier.sandbox import CASES
from cashier.sandbox.weather import Constant, Fault, FaultProfile
from cashier.settings.schema import SERVICES
from tests.support.command_processes import Command
from tests.support.process_files import worker_pids
from tests.support.programs import required_program

from .gateways import free_ports, session, until_ready
from .services import NAMES
from .upstreams import Upstreams

pytestmark = [pytest.mark.peers, pytest.mark.processes]

RULES = Path(__file__).parents[2] / "config/operations/alerts.yml"
ORDER = CASES["chinese_shop"].request
PAUSE_S = 0.02
TIMEOUT_S = 120.0
# Scraped and evaluated several times within the shortest window.
PROMETHEUS = """
global: {{ scrape_interval: 500ms, scrape_timeout: 400ms, evaluation_interval: 500ms }}
rule_files: [alerts.yml]
scrape_configs: [{{ job_name: cashier, static_configs: [{{ targets: ["127.0.0.1:{port}"] }}] }}]
"""
_DURATION = re.compile(r"(\[|\bfor: |\boffset )(\d+)([mhd])")
_SECONDS = {"m": 1, "h": 60, "d": 1440}


def hurried(rules: str) -> str:
    """The rules with minutes as seconds, and hours as minutes."""
    return _DURATION.sub(lambda found: f"{found[1]}{int(found[2]) * _SECONDS[found[3]]}s", rules)


class Running:
    """The service, and what Prometheus says of it."""

    def __init__(self, service: Command, config: Path, prometheus: str) -> None:
        self.service = service
        self.config = config
        self._prometheus = prometheus

    async def firing(self) -> set[str]:
        async with session() as client, client.get(f"{self._prometheus}/api/v1/alerts") as response:
            alerts = (await response.json())["data"]["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    async def until_firing(self, *names: str) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            while not set(names) <= await self.firing():  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.2)

    async def until_silent(self) -> None:
        """`CashierScrapeAbsent` fires until the first scrape, in a minute of two seconds."""
        async with asyncio.timeout(TIMEOUT_S):
            while await self.firing():  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.2)

    async def until_true(self, query: str) -> None:
        """Until the query has a result."""
        async with session() as client, asyncio.timeout(TIMEOUT_S):
            while True:
                with suppress(aiohttp.ClientError):  # Prometheus starts
                    async with client.get(f"{self._prometheus}/api/v1/query", params={"query": query}) as response:
                        if (await response.json())["data"]["result"]:
                            return
                await asyncio.sleep(0.2)


@contextmanager
def prometheus(program: str, folder: Path, operations: int, port: int) -> Iterator[str]:
    folder.mkdir()
    (folder / "prometheus.yml").write_text(PROMETHEUS.format(port=operations))
    (folder / "alerts.yml").write_text(hurried(RULES.read_text("utf-8")))
    words = (
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    )
    process = subprocess.Popen([program, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@asynccontextmanager
async def payers(url: str) -> AsyncIterator[None]:
    """One consultation after the other."""

    async def consult() -> None:
        async with session() as client:
            while True:
                with suppress(aiohttp.ClientError):  # a killed worker's
                    async with client.post(f"{url}/v1/consult", json=ORDER) as response:
                        await response.read()
                await asyncio.sleep(PAUSE_S)

    tasks = [asyncio.create_task(consult()) for _ in range(3)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


@pytest.fixture
async def running(
    request: pytest.FixtureRequest, port: int, upstreams: Upstreams, tmp_path: Path
) -> AsyncIterator[Running]:
    program = required_program(request, "prometheus")
    serving, operations, prometheus_port = free_ports(3)
    config = tmp_path / "cashier.toml"
    sections = [
        f"[server]\nport = {serving}\nworkers = 2\nshutdown_delay_s = 0\n",
        f"[operations]\nport = {operations}\n",
        *(f'[sources.{name}]\nurl = "http://127.0.0.1:{port}"\n' for name in (*NAMES, *SERVICES)),
    ]
    config.write_text("".join(sections))
    service = Command("serve", "--config", str(config))
    try:
        url = await asyncio.to_thread(service.address, "Serving on")
        await until_ready(url)
        async with payers(url):
            with prometheus(program, tmp_path / "prometheus", operations, prometheus_port) as address:
                found = Running(service, config, address)
                await found.until_true('up{job="cashier"} == 1')
                yield found
    finally:
        service.kill()
        service.wait()


async def test_a_silent_source_raises_its_alerts_and_no_others(running: Running, upstreams: Upstreams) -> None:
    await running.until_true("sum(rate(cashier_consultation_duration_seconds_count[5s])) > 5")
    await running.until_silent()
    upstreams.weather.change("quota", FaultProfile(Constant(1.0), faults={Fault.ERROR: 10_000}))
    await running.until_firing("CashierGatingSourceSilent", "CashierBreakerOpen")
    assert await running.firing() == {"CashierGatingSourceSilent", "CashierBreakerOpen"}


async def test_a_killed_worker_and_a_killed_service_raise_their_alerts(running: Running) -> None:
    await running.until_true("cashier_workers == 2")
    await running.until_silent()
    os.kill(min(worker_pids(running.service.process.pid)), signal.SIGKILL)
    await running.until_firing("CashierWorkersDie")
    running.service.kill()
    await running.until_firing("CashierScrapeAbsent")
