"""Which versions stand beside us, for the report. Starts none of them as a server."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from benchmarks.peers import go, nginx, node

_PACKAGES = ("aiohttp", "fastapi", "httpx", "uvicorn", "uvloop", "httptools")


def versions() -> dict[str, str]:
    """By name; what is absent is left out."""
    asked = {
        "nginx": _said([nginx.binary(), "-v"]),
        "nginx's Lua module": _said(["dpkg-query", "--show", "--showformat=${Version}", "libnginx-mod-http-lua"]),
        "Go": _said([go.binary(), "version"]),
        "Node": _said([node.binary(), "--version"]),
        **{package: _installed(package) for package in _PACKAGES},
    }
    return {name: said for name, said in asked.items() if said}


def _said(words: Sequence[str | None]) -> str:
    """The first number with points that a program says of itself."""
    try:
        said = subprocess.run([word or "" for word in words], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    found = re.search(r"\d+(?:\.\d+)+", said.stdout + said.stderr)
    return found[0] if found else ""


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
