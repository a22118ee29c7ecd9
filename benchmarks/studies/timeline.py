"""One consultation from socket to socket: where it waits, and where it works.

`cashier serve` runs on core 0; the client and the upstream run on core 1. The slowest source takes
5 ms, the others 2; nothing is cached. The client sends one consultation, reads the answer, pauses a
few milliseconds at random and sends the next one, so nothing queues. Functions of the service are
wrapped to note the time at certain points (`lab/marked_service.py`), which costs some 10 µs of a
consultation. Each figure is the median over the consultations of a round.
"""

from __future__ import annotations

import socket
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

import msgspec

from benchmarks.lab import Lab
from benchmarks.lab.load import ResponseReader
from benchmarks.lab.marked_service import FILE, Mark, Marks, Point
from benchmarks.lab.process import LOAD_CORE, pinned
from benchmarks.lab.process_resources import RunQueueWait
from benchmarks.lab.requests import check_consultation, consultations
from benchmarks.lab.service import start_service
from benchmarks.lab.upstream import SOURCE_NAMES, USERS, LeanUpstream, start_upstream
from benchmarks.results import Figure, Finding, Row, Span, Table, Timeline
from benchmarks.studies.latency import BEHAVIOUR, SLOWEST, SLOWEST_MS

CONSULTATIONS, WARMING = 400, 300
PAUSE_MS = (2, 8)
# The stage that ends at each of these points, in order.
STAGES = {
    Point.READ: "the request: the kernel, the loop",
    Point.ASKING: "head and body parsed, checked",
    Point.ASKED: "eight requests written",
    Point.ANSWER: "the slowest source, and the kernel",
    Point.TAKEN: "its answer parsed and decoded",
    Point.AWAKE: "the loop wakes the consultation",
    Point.CHECKED: "order checks",
    Point.ASSEMBLED: "assembly",
    Point.RANKED: "ranking",
    Point.SIGNED: "token",
    Point.ENCODING: "metrics and records",
    Point.ENCODED: "encoding",
    Point.WRITING: "headers",
}
LAST_STAGE = "the answer: the write, the kernel"
WAITING = Point.ANSWER


class TimedConsultation(NamedTuple):
    """Times in ns. `points`: the last mark of each. `sources`: asked, answer read, decoded."""

    sent: int
    received: int
    points: Mapping[Point, int]
    sources: Mapping[str, tuple[int, int, int]]

    @property
    def stages_us(self) -> dict[str, float]:
        ends = [(name, self.points[point]) for point, name in STAGES.items()] + [(LAST_STAGE, self.received)]
        starts = [self.sent, *(end for _, end in ends)]
        return {name: (end - start) / 1000 for start, (name, end) in zip(starts, ends, strict=False)}


def measure(lab: Lab) -> Finding:
    users, waiting = lab.count(USERS), RunQueueWait()
    requests = consultations(users)
    rounds = []
    with pinned(LOAD_CORE), start_upstream(lab, users=users, behaviour=BEHAVIOUR) as upstream:
        for turn in lab.turns("timeline"):
            rounds.append(measure_round(lab, upstream, requests, turn, waiting))
    return finding(rounds, waiting)


def measure_round(
    lab: Lab, upstream: LeanUpstream, requests: Sequence[bytes], turn: int, waiting: RunQueueWait
) -> list[TimedConsultation]:
    file, random = lab.directory / f"marks-{turn}.json", Random(turn)
    with (
        start_service(lab, upstream.urls, module="benchmarks.lab.marked_service", env={FILE: str(file)}) as served,
        socket.create_connection(("127.0.0.1", served.port)) as connection,
        waiting.of(served.pid),
    ):
        sent = []
        for n in range(lab.count(WARMING) + lab.count(CONSULTATIONS)):
            time.sleep(random.uniform(*PAUSE_MS) / 1000)
            sent.append(consult(connection, requests[n % len(requests)]))
    return list(timed(sent[lab.count(WARMING) :], read_marks(file), upstream))


def consult(connection: socket.socket, request: bytes) -> tuple[int, int]:
    """When it was sent and answered. Raises RuntimeError for an incomplete answer."""
    answer = ResponseReader()
    start_ns = time.perf_counter_ns()
    connection.sendall(request)
    while not answer.feed(connection.recv(1 << 18)):
        pass
    end_ns = time.perf_counter_ns()
    if problem := check_consultation(answer.body()):
        raise RuntimeError(f"an answer {problem}")
    return start_ns, end_ns


