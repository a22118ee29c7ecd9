"""The program under test: `cashier serve` on its own core, with a generated configuration."""

from __future__ import annotations

import http.client
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.lab import Lab
from benchmarks.lab.process import PROGRAM_CORE, process
from benchmarks.lab.upstream import SOURCE_NAMES

# For `start_service(each=…, other=…)`: no time limits, limiters and refusals, so that all work is
# done and counted. For studies of work and memory, not of latency, which these limits bound.
EACH = "timeout_ms = 50000\nadaptive_timeout = false\nlimiter = false"
CONSULT = "[consult]\ndeadline_ms = 60000\nmax_deadline_ms = 60000\ngrace_ms = 50000"
SECRET = {"CASHIER_TOKEN_SECRET": "b" * 32}
# As Ctrl-C: after SIGTERM a service waits for load balancers to leave.
STOP_AT_ONCE = signal.SIGINT
_READY_S = 30.0


class Served(NamedTuple):
    """A program that is ready. `pid`: the root of the process tree whose CPU counts."""

    pid: int
    port: int


@contextmanager
def start_service(
    lab: Lab,
    upstreams: Mapping[str, str] | str,
    *,
    cached: bool = False,
    shed: bool = False,
    each: str = "",
    other: str = "",
    workers: int = 1,
    core: int | None = PROGRAM_CORE,
    python: str = sys.executable,
    module: str = "cashier",
    env: Mapping[str, str] = {},
) -> Iterator[Served]:
    """Start `cashier serve` with its defaults, except that caches and load shedding are off.

    `cached` and `shed` turn them on. `upstreams`: the address of each source, or one for all.
    `each`: TOML lines for every source. `other`: TOML tables, such as `[consult]` or
    `[sources.quota.batch]`. `core`: None means all. `python`: another interpreter. `module`: what
    it runs in place of `cashier`, with `env` in its environment.
    """
    directory = Path(tempfile.mkdtemp(prefix="service-", dir=lab.directory))
    config = directory / "cashier.toml"
    config.write_text(configuration(upstreams, cached=cached, shed=shed, each=each, other=other))
    words = (python, "-m", module, "serve", "--config", str(config), "--port", "0", "--workers", str(workers))
    with process(core, *words, env={**SECRET, **env}, log=directory / "log", end_signal=STOP_AT_ONCE) as child:
        port = int(child.first_line.rpartition(":")[2])
        await_ready(port)
        yield Served(child.pid, port)


def configuration(upstreams: Mapping[str, str] | str, *, cached: bool, shed: bool, each: str, other: str) -> str:
    urls = dict.fromkeys(SOURCE_NAMES, upstreams) if isinstance(upstreams, str) else upstreams
    lines = ([] if cached else ["cache = false"]) + [each]
    sources = "".join("\n".join([f"[sources.{name}]", f'url = "{urls[name]}"', *lines, ""]) for name in SOURCE_NAMES)
    return f"[shed]\nenabled = {str(shed).lower()}\n{sources}{other}\n"


def await_ready(port: int) -> None:
    """Poll `/readyz`: a service connects to its required sources first. Raises RuntimeError."""
    until_s = time.monotonic() + _READY_S
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_READY_S)
    try:
        while True:
            connection.request("GET", "/readyz")
            answer = connection.getresponse()
            body = answer.read()
            if answer.status == 200:
                return
            if time.monotonic() > until_s:
                raise RuntimeError(f"the service is not ready: {answer.status} {body!r}")
            time.sleep(0.02)
    finally:
        connection.close()
