"""CPU per consultation, the working tree ÷ an older revision, pair by pair.

Both run as `cashier serve` with one worker on core 0, with the same configuration and the same
upstream; one at a time has load. A pair starts both services anew, because two processes of the
same code can differ throughout their lives (memory layout, hash seed), and warms both. It then
measures 2.5 s of each in slices of a quarter second, in the order A B, B A, A B and so on, because
the speed of a shared machine drifts within seconds; a few slices before those do not count. The
next pair starts with the other one. The ratio is taken within a pair. The load is the closed loop
of 16 connections of `cost`, with the same requests in the same order for both. The groups are those
of `cost` too: all eight sources live, and returning customers with the default caches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from typing import NamedTuple, Protocol

import uvloop

from benchmarks.git_revision import describe, describe_working_tree
from benchmarks.lab import Lab
from benchmarks.lab.cpu_usage import CpuUsage, combine, doubts, measure_cpu
from benchmarks.lab.load import Load, open_load
from benchmarks.lab.process import LOAD_CORE, exact_cpu_s, pinned
from benchmarks.lab.requests import check_consultation, consultations
from benchmarks.lab.revision_build import Build, BuildFailed, build_before, build_now, serving
from benchmarks.lab.service import Served, configuration
from benchmarks.lab.upstream import USERS, Behaviour, LeanUpstream, start_upstream
from benchmarks.results import BarChart, Columns, Finding, Row, Table, figures
from benchmarks.studies.cost import ROUND_S, WARM_S
from benchmarks.suite import BEFORE, failed_finding

# Of ROUND_S, for each build in each pair.
SLICES = 10


class Group(NamedTuple):
    """`lead`: slices before the measured ones, in the same order, to refill short-lived caches."""

    name: str
    title: str
    cached: bool
    lead: int


GROUPS = (Group("live", "All eight live", False, 2), Group("cached", "Cached as by default", True, 6))


class Titled(Protocol):
    """What a service differs by from those beside it."""

    @property
    def title(self) -> str: ...


class Side(NamedTuple):
    """One build in one pair. `cpu_s`: from the exact clock. `calls`: upstream, per consultation."""

    usage: CpuUsage
    cpu_s: float
    calls: float

    @property
    def cpu_us(self) -> float:
        """For each answered consultation."""
        return self.cpu_s / self.usage.interval.answered * 1e6


class Pair(NamedTuple):
    now: Side
    before: Side

    @property
    def ratio(self) -> float:
        return self.now.cpu_us / self.before.cpu_us


COLUMNS: Columns[Pair] = {
    "now ÷ before": lambda pair: pair.ratio,
    "now CPU µs": lambda pair: pair.now.cpu_us,
    "before CPU µs": lambda pair: pair.before.cpu_us,
    "now calls": lambda pair: pair.now.calls,
    "before calls": lambda pair: pair.before.calls,
}
OTHERS: Columns[Side] = {"others on the core %": lambda side: 100 * side.usage.others_busy}


def measure(lab: Lab) -> Finding:
    assert lab.before is not None, "no revision"
    users = lab.count(USERS)
    try:
        lab.report(f"preparing revision {lab.before}")
        now, before = build_now(lab.directory), build_before(lab.before, lab.directory)
        lab.report(f"its environment: {before.origin}")
        origin = f"Now is {describe_working_tree()}. Before is {describe(lab.before)}, in {before.origin}."
        with pinned(LOAD_CORE), start_upstream(lab, users=users) as upstream:
            pairs = measure_pairs(lab, now, before, upstream, consultations(users))
    except BuildFailed as problem:
        return failed_finding(BEFORE, str(problem))
    return finding(pairs, before.title, origin)


def measure_pairs(
    lab: Lab, now: Build, before: Build, upstream: LeanUpstream, requests: Sequence[bytes]
) -> dict[Group, list[Pair]]:
    """Both groups in every pair, so that slow changes of the machine meet both."""
    pairs: dict[Group, list[Pair]] = {group: [] for group in GROUPS}
    for turn in range(lab.rounds):
        for group, group_pairs in pairs.items():
            group_pairs.append(measure_pair(lab, group, in_turn(now, before, turn), upstream, requests, now))
        progress = ", ".join(f"{group.name} {ratio_text(group_pairs[-1])}" for group, group_pairs in pairs.items())
        lab.report(f"pair {turn + 1} of {lab.rounds}, now ÷ before: {progress}")
    return pairs


def in_turn(now: Build, before: Build, turn: int) -> tuple[Build, Build]:
    """Alternate the order, so that both builds start first equally often."""
    return (before, now) if turn % 2 == 0 else (now, before)


def measure_pair(
    lab: Lab, group: Group, order: tuple[Build, Build], upstream: LeanUpstream, requests: Sequence[bytes], now: Build
) -> Pair:
    config = configuration(upstream.urls, cached=group.cached, shed=False, each="", other="")
    with ExitStack() as running:
        served = [running.enter_context(serving(build, config, lab.directory)) for build in order]
        sides = uvloop.run(drive_services(lab, group, order, served, upstream, requests))
    first, second = sides
    return Pair(first, second) if order[0] is now else Pair(second, first)


async def drive_services(
    lab: Lab,
    group: Group,
    order: Sequence[Titled],
    served: Sequence[Served],
    upstream: LeanUpstream,
    requests: Sequence[bytes],
) -> list[Side]:
    """Load one service at a time. Raises BuildFailed if a warm service has no complete answer."""
    async with AsyncExitStack() as open_loads:
        loads = [
            await open_loads.enter_async_context(open_load(each.port, requests, check=check_consultation))
            for each in served
        ]
        for build, load in zip(order, loads, strict=True):
            warm = await load.closed(lab.seconds(WARM_S))
            if len(warm.wrong) == warm.looked_at:
                why = f"its answers are incomplete, for example one {warm.wrong[0]}" if warm.wrong else f"{warm!r}"
                raise BuildFailed(f"{build.title} does not consult: {why}")
        slices: list[list[Side]] = [[] for _ in served]
        for turn in range(group.lead + SLICES):
            for which in range(len(served))[:: 1 if turn % 2 == 0 else -1]:
                slices[which].append(await measure_slice(lab, loads[which], served[which], upstream))
        return [join_slices(each[group.lead :]) for each in slices]


async def measure_slice(lab: Lab, load: Load, served: Served, upstream: LeanUpstream) -> Side:
    upstream.behave(Behaviour())  # resets its counts; blocks while no request waits
    start_s = exact_cpu_s(served.pid)
    usage = await measure_cpu(load.closed(lab.seconds(ROUND_S) / SLICES), served.pid, upstream.pid)
    used_s = exact_cpu_s(served.pid) - start_s
    return Side(usage, used_s, upstream.seen().total / usage.interval.answered)


def join_slices(slices: Sequence[Side]) -> Side:
    total = combine([each.usage for each in slices])
    calls = sum(each.calls * each.usage.interval.answered for each in slices)
    return Side(total, sum(each.cpu_s for each in slices), calls / total.interval.answered)


def ratio_text(pair: Pair) -> str:
    return f"{pair.ratio:.3f} ({pair.now.cpu_us:,.0f} ÷ {pair.before.cpu_us:,.0f} µs)"


def finding(pairs_by_group: Mapping[Group, Sequence[Pair]], title: str, origin: str) -> Finding:
    columns = {group: figures(pairs, COLUMNS) for group, pairs in pairs_by_group.items()}
    sides = {
        group: [*(each.now for each in pairs), *(each.before for each in pairs)]
        for group, pairs in pairs_by_group.items()
    }
    names = {"ratio": "now ÷ before", "now_us": "now CPU µs", "before_us": "before CPU µs"}
    return Finding(
        f"CPU per consultation, now ÷ {title}",
        key={
            f"before.{name}.{group.name}": each[column]
            for group, each in columns.items()
            for name, column in names.items()
        },
        tables=[
            Table(
                "CPU per consultation, pair by pair",
                [Row(group.title, each | figures(sides[group], OTHERS)) for group, each in columns.items()],
                "The ratio is taken pair by pair: median, lowest, highest. Below 1 a consultation costs less now.",
            )
        ],
        drawings=[
            BarChart(
                "CPU per consultation, now and before",
                "CPU µs",
                [group.title for group in columns],
                {side: [each[f"{side} CPU µs"] for each in columns.values()] for side in ("now", "before")},
            )
        ],
        notes=[origin, *(text for group, pairs in pairs_by_group.items() for text in notes(group.title, pairs))],
    )


def notes(title: str, pairs: Sequence[Pair]) -> list[str]:
    cheaper = sum(pair.ratio < 1 for pair in pairs)
    return [
        f"{title}: now is cheaper in {cheaper} of {len(pairs)} pairs.",
        *doubts(f"{title}, now", [pair.now.usage for pair in pairs]),
        *doubts(f"{title}, before", [pair.before.usage for pair in pairs]),
    ]
