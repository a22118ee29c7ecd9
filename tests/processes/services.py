"""Service processes: started in advance, killed, stopped, and checked for secrets in the output."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import msgspec

from tests.support.command_processes import Command
from tests.support.process_files import open_files, socket_inode, worker_pids

from .upstreams import TIMEOUT_S

NAMES = ("order", "merchant", "member", "card", "balance", "channel", "quota", "marketing")
# Nothing learned may carry over to the next test, and each read must be one call.
PLAIN = "cache = false\nhedge = false\nbreaker = false\nlimiter = false\nadaptive_timeout = false\n"
# A busy machine is slow, not wrong: no call may end before a caller gives up.
PATIENT_CONNECT = "http1 = { connect_timeout_ms = 8000 }\n"
PATIENT_ACCEPT = "check_ms = 10000\ndecide_ms = 10000\nlook_ms = 10000"
SECRET = "t" * 32
DRAIN_S = 10


def write_configuration(
    path: Path,
    upstreams: int,
    *,
    port: int = 0,
    workers: int = 1,
    shutdown_delay_s: float = 0,
    shared: str = "",
    secrets: tuple[str, ...] = (SECRET,),
    accept: str = "",
    pages: bool = False,
) -> Path:
    """Write a configuration with long timeouts. `upstreams`: the sandbox's port."""
    url = f'url = "http://127.0.0.1:{upstreams}"\n'
    sections = [
        f"[server]\nport = {port}\nworkers = {workers}\n",
        f"shutdown_delay_s = {shutdown_delay_s}\ndrain_s = {DRAIN_S}\n",
        "[consult]\ndeadline_ms = 9000\nmax_deadline_ms = 9000\ngrace_ms = 8000\n[shed]\nenabled = false\n",
        f"[accept]\n{accept or PATIENT_ACCEPT}\n",
        f'[cache]\nshared = "{shared}"\n',
        "[pages]\nenabled = true\nfirst_answer_ms = 9000\n" if pages else "",
        f"[tokens]\nsecrets = {msgspec.json.encode(secrets).decode()}\n",
        *(f"[sources.{name}]\n{url}timeout_ms = 8990\n{PLAIN}{PATIENT_CONNECT}" for name in NAMES),
        *(f"[sources.{name}]\n{url}{PATIENT_CONNECT}" for name in ("risk", "engine", "acquirer")),
    ]
    path.write_text("".join(sections))
    return path


class Service:
    """One service process.

    `secrets`: texts that must not be in its output; may grow while it runs. `waits`: as `Command`.
    """

    def __init__(self, config: Path, secrets: set[str], *, waits: bool = False) -> None:
        self._killed_workers: set[int] = set()
        self._command = Command("serve", "--config", str(config), waits=waits)
        self._secrets = secrets
        self.url = ""
        self.output = ""
        self.expected_errors: set[str] = set()

    @property
    def pid(self) -> int:
        return self._command.process.pid

    @property
    def running(self) -> bool:
        return self._command.process.poll() is None

    def watch(self) -> None:
        self._command.watch()

    async def ready(self) -> Service:
        if not self.url:
            self.url = await asyncio.to_thread(self._command.address, "Serving on")
        return self

    def workers(self) -> set[int]:
        """The serving processes: its worker children, or itself."""
        return set(worker_pids(self.pid)) or {self.pid}

    def owner(self, port: int) -> int | None:
        """The worker with a connection from this local port.

        Also None if the list of connections, which is no snapshot, missed it: ask again.
        """
        inode = socket_inode(port, listening=False)
        for pid in self.workers() if inode is not None else ():
            with suppress(FileNotFoundError):  # killed meanwhile
                if f"socket:[{inode}]" in open_files(pid):
                    return pid
        return None

    async def kill(self, pid: int | None = None) -> None:
        """SIGKILL one worker, or the whole service, and wait for its end."""
        if pid is None:
            self._command.kill()
            self._check_output(await asyncio.to_thread(self._command.wait))
            return
        self._killed_workers.add(pid)
        os.kill(pid, signal.SIGKILL)
        await asyncio.to_thread(_wait_for_end, pid)

    def stop(self) -> None:
        self._command.process.send_signal(signal.SIGTERM)

    def reload(self) -> None:
        self._command.process.send_signal(signal.SIGHUP)

    async def ended(self) -> int:
        """Wait for the end and return the exit status."""
        result = await asyncio.to_thread(self._command.wait)
        self._check_output(result)
        return result[0]

    def kill_now(self) -> None:
        self._command.kill()

    def end(self) -> None:
        self.kill_now()
        self._check_output(self._command.wait())

    def _check_output(self, result: tuple[int, str, str]) -> None:
        self.output = result[1] + result[2]
        assert [secret for secret in self._secrets if secret in self.output] == []
        assert "Traceback" not in self.output, self.output
        unexpected = [line for line in self.output.splitlines() if self._is_unexpected_error(line)]
        assert not unexpected, "\n".join(unexpected)

    def _is_unexpected_error(self, line: str) -> bool:
        """Whether a line is a log record of an error other than the end of a worker killed here."""
        if not line.startswith("{"):
            return False
        record = json.loads(line)
        is_expected = record["event"] == "a worker is replaced" and record["pid"] in self._killed_workers
        is_expected = is_expected or record["event"] in self.expected_errors
        return record["level"] in ("error", "critical") and not is_expected


def end_all(services: Iterable[Service]) -> None:
    """Kill every service before the output of any is checked: a failed check leaves none behind."""
    services = list(services)
    for service in services:
        service.kill_now()
    for service in services:
        service.end()


class Fleet:
    """Services of one configuration, some started in advance, because starting is slow.

    They may wait for long while other tests run.
    """

    AHEAD = 2

    def __init__(self, config: Path, secrets: set[str]) -> None:
        self._config = config
        self._secrets = secrets
        self._ready_soon: deque[Service] = deque()
        self.all: list[Service] = []

    async def take(self) -> Service:
        """Return an idle service."""
        while len(self._ready_soon) <= self.AHEAD:
            service = Service(self._config, self._secrets, waits=True)
            self._ready_soon.append(service)
            self.all.append(service)
        taken = self._ready_soon.popleft()
        taken.watch()
        return await taken.ready()

    def retire(self, service: Service) -> None:
        """End a service: it remembers the payments of its world."""
        self.all.remove(service)
        end_all([service])

    def end(self) -> None:
        end_all(self.all)


def _wait_for_end(pid: int) -> None:
    """Works also for a process that is not our child."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        select.select([descriptor], [], [], TIMEOUT_S)
    finally:
        os.close(descriptor)
