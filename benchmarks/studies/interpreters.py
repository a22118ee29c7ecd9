"""CPU per consultation by interpreter: other versions of Python beside the one of the suite.

All run `cashier serve` from the working tree with one worker on core 0, with the same configuration
and upstream; one at a time has load. A round starts all services anew and measures them in
alternating slices, in two groups, as `cost --before` does with two revisions. Ratios are taken
round by round. An interpreter needs cashier's dependencies; the notes list versions that differ.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import NamedTuple

import uvloop

from benchmarks.lab import Lab
from benchmarks.lab.cpu_usage import doubts
from benchmarks.lab.process import LOAD_CORE, pinned
from benchmarks.lab.requests import consultations
from benchmarks.lab.revision_build import differing_versions
from benchmarks.lab.service import start_service
from benchmarks.lab.upstream import USERS, LeanUpstream, start_upstream
from benchmarks.results import BarChart, Figure, Finding, Row, Table
from benchmarks.studies.before import GROUPS, Group, Side, drive_services

_VERSION = "import platform; print(platform.python_implementation(), platform.python_version())"


class Interpreter(NamedTuple):
    """`title`: such as "CPython 3.12.1"."""

    title: str
    python: str

    @property
    def version(self) -> str:
        """Such as "3.12"."""
        return ".".join(self.title.rpartition(" ")[2].split(".")[:2])


# The rounds of each interpreter.
Sides = Mapping[Interpreter, list[Side]]


def measure(lab: Lab) -> Finding:
    interpreters = [find_interpreter(python) for python in (sys.executable, *lab.pythons)]
    users = lab.count(USERS)
    sides: dict[Group, Sides] = {group: {each: [] for each in interpreters} for group in GROUPS}
    with pinned(LOAD_CORE), start_upstream(lab, users=users) as upstream:
        requests = consultations(users)
        for turn in lab.turns("interpreters"):
            order = interpreters if turn % 2 == 0 else interpreters[::-1]
            for group, by_interpreter in sides.items():
                for interpreter, side in zip(order, measure_round(lab, group, order, upstream, requests), strict=True):
                    by_interpreter[interpreter].append(side)
    return finding(sides)


def find_interpreter(python: str) -> Interpreter:
    """Raises CalledProcessError or OSError if it does not run."""
    said = subprocess.run((python, "-c", _VERSION), capture_output=True, text=True, check=True, timeout=60)
    return Interpreter(said.stdout.strip(), python)


def measure_round(
    lab: Lab, group: Group, order: Sequence[Interpreter], upstream: LeanUpstream, requests: Sequence[bytes]
) -> list[Side]:
    with ExitStack() as running:
        served = [
            running.enter_context(start_service(lab, upstream.urls, cached=group.cached, python=each.python))
            for each in order
        ]
        return uvloop.run(drive_services(lab, group, order, served, upstream, requests))


def finding(sides: Mapping[Group, Sides]) -> Finding:
    cpu_us = {
        group: {each: Figure.by_round(side.cpu_us for side in rounds) for each, rounds in by_interpreter.items()}
        for group, by_interpreter in sides.items()
    }
    interpreters = list(cpu_us[GROUPS[0]])
    own = interpreters[0]
    ratios = {group: {each: figure.over(by[own]) for each, figure in by.items()} for group, by in cpu_us.items()}
    rows = [
        Row(
            each.title,
            {f"{group.name} CPU µs": cpu_us[group][each] for group in GROUPS}
            | {f"{group.name} ÷ {own.version}": ratios[group][each] for group in GROUPS},
        )
        for each in interpreters
    ]
    return Finding(
        "CPU per consultation by interpreter",
        key={
            f"interpreters.ratio.{group.name}.{each.version}": ratios[group][each]
            for group in GROUPS
            for each in interpreters[1:]
        },
        tables=[Table("CPU per consultation, round by round", rows, "Live: all eight sources. Cached: as by default.")],
        drawings=[
            BarChart(
                "CPU per consultation by interpreter",
                "CPU µs",
                [each.title for each in interpreters],
                {group.title: list(cpu_us[group].values()) for group in GROUPS},
            )
        ],
        notes=list(notes(sides)),
    )


def notes(sides: Mapping[Group, Sides]) -> Iterator[str]:
    for interpreter in list(sides[GROUPS[0]])[1:]:
        if differing := differing_versions(interpreter.python):
            yield f"{interpreter.title} has {', '.join(differing)}."
    for group, by_interpreter in sides.items():
        for interpreter, rounds in by_interpreter.items():
            yield from doubts(f"{interpreter.title}, {group.name}", [side.usage for side in rounds])
