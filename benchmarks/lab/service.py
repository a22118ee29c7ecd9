"""The program under test: `cashier serve` on a core of its own, with a configuration written for it. Puts no load on it."""

from __future__ import annotations

import http.client
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.lab.lab import Lab
from benchmarks.lab.process import PROGRAM_CORE, process, python
from cashier.consultation.plan import SOURCE_NAMES

SECRET = {"CASHIER_TOKEN_SECRET": "b" * 32}


class Served(NamedTuple):
    """A program that answers. `pid`: the root of the process tree whose CPU counts."""

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
) -> Iterator[Served]:
    """As it ships, but that nothing is cached unless `cached` (then as by default) and nobody refused unless `shed`.

    `upstreams`: the address of each source, or one for all. `each`: TOML lines for every source; `other`: TOML tables of their own, such
    as `[consult]` or `[sources.quota.batch]`. `core`: None is all of them.
    """
    directory = Path(tempfile.mkdtemp(prefix="service-", dir=lab.directory))
    config = directory / "cashier.toml"
    config.write_text(configuration(upstreams, cached=cached, shed=shed, each=each, other=other))
    words = python("cashier", "serve", "--config", str(config), "--port", "0", "--workers", str(workers))
    with process(core, *words, env=SECRET, log=directory / "log") as child:
        port = int(child.first_line.rpartition(":")[2])
        await_ready(port)
        yield Served(child.pid, port)


def configuration(upstreams: Mapping[str, str] | str, *, cached: bool, shed: bool, each: str, other: str) -> str:
    urls = dict.fromkeys(SOURCE_NAMES, upstreams) if isinstance(upstreams, str) else upstreams
    lines = ([] if cached else ["cache = false"]) + [each]
    sources = "".join("\n".join([f"[sources.{name}]", f'url = "{urls[name]}"', *lines, ""]) for name in SOURCE_NAMES)
    return f"[shed]\nenabled = {str(shed).lower()}\n{sources}{other}\n"


def await_ready(port: int) -> None:
    """The port is the service's before it answers: a request waits in its queue until then."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        if answer.status != 200:
            raise RuntimeError(f"the service is not ready: {answer.status} {answer.read()!r}")
    finally:
        connection.close()
