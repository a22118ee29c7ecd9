"""nginx with its Lua module, with and without a cache: the cheapest gateway in wide use."""

from __future__ import annotations

import grp
import os
import pwd
import re
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

from benchmarks.lab import Lab
from benchmarks.lab.service import Served
from benchmarks.peers.peer import PROGRAMS, Peer, Upstreams, free_port, running
from cashier.consultation.source_table import SOURCE_SPECS

_REMEDY = "apt-get install nginx-light libnginx-mod-http-lua lua-cjson"
_FILES = 65_536
# Debian's paths of Lua modules written in C.
_CJSON = ("usr/local/lib/lua/5.1/cjson.so", "usr/lib/*/lua/5.1/cjson.so")


def binary() -> str | None:
    """Find nginx, which Debian installs outside a user's PATH."""
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@cache
def modules(nginx: str) -> Path:
    """The directory of its dynamic modules."""
    built = subprocess.run([nginx, "-V"], capture_output=True, text=True, check=True).stderr
    match = re.search(r"--modules-path=(\S+)", built)
    return Path(match[1] if match else "modules")


def absent() -> str | None:
    nginx = binary()
    if nginx is None:
        return f"nginx is not installed: {_REMEDY}"
    if not (modules(nginx) / "ngx_http_lua_module.so").exists():
        return f"nginx has no Lua module: {_REMEDY}"
    if not any(any(Path("/").glob(each)) for each in _CJSON):
        return f"Lua has no cjson: {_REMEDY}"
    return None


@contextmanager
def _start(program: str, lab: Lab, upstreams: Upstreams) -> Iterator[Served]:
    nginx, port = binary(), free_port()
    assert nginx is not None, absent()
    directory = Path(tempfile.mkdtemp(prefix="nginx-", dir=lab.directory)).absolute()
    (directory / "settings.lua").write_text(_settings(upstreams))
    config = directory / "nginx.conf"
    config.write_text(_configured(nginx, directory, program, port))
    with running(directory, port, nginx, "-p", str(directory), "-c", str(config)) as served:
        yield served


def _settings(upstreams: Upstreams) -> str:
    ports = ", ".join(f"{name} = {url.rpartition(':')[2]}" for name, url in upstreams.items())
    fresh_s = ", ".join(f"{each.source.name} = {each.cache.fresh_s:g}" for each in SOURCE_SPECS if each.cache.on)
    return f"return {{ports = {{{ports}}}, fresh_s = {{{fresh_s}}}}}\n"


def _configured(nginx: str, directory: Path, program: str, port: int) -> str:
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    written = {
        "FILES": _FILES if most_files == resource.RLIM_INFINITY else min(_FILES, most_files),
        "MODULES": modules(nginx),
        "USER": pwd.getpwuid(os.getuid()).pw_name,
        "GROUP": grp.getgrgid(os.getgid()).gr_name,
        "DIRECTORY": directory,
        "PROGRAMS": PROGRAMS,
        "PROGRAM": program,
        "PORT": port,
    }
    return re.sub("@([A-Z]+)@", lambda word: str(written[word[1]]), (PROGRAMS / "nginx.conf").read_text())


NGINX_LUA = Peer("nginx_lua", "nginx + Lua", False, absent, partial(_start, "nginx_lua.lua"))
NGINX_LUA_CACHED = Peer(
    "nginx_lua_cached", "nginx + Lua, cached", True, absent, partial(_start, "nginx_lua_cached.lua")
)
