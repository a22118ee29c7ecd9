"""Service processes: started ahead of their use, killed, stopped, and listened to: nothing secret may be in what they print."""

from __future__ import annotations

import asyncio
import os
import select
import signal
from collections import deque
from pathlib import Path

import msgspec

from tests.support.command_processes import Command

from .upstreams import FOREVER_S

NAMES = ("order", "merchant", "member", "card", "balance", "channel", "quota", "marketing")
# What one test has taught must not show in the next, and each read is made once, so that it can be counted.
PLAIN = "cache = false\nhedge = false\nbreaker = false\nlimiter = false\nadaptive_timeout = false\n"
SECRET = "t" * 32
DRAIN_S = 10


def configured(
    path: Path,
    upstreams: int,
    *,
    workers: int = 1,
    shared: str = "",
    secrets: tuple[str, ...] = (SECRET,),
    accept: str = "",
) -> Path:
    """A configuration for any free port, and patient: the machine may be busy. `upstreams`: the sandbox's port."""
    url = f'url = "http://127.0.0.1:{upstreams}"\n'
    told = [
        f"[server]\nport = 0\nworkers = {workers}\ndrain_s = {DRAIN_S}\n",
        "[consult]\ndeadline_ms = 4000\nmax_deadline_ms = 4000\n[shed]\nenabled = false\n",
        f"[accept]\n{accept or 'check_ms = 5000'}\n",
        f'[cache]\nshared = "{shared}"\n',
        f"[tokens]\nsecrets = {msgspec.json.encode(secrets).decode()}\n",
        *(f"[sources.{name}]\n{url}timeout_ms = 3990\n{PLAIN}" for name in NAMES),
        *(f"[sources.{name}]\n{url}" for name in ("risk", "engine", "acquirer")),
    ]
    path.write_text("".join(told))
    return path


class Service:
    """One that runs, or is about to. `secrets`: what must never be in what it prints; it may grow while it runs."""

    def __init__(self, config: Path, secrets: set[str]) -> None:
        self._command = Command("serve", "--config", str(config))
        self._secrets = secrets
        self.url = ""
        self.said = ""

    @property
    def pid(self) -> int:
        return self._command.process.pid

    @property
    def running(self) -> bool:
        return self._command.process.poll() is None

    async def ready(self) -> Service:
        if not self.url:
            self.url = await asyncio.to_thread(self._command.address, "Serving on")
        return self

    def workers(self) -> set[int]:
        """The processes that serve: children of this one that serve, or itself."""
        children = [int(text) for text in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]
        serving = {child for child in children if b"spawn_main" in _command_line(child)}
        return serving or {self.pid}

    def owner(self, port: int) -> int | None:
        """Which of its workers has a connection that leaves from this port of this machine. None also where the list of connections, which
        is no snapshot, has just missed it: ask again."""
        inode = _inode(port)
        return next((pid for pid in self.workers() if inode is not None and f"socket:[{inode}]" in _files(pid)), None)

    async def kill(self, pid: int | None = None) -> None:
        """SIGKILL to one of its workers, or to all that it is; and wait until there is no such process any more."""
        if pid is None:
            self._command.kill()
            self._listen(await asyncio.to_thread(self._command.wait))
            return
        os.kill(pid, signal.SIGKILL)
        await asyncio.to_thread(_ended, pid)

    def stop(self) -> None:
        self._command.process.send_signal(signal.SIGTERM)

    async def ended(self) -> int:
        """Its exit status."""
        ended = await asyncio.to_thread(self._command.wait)
        self._listen(ended)
        return ended[0]

    def end(self) -> None:
        """Whatever it does."""
        self._command.kill()
        self._listen(self._command.wait())

    def _listen(self, ended: tuple[int, str, str]) -> None:
        self.said = ended[1] + ended[2]
        assert [secret for secret in self._secrets if secret in self.said] == []
        assert "Traceback" not in self.said, self.said
        assert '"level": "error"' not in self.said, self.said


class Fleet:
    """Services of one configuration, some of which are started before anybody wants them: starting takes most of the time."""

    AHEAD = 2

    def __init__(self, config: Path, secrets: set[str]) -> None:
        self._config = config
        self._secrets = secrets
        self._coming: deque[Service] = deque()
        self.all: list[Service] = []

    async def take(self) -> Service:
        """One that waits for its first request, or for its next."""
        while len(self._coming) <= self.AHEAD:
            service = Service(self._config, self._secrets)
            self._coming.append(service)
            self.all.append(service)
        return await self._coming.popleft().ready()

    def give_back(self, service: Service) -> None:
        if service.running:
            self._coming.appendleft(service)

    def end(self) -> None:
        for service in self.all:
            service.end()


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _files(pid: int) -> set[str]:
    found = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.add(os.readlink(path))
        except OSError:  # closed meanwhile
            continue
    return found


def _inode(port: int) -> str | None:
    """Of the socket that has this port at its own end, and is not merely listening."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        local, _remote, state, *_rest = line.split()[1:]
        if int(local.split(":")[1], 16) == port and state == "01":
            return line.split()[9]
    return None


def _ended(pid: int) -> None:
    """When it has: whose child it is may take its time to notice."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        select.select([descriptor], [], [], FOREVER_S)
    finally:
        os.close(descriptor)
