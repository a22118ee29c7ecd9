"""Batching: what it saves in calls and CPU, and what it adds to latency.

First the whole engine with batching on, at three rates of consultations of customers who have not been here before: how many calls its
sources see for each. Six of the eight take batches; channels and merchants are cached, as they are by default; the deadline is half a
second, so that calls are counted and not who was given up. Then six sources alone, without engine, cache or guard: each key a call of its
own, or gathered; what that takes of CPU and adds to the latency of a key.

This process on core 0, arrivals included; the upstream on core 1, each source at an address of its own, answers after 5 ms and counts.
Arrivals are at random, latency counts from when each was due, CPU is this process's own user and system time. Rounds take turns.
"""

from __future__ import annotations

import asyncio
import gc
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import Any, NamedTuple

import msgspec
import uvloop

from benchmarks.lab.arrivals import Arrivals, arrivals
from benchmarks.lab.batch_load import PATHS, Keys, stretch, upstreams
from benchmarks.lab.lab import Lab
from benchmarks.lab.process import PROGRAM_CORE, pinned
from benchmarks.lab.run_queue import MUCH, Waiting
from benchmarks.lab.upstream import Upstream, upstream
from benchmarks.lab.upstream_control import Behaviour
from benchmarks.lean_upstream import FIRST
from benchmarks.results import Figure, Finding, Line, Lines, Row, Table
from cashier import Cashier, ConsultRequest
from cashier.consultation.plan import SOURCE_NAMES, known_inputs
from cashier.fanout.ask import SourceStatus
from cashier.fanout.batch import BatchPolicy
from cashier.sandbox import World
from cashier.web.server import GC_THRESHOLD

DELAY_MS = 5
DEADLINE_MS, PATIENT_MS = 500, 450
RATES = (500, 1_000, 2_000)
ROUNDS = 3
STRETCH_S = 0.8
WARM_S = 0.2
# Enough that at the highest rate too nobody comes twice; the first of them only warm it up.
USERS, WARMING = 2_600, 600
QUICK_USERS, QUICK_STRETCH_S = 1_200, 0.2
# With more consultations than this that lack something the sources see few calls because few are made.
MOST_INCOMPLETE_PERCENT = 1.0


class Whole(NamedTuple):
    """The engine, over one stretch. `calls`, `keys`: that the sources saw."""

    came: Arrivals
    calls: int
    keys: int
    waiting: Waiting

    @property
    def calls_each(self) -> float:
        """Not a number where few calls are no merit: not made, or few because others kept us from making them in time."""
        return self.calls / self.came.consultations if self.sound else math.nan

    @property
    def sound(self) -> bool:
        return self.incomplete_percent <= MOST_INCOMPLETE_PERCENT and not self.waiting.much

    @property
    def keys_a_batch(self) -> float:
        """Nearly: the calls of the two that take none are few."""
        return self.keys / max(1, self.calls)

    @property
    def incomplete_percent(self) -> float:
        """Consultations that had to do without somebody, or without an answer."""
        missing = max(
            1 - self.came.share(name, SourceStatus.FRESH, SourceStatus.CACHED, SourceStatus.STALE)
            for name in SOURCE_NAMES
        )
        return 100 * missing


class Six(NamedTuple):
    """The same keys at the six sources, over one stretch."""

    alone: Keys
    gathered: Keys
    calls: int


class Found(NamedTuple):
    """By rate, in rounds."""

    whole: Mapping[float, list[Whole]]
    six: Mapping[float, list[Six]]


def measure(lab: Lab) -> Finding:
    began_s = time.perf_counter()
    users = QUICK_USERS if lab.quick else USERS
    with pinned(PROGRAM_CORE), upstream(lab, users=users) as sources:
        taken = uvloop.run(all_taken(lab, sources, users))
    return found(taken, time.perf_counter() - began_s)


async def all_taken(lab: Lab, sources: Upstream, users: int) -> Found:
    crowd = World().cast.crowd
    asked = [msgspec.convert(crowd.consult_request(n), ConsultRequest) for n in range(FIRST, FIRST + users)]
    gc.freeze()  # as the service does once it is warm
    gc.set_threshold(GC_THRESHOLD, 10, 10)
    taken = Found({rate: [] for rate in RATES}, {rate: [] for rate in RATES})
    for turn in range(min(ROUNDS, lab.rounds)):
        lab.say(f"batch: round {turn + 1} of {min(ROUNDS, lab.rounds)}")
        for rate in RATES:
            taken.whole[rate].append(await whole(lab, sources, asked, rate, Random(turn)))
            taken.six[rate].append(await six(lab, sources, asked, rate, turn))
    return taken


def stretch_s(lab: Lab) -> float:
    return QUICK_STRETCH_S if lab.quick else STRETCH_S


async def reset(sources: Upstream) -> None:
    """What the sources have seen is counted from now on."""
    await asyncio.to_thread(sources.behave, Behaviour(dict.fromkeys(SOURCE_NAMES, DELAY_MS)))


async def whole(lab: Lab, sources: Upstream, asked: Sequence[ConsultRequest], rate: float, random: Random) -> Whole:
    async with Cashier(config=patient(sources)) as cashier:
        warming = iter(asked[:WARMING])
        await arrivals(cashier, warming, rate / 4, WARM_S, random)  # connections are opened
        await arrivals(cashier, warming, rate, WARM_S / 2, random)
        await reset(sources)
        waiting = Waiting()
        with waiting.of(os.getpid()):
            came = await arrivals(cashier, iter(asked[WARMING:]), rate, stretch_s(lab), random)
        seen = await asyncio.to_thread(sources.seen)
    return Whole(came, sum(seen.calls.values()), sum(seen.keys.values()), waiting)


