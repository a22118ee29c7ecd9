"""Gateways as real processes: the recipes of `config/gateways`, on free ports."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import trustme

from tests.support.command_processes import ROOT

from .upstreams import TIMEOUT_S

RECIPES = ROOT / "config" / "gateways"


class Recipe(NamedTuple):
    """`listens`: the text with its port. `instances`: the texts of the two addresses.

    `command`: `{file}` and `{folder}` are replaced. `inserted`: text after a line, for a run beside
    other programs.
    """

    file: str
    listens: str
    instances: tuple[str, str]
    command: tuple[str, ...]
    inserted: tuple[str, str] = ("", "")


_PLAIN = ("127.0.0.1:8080", "127.0.0.1:8081")
_TEMPORARY_FILES = "".join(
    f" {kind}_temp_path {{folder}}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
)
RECIPE = {
    "nginx": Recipe(
        "nginx.conf",
        "listen 80;",
        _PLAIN,
        ("nginx", "-p", "{folder}", "-c", "{file}", "-e", "stderr", "-g", "daemon off; pid {folder}/pid;"),
        ("http {", f" access_log off;{_TEMPORARY_FILES}"),
    ),
    "haproxy": Recipe("haproxy.cfg", "bind :80 ", _PLAIN, ("haproxy", "-db", "-f", "{file}")),
    "caddy": Recipe(
        "Caddyfile", "http://:80 {", _PLAIN, ("caddy", "run", "--adapter", "caddyfile", "--config", "{file}")
    ),
    "envoy": Recipe(
        "envoy.yaml",
        "port_value: 80}",
        ("port_value: 8080", "port_value: 8081"),
        ("envoy", "-c", "{file}", "--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"),
    ),
}


def program_of(gateway: str) -> str | None:
    """The path of its program. Envoy is a package of the test environment."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin"))
    return shutil.which(RECIPE[gateway].command[0], path=path)


def free_ports(number: int) -> list[int]:
    """Different ports without a listener."""
    with contextlib.ExitStack() as probes:
        sockets = [probes.enter_context(socket.socket()) for _ in range(number)]
        for probe in sockets:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in sockets]


def filled_in(gateway: str, folder: Path, port: int, instances: list[int]) -> str:
    """The recipe's text with these ports. Every other line is that of the recipe."""
    recipe = RECIPE[gateway]
    text = (RECIPES / recipe.file).read_text()
    changes = [(recipe.listens, recipe.listens.replace("80", str(port)))]
    changes += [
        (place, place.rpartition(":")[0] + f":{' ' if ': ' in place else ''}{instance}")
        for place, instance in zip(recipe.instances, instances, strict=True)
    ]
    if recipe.inserted[0]:
        after, inserted = recipe.inserted
        changes.append((after, after + inserted.replace("{folder}", str(folder))))
    for before, now in changes:
        assert text.count(before) == 1, before
        text = text.replace(before, now)
    return text


@contextmanager
def process(gateway: str, folder: Path, instances: list[int]) -> Iterator[str]:
    """Run a gateway before two instances. Yields its address, which may not be open yet."""
    (port,) = free_ports(1)
    file = folder / RECIPE[gateway].file
    file.write_text(filled_in(gateway, folder, port, instances))
    words = [word.format(file=file, folder=folder) for word in RECIPE[gateway].command[1:]]
    if gateway == "nginx" and os.geteuid() == 0:
        words[-1] += " user root;"  # the folder is that of this user
    with _running(gateway, words, folder):
        yield f"http://127.0.0.1:{port}"


