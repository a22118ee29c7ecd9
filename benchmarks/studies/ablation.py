"""Each mechanism off and on.

The `Cashier` runs in this process on core 0, with random arrivals at a fixed rate; latency counts
from the due time. Its eight sources run on core 1, each at its own address, with simulated
behaviour. Rounds off and on alternate, each with a new `Cashier` and the same arrivals. "Off" turns
off this one mechanism only; if two mechanisms do the same job, the other one is off in both
columns, as the row says. CPU is this process's user and system time, arrivals included.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import NamedTuple

import msgspec
import uvloop

from benchmarks.lab.in_process_rig import InProcessBench, Tally
from benchmarks.lab.process import PROGRAM_CORE, pinned
from benchmarks.lab.study_run import Lab
from benchmarks.lab.upstream import LeanUpstream, start_upstream
from benchmarks.lean_upstream import FIRST_USER
from benchmarks.results import BarChart, Figure, Finding, Row, Table
from benchmarks.studies.ablation_scenarios import MECHANISMS, Figures, Mechanism
from cashier import ConsultRequest
from cashier.sandbox import World
from cashier.web.server import GC_THRESHOLD

USERS = 500
ROUNDS = 3


class MechanismResult(NamedTuple):
    """Figures of all rounds, by name."""

    mechanism: Mechanism
    off: Mapping[str, Figure]
    on: Mapping[str, Figure]

    @property
    def label(self) -> str:
        return f"{self.mechanism.name}: {self.mechanism.shown}"

    @property
    def ratio(self) -> Figure:
        """On ÷ off of the figure in the chart; NaN where "off" is zero."""
        off, on = self.off[self.mechanism.shown], self.on[self.mechanism.shown]
        return Figure.of(*(mine / its if its else math.nan for mine, its in zip(on.rounds, off.rounds, strict=True)))


def measure(lab: Lab) -> Finding:
    start_s, tally = time.perf_counter(), Tally()
    with pinned(PROGRAM_CORE), start_upstream(lab, users=lab.count(USERS)) as sources:
        results = uvloop.run(measure_mechanisms(lab, sources, tally))
    return finding(results, tally, time.perf_counter() - start_s)


async def measure_mechanisms(lab: Lab, sources: LeanUpstream, tally: Tally) -> list[MechanismResult]:
    crowd = World().population.generated
    requests = [
        msgspec.convert(crowd.consult_request(n), ConsultRequest)
        for n in range(FIRST_USER, FIRST_USER + lab.count(USERS))
    ]
    gc.freeze()  # as in the service after its warm-up
    gc.set_threshold(GC_THRESHOLD, 10, 10)
    measured = []
    for mechanism in MECHANISMS:
        lab.report(f"ablation: {mechanism.name}")
        off: list[Figures] = []
        on: list[Figures] = []
        for turn in range(min(ROUNDS, lab.rounds)):
            for rounds, is_on in ((off, False), (on, True)):
                bench = InProcessBench(lab, sources, sources.urls, requests, Random(turn), tally)
                rounds.append(await mechanism.measure(bench, is_on))
        measured.append(MechanismResult(mechanism, combine(off), combine(on)))
    return measured


def combine(rounds: Sequence[Figures]) -> dict[str, Figure]:
    return {name: Figure.of(*(each[name] for each in rounds)) for name in rounds[0]}


def finding(results: Sequence[MechanismResult], tally: Tally, seconds: float) -> Finding:
    labels = [each.label for each in results]
    drawing = BarChart(
        "Effect of each mechanism: on ÷ off",
        "on ÷ off, less is better",
        labels,
        {"on ÷ off": [each.ratio for each in results]},
        ours=labels,
        marks={"no difference": 1.0},
    )
    return Finding(
        "ablation",
        "Each mechanism off and on",
        (__doc__ or "").strip(),
        seconds,
        key={f"ablation.{each.mechanism.name.replace(' ', '_')}": each.ratio for each in results},
        tables=[Table("Each mechanism off and on", [row for each in results for row in rows(each)])],
        drawings=[drawing],
        notes=list(notes(tally)),
    )


def rows(results: MechanismResult) -> Iterator[Row]:
    note = results.mechanism.about
    for name, off in results.off.items():
        yield Row(f"{results.mechanism.name}: {name}", {"off": off, "on": results.on[name]}, note)
        note = ""  # only at the first row of a mechanism


def notes(tally: Tally) -> Iterator[str]:
    if tally.lost:
        yield (
            f"{tally.lost:,} of {tally.consultations:,} consultations (without the row on retries) had no answer, "
            "which is not expected: "
            "calls that wait for our own loop look like calls of a slow source. Rows with a wide spread mean nothing."
        )
    else:
        yield (
            f"All {tally.consultations:,} consultations were answered, apart from the row on retries, which measures "
            "this."
        )
    yield tally.waiting.note("The engine's process")
    if tally.busiest:
        yield f"The sources' process was busy {tally.busiest:.0%} of its core at most."