def patient(sources: Upstream) -> dict[str, Any]:
    """Batches where the upstream takes them, and more time than it needs: what is counted is calls, and not who was given up."""
    batches = {name: {"batch": {"path": path}} for name, path in PATHS.items()}
    return {
        "sources": {
            name: {"url": sources.urls[name], "timeout_ms": PATIENT_MS, **batches.get(name, {})}
            for name in SOURCE_NAMES
        },
        "consult": {"deadline_ms": DEADLINE_MS},
        "tokens": {"secrets": ["b" * 32]},
    }


async def six(lab: Lab, sources: Upstream, asked: Sequence[ConsultRequest], rate: float, seed: int) -> Six:
    questions = [known_inputs(each) for each in asked]
    found: list[Keys] = []
    for numbers in (None, BatchPolicy()):
        async with upstreams(sources.urls, numbers) as those:
            await stretch(those, questions, rate, min(WARM_S, stretch_s(lab)), Random(seed))
            await reset(sources)
            found.append(await stretch(those, questions, rate, stretch_s(lab), Random(seed)))
            calls = sum((await asyncio.to_thread(sources.seen)).calls.values())
    alone, gathered = found
    return Six(alone, gathered, calls)


def found(taken: Found, seconds: float) -> Finding:
    highest = taken.whole[RATES[-1]]
    calls = {rate: Figure.of(*(each.calls_each for each in rounds)) for rate, rounds in taken.whole.items()}
    drawing = Lines(
        "Calls that the sources see for a consultation, batching on",
        "consultations a second",
        "calls per consultation",
        [Line("calls", list(calls.items()), ours=True)],
        marks={"a call for each that is not cached": len(PATHS)},
    )
    return Finding(
        "batch",
        "Batching",
        (__doc__ or "").strip(),
        seconds,
        key={
            "batch.calls_per_consultation": calls[RATES[-1]],
            "batch.p99_ms": Figure.of(*(each.came.at(0.99) for each in highest)),
            "batch.cpu_ratio": cpu_ratio(taken.six[RATES[-1]]),
        },
        tables=[
            Table(
                "The whole engine, batching on, customers who have not been here before",
                [whole_row(rate, rounds) for rate, rounds in taken.whole.items()],
            ),
            Table(
                "Six sources alone: a call for each key, or batches",
                [six_row(rate, rounds) for rate, rounds in taken.six.items()],
            ),
        ],
        drawings=[drawing],
        notes=list(notes(taken)),
    )


def whole_row(rate: float, rounds: Sequence[Whole]) -> Row:
    figures = {
        "calls per consultation": [each.calls_each for each in rounds],
        "keys per call": [each.keys_a_batch for each in rounds],
        "waited for a core %": [100 * each.waiting.share for each in rounds],
        "p50 ms": [each.came.at(0.5) for each in rounds],
        "p99 ms": [each.came.at(0.99) for each in rounds],
        "CPU µs per consultation": [each.came.cpu_us for each in rounds],
        "incomplete %": [each.incomplete_percent for each in rounds],
    }
    return Row(f"{rate:,} consultations/s", {column: Figure.of(*values) for column, values in figures.items()})


def six_row(rate: float, rounds: Sequence[Six]) -> Row:
    figures = {
        "keys per call": [each.gathered.asked / max(1, each.calls) for each in rounds],
        "p50 ms, a call each": [each.alone.latencies.at(0.5) for each in rounds],
        "p99 ms, a call each": [each.alone.latencies.at(0.99) for each in rounds],
        "p50 ms, batches": [each.gathered.latencies.at(0.5) for each in rounds],
        "p99 ms, batches": [each.gathered.latencies.at(0.99) for each in rounds],
        "CPU µs per key, a call each": [each.alone.cpu_us for each in rounds],
        "CPU µs per key, batches": [each.gathered.cpu_us for each in rounds],
    }
    return Row(f"{rate:,} customers/s", {column: Figure.of(*values) for column, values in figures.items()})


def cpu_ratio(rounds: Sequence[Six]) -> Figure:
    """Of a key in a batch ÷ one alone."""
    return Figure.of(*(each.gathered.cpu_us / each.alone.cpu_us for each in rounds))


def notes(taken: Found) -> Iterator[str]:
    for rate, rounds in taken.whole.items():
        if lost := sum(each.came.lost for each in rounds):
            yield f"{rate:,}/s: {lost:,} of {sum(each.came.consultations for each in rounds):,} consultations had no answer."
        if unsound := sum(not each.sound for each in rounds):
            yield (
                f"{rate:,}/s: in {unsound} of {len(rounds)} rounds one consultation in a hundred lacked something, or this process waited "
                f"for its core more than {MUCH:.0%} of the time, which makes batches larger than they are. Of those no calls are told."
            )
    for rate, pairs in taken.six.items():
        keys, failed = (
            sum(each.alone.asked + each.gathered.asked for each in pairs),
            sum(each.alone.failed + each.gathered.failed for each in pairs),
        )
        if failed:
            yield f"{rate:,}/s: {failed:,} of {keys:,} keys came to nothing: this machine was too busy for the figures to mean anything."
    busy = max(each.came.cpu_us for each in taken.whole[RATES[-1]]) * RATES[-1] / 1e6
    yield f"At {RATES[-1]:,}/s engine and arrivals need up to {busy:.0%} of their core" + (
        ": latencies are those of an engine at its limit, and batches are the larger for it." if busy > 0.85 else "."
    )
