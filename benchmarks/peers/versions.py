"""Versions of the peers and their libraries, for the report."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from benchmarks.peers import go, nginx, node

_PACKAGES = ("aiohttp", "fastapi", "httpx", "uvicorn", "uvloop", "httptools")


def versions() -> dict[str, str]:
    """By name, without absent ones."""
    by_program = {
        "nginx": _version_of([nginx.binary(), "-v"]),
        "nginx's Lua module": _version_of(["dpkg-query", "--show", "--showformat=${Version}", "libnginx-mod-http-lua"]),
        "Go": _version_of([go.binary(), "version"]),
        "Node": _version_of([node.binary(), "--version"]),
        **{package: _installed(package) for package in _PACKAGES},
    }
    return {name: text for name, text in by_program.items() if text}


def _version_of(words: Sequence[str | None]) -> str:
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