class Edge:
    """HAProxy that terminates TLS. `trust`: of clients that know its authority."""

    def __init__(self, folder: Path, port: int) -> None:
        self.url = f"https://127.0.0.1:{port}"
        self.certificate = folder / "edge.pem"
        self.trust = ssl.create_default_context()
        self.master: subprocess.Popen[bytes] | None = None
        self.port = port
        self._authority = trustme.CA()
        self._authority.configure_trust(self.trust)
        self._issued = b""
        self._issue()

    def rotate(self) -> None:
        """Reload a new certificate, as `systemctl reload haproxy` does."""
        assert self.master is not None
        self._issue()
        self.master.send_signal(signal.SIGUSR2)

    async def until_shown(self) -> None:
        """Until new connections get the newest certificate, and another reload is possible.

        The new process serves before the master listens for signals again. It ignores a reload
        until then.
        """
        async with asyncio.timeout(TIMEOUT_S):
            while await asyncio.to_thread(self._shown) != self._issued or not self._reloads():  # noqa: ASYNC110
                await asyncio.sleep(0.1)

    def _issue(self) -> None:
        issued = self._authority.issue_cert("127.0.0.1")
        changed = self.certificate.with_suffix(".new")
        changed.write_bytes(issued.private_key_and_cert_chain_pem.bytes())
        changed.rename(self.certificate)
        self._issued = ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode())

    def _shown(self) -> bytes:
        return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", self.port), timeout=TIMEOUT_S))

    def _reloads(self) -> bool:
        """Whether the master handles the signal of a reload."""
        assert self.master is not None
        status = Path(f"/proc/{self.master.pid}/status").read_text()
        handled = int(status.partition("SigCgt:")[2].split()[0], 16)
        return bool(handled >> (signal.SIGUSR2 - 1) & 1)


@contextmanager
def haproxy_edge(folder: Path, instances: list[int]) -> Iterator[Edge]:
    """HAProxy as in production: with TLS and a master process."""
    (port,) = free_ports(1)
    edge = Edge(folder, port)
    plain = RECIPE["haproxy"].listens.replace("80", str(port))
    file = folder / RECIPE["haproxy"].file
    file.write_text(filled_in("haproxy", folder, port, instances).replace(plain, f"{plain}ssl crt {edge.certificate} "))
    with _running("haproxy", ["-W", "-db", "-f", str(file)], folder) as edge.master:
        yield edge


@contextmanager
def _running(gateway: str, words: list[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    program = program_of(gateway)
    assert program is not None, f"{gateway} is not installed"
    environment = {**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with (folder / "log").open("wb") as log:
        running = subprocess.Popen([program, *words], env=environment, stdout=log, stderr=log)
        try:
            yield running
        finally:
            running.terminate()
            try:
                running.wait(TIMEOUT_S)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()


class GatewayAddress:
    """For a `Payer`."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def ready(self) -> None:
        """It is, as long as its process runs."""


@asynccontextmanager
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as opened:
        yield opened


async def until_ready(url: str, trust: ssl.SSLContext | bool = True) -> None:
    """Poll `/readyz` until it is 200."""
    async with session() as client, asyncio.timeout(TIMEOUT_S):
        while True:
            with contextlib.suppress(aiohttp.ClientConnectionError):
                async with client.get(f"{url}/readyz", ssl=trust) as response:
                    if response.status == 200:
                        return
            await asyncio.sleep(0.05)


async def events(response: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, float]]:
    """The name of each event, and the loop's time at which it was complete."""
    name = ""
    async for raw in response.content:
        line = raw.decode().rstrip("\n")
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif not line and name:
            yield name, asyncio.get_running_loop().time()
            name = ""


class EchoServer:
    """Answers every request with its head, as an instance that is always ready."""

    def __init__(self) -> None:
        self.connections = 0
        self._open: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lines = head.decode("latin-1").lower().split("\r\n")
                length = next((int(line[16:]) for line in lines if line.startswith("content-length: ")), 0)
                await reader.readexactly(length)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(head) + head)
        writer.close()
        self._open.discard(writer)

    async def close(self) -> None:
        """Also the connections of a gateway whose end has not been seen yet."""
        for writer in list(self._open):
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


@asynccontextmanager
async def echo_server() -> AsyncIterator[tuple[EchoServer, int]]:
    echo = EchoServer()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    async with server:
        yield echo, server.sockets[0].getsockname()[1]
        server.close()
        await echo.close()


def sent_headers(head: str) -> dict[str, Any]:
    lines = head.split("\r\n")[1:-2]
    pairs = [line.split(": ", 1) for line in lines]
    assert len({name.lower() for name, _ in pairs}) == len(pairs), "a header twice"
    return {name.lower(): value for name, value in pairs}