def read_marks(file: Path) -> Marks:
    return msgspec.json.decode(file.read_bytes(), type=list[Mark])


def timed(sent: Sequence[tuple[int, int]], marks: Marks, upstream: LeanUpstream) -> Iterator[TimedConsultation]:
    """Assign the marks to consultations by their time: there is one at a time."""
    source_of = {int(url.rpartition(":")[2]): name for name, url in upstream.urls.items()}
    at = 0
    for start_ns, end_ns in sent:
        while marks[at][2] < start_ns:
            at += 1
        points: dict[Point, int] = {}
        sources: dict[str, list[int]] = {name: [] for name in SOURCE_NAMES}
        while at < len(marks) and marks[at][2] < end_ns:
            point, port, ns = marks[at]
            points[point] = ns
            if port:
                sources[source_of[port]].append(ns)
            at += 1
        if all(len(times) == 3 for times in sources.values()):  # no hedge
            yield TimedConsultation(start_ns, end_ns, points, {name: (a, b, c) for name, (a, b, c) in sources.items()})


def finding(rounds: Sequence[Sequence[TimedConsultation]], waiting: RunQueueWait) -> Finding:
    stages = {
        name: Figure.by_round(statistics.median(each.stages_us[name] for each in one) for one in rounds)
        for name in (*STAGES.values(), LAST_STAGE)
    }
    total = Figure.by_round(statistics.median((each.received - each.sent) / 1000 for each in one) for one in rounds)
    waited = stages[STAGES[WAITING]]
    own = Figure.by_round(all_us - source_us for all_us, source_us in zip(total.rounds, waited.rounds, strict=True))
    everything = [each for one in rounds for each in one]
    return Finding(
        "A timeline of one consultation",
        key={"timeline.total_us": total, "timeline.beside_slowest_us": own},
        tables=[
            Table(
                "Stages, one after the other",
                [
                    *(Row(name, {"µs": figure}) for name, figure in stages.items()),
                    Row("from socket to socket", {"µs": total}),
                    Row("of it beside the wait for the slowest source", {"µs": own}),
                ],
                "The sum of medians is not the median of the sum.",
            )
        ],
        drawings=[whole(everything), *details(stages)],
        notes=[
            waiting.note("The service"),
            f"{len(everything):,} consultations, in each of which every source answered its first call.",
        ],
    )


def whole(everything: Sequence[TimedConsultation]) -> Timeline:
    """All of it, with a row for each source in the order of the requests."""

    def median_ms(times: Iterator[int]) -> float:
        return statistics.median(times) / 1e6

    def at(point: Point) -> float:
        return median_ms(each.points[point] - each.sent for each in everything)

    end_ms = median_ms(each.received - each.sent for each in everything)
    own = [(at(Point.READ), at(Point.ASKED)), (at(Point.ANSWER), at(Point.WRITING))]
    spans = [Span("client", 0, end_ms), *(Span("cashier", start, end, ours=True) for start, end in own)]
    for name in SOURCE_NAMES:
        asked, answered, taken = (
            median_ms(each.sources[name][index] - each.sent for each in everything) for index in range(3)
        )
        spans += [Span(name, asked, answered), Span(name, answered, taken, ours=True)]
    return Timeline(f"One consultation; {SLOWEST} takes {SLOWEST_MS:g} ms, the other sources 2", "ms", spans)


def details(stages: Mapping[str, Figure]) -> Iterator[Timeline]:
    """What comes before the wait for the slowest source, and what comes after it."""
    names = list(stages)
    wait = names.index(STAGES[WAITING])
    for title, part in (
        ("From the client's request to the last request to a source", names[:wait]),
        ("From the last answer of a source to the client", names[wait + 1 :]),
    ):
        spans, start_us = [], 0.0
        for name in part:
            end_us = start_us + stages[name].median
            spans.append(Span(name, start_us, end_us, ours=name not in (STAGES[Point.READ], LAST_STAGE)))
            start_us = end_us
        yield Timeline(title, "µs", spans)
