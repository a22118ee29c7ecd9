"""The price of metrics, records and traces: on ÷ off.

CPU per consultation with all eight sources live: two services, one with `[operations]` as by
default and a collector of traces, one with `enabled = false` and none, in pairs of slices as in
`cost --before`. The first also pays for its operations port, which reads its own store every
second. Memory: the file of one
worker and its objects, all families with as many children as they may have. A scrape: CPU
time of reading two such files, adding and rendering them, in this process.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import uvloop

from benchmarks.lab import Lab
from benchmarks.lab.cpu_usage import doubts
from benchmarks.lab.process import LOAD_CORE, pinned
from benchmarks.lab.requests import consultations
from benchmarks.lab.service import start_service
from benchmarks.lab.upstream import USERS, LeanUpstream, start_upstream
from benchmarks.results import Columns, Figure, Finding, Row, Table, figures
from benchmarks.studies.before import GROUPS, Side, drive_services
from cashier.metrics import layout
from cashier.metrics.exposition import render
from cashier.metrics.families import FAMILIES
from cashier.metrics.store import Store
from cashier.ops.aggregation import WorkerStores

WORKERS = 2
SCRAPES = 20


class Setting(NamedTuple):
    title: str
    toml: str


OFF = Setting("off", "[operations]\nenabled = false")


def all_on(collector_url: str) -> Setting:
    return Setting("on", f'[operations]\nport = 0\n[telemetry]\notlp_url = "{collector_url}"')


class Pair(NamedTuple):
    on: Side
    off: Side

    @property
    def ratio(self) -> float:
        return self.on.cpu_us / self.off.cpu_us


COLUMNS: Columns[Pair] = {
    "on ÷ off": lambda pair: pair.ratio,
    "on CPU µs": lambda pair: pair.on.cpu_us,
    "off CPU µs": lambda pair: pair.off.cpu_us,
}


def measure(lab: Lab) -> Finding:
    users = lab.count(USERS)
    with pinned(LOAD_CORE), start_upstream(lab, users=users) as upstream:
        requests = consultations(users)
        pairs = []
        for turn in range(lab.rounds):
            pairs.append(measure_pair(lab, turn, upstream, requests))
            lab.report(f"pair {turn + 1} of {lab.rounds}, on ÷ off: {pairs[-1].ratio:.3f}")
        exports = upstream.seen().exports
    return finding(pairs, exports, *measure_store(lab.directory))


def measure_pair(lab: Lab, turn: int, upstream: LeanUpstream, requests: Sequence[bytes]) -> Pair:
    """The order alternates, so that both start first equally often."""
    on = all_on(upstream.collector_url)
    order = (on, OFF) if turn % 2 else (OFF, on)
    with ExitStack() as running:
        served = [running.enter_context(start_service(lab, upstream.urls, other=setting.toml)) for setting in order]
        sides = uvloop.run(drive_services(lab, GROUPS[0], order, served, upstream, requests))
    by_setting = dict(zip(order, sides, strict=True))
    return Pair(by_setting[on], by_setting[OFF])


def measure_store(directory: Path) -> tuple[Figure, Figure, int]:
    """MB of one worker's store, CPU ms of a scrape, and the lines of its answer."""
    tracemalloc.start()
    stores = [filled_store(directory / f"{number}.metrics") for number in range(WORKERS)]
    objects, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    workers = WorkerStores(directory)
    scrapes_ms = []
    text = ""
    for _ in range(SCRAPES):
        started_ns = time.thread_time_ns()
        text = render(workers.snapshot())
        scrapes_ms.append((time.thread_time_ns() - started_ns) / 1e6)
    workers.close()
    megabytes = (layout.SIZE + objects / len(stores)) / 1e6
    return Figure.of(megabytes), Figure.by_round(scrapes_ms), text.count("\n")


def filled_store(path: Path) -> Store:
    store = Store.create(path)
    for family in FAMILIES.values():
        for number in range(family.most_children if family.labels else 1):
            child = getattr(store, family.kind)(family.name, *(f"{label}-{number}" for label in family.labels))
            child.cells[child.index] = number
    return store


def finding(pairs: Sequence[Pair], exports: int, megabytes: Figure, scrape_ms: Figure, lines: int) -> Finding:
    columns = figures(pairs, COLUMNS)
    return Finding(
        "The price of observability",
        key={
            "observability.ratio": columns["on ÷ off"],
            "observability.store_mb": megabytes,
            "observability.scrape_ms": scrape_ms,
        },
        tables=[
            Table("CPU per consultation, pair by pair", [Row(GROUPS[0].title, columns)]),
            Table(
                "The store, every family full",
                [Row("one worker", {"MB": megabytes}), Row(f"scrape of {WORKERS} workers", {"CPU ms": scrape_ms})],
            ),
        ],
        notes=[
            f"The collector received {exports:,} exports of spans.",
            f"A scrape of {WORKERS} full workers has {lines:,} lines.",
            *doubts("on", [pair.on.usage for pair in pairs]),
            *doubts("off", [pair.off.usage for pair in pairs]),
        ],
    )
