"""Versioned facts for a simulation, and upstreams that answer them late, wrongly or not at all."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from enum import Enum, auto
from random import Random
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from cashier.fanout.ask import Known
from cashier.fanout.batch import OnBatchOutcomes, Outcome
from cashier.fanout.l2.interface import CachedAnswer, OnRead
from cashier.fanout.upstream_protocol import OnAnswer
from cashier.source_errors import Garbled, Overloaded, SourceError, Unreachable, WrongIdentity

MS_NS = 1_000_000
_OTHER_USER = "another user"


class Fact(Struct, frozen=True):
    """An answer with its key, its version of the truth, and the start of its call."""

    source: str
    key: str
    version: int
    called_ns: int
    not_found: bool


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Fact).decode


class Truth:
    """A version per key of each source.

    A change upstream raises it; an invalidation follows later.
    """

    def __init__(self) -> None:
        self.versions: dict[tuple[str, str], int] = {}
        self.invalidations: dict[tuple[str, str], list[tuple[int, int]]] = {}  # time and version

    def version(self, source: str, key: str) -> int:
        return self.versions.setdefault((source, key), 0)

    def change(self, source: str, key: str) -> None:
        self.versions[source, key] = self.version(source, key) + 1

    def invalidated(self, source: str, keys: Callable[[str], bool], now_ns: int) -> None:
        """Record an invalidation of these keys."""
        for place, version in self.versions.items():
            if place[0] == source and keys(place[1]):
                self.invalidations.setdefault(place, []).append((now_ns, version))

    def oldest(self, source: str, key: str, asked_ns: int) -> int:
        """Return the oldest version that an ask of that time may receive."""
        return max(
            (version for at_ns, version in self.invalidations.get((source, key), ()) if at_ns < asked_ns), default=0
        )

    def invalidated_between(self, source: str, key: str, from_ns: int, to_ns: int) -> bool:
        return any(from_ns <= at_ns <= to_ns for at_ns, _ in self.invalidations.get((source, key), ()))

    def epoch(self, source: str, key: str) -> int:
        return len(self.invalidations.get((source, key), ()))


class FaultMode(Enum):
    FINE = auto()
    FLAKY = auto()
    SLOW = auto()
    HANGING = auto()
    FAILING = auto()
    OVERLOADED = auto()
    GARBLED = auto()


class FaultSpell(NamedTuple):
    """A fault from `from_ns` to `to_ns` at some addresses, one bit each."""

    from_ns: int
    to_ns: int
    places: int
    mode: FaultMode


class FaultSchedule:
    """Decides the latency of each call (None: never) and its error.

    `usual_ms`: the median without faults.
    """

    def __init__(self, usual_ms: float, slow_ms: float, spells: Sequence[FaultSpell], random: Random) -> None:
        self.usual_ms = usual_ms
        self._slow_ms = slow_ms
        self.spells = list(spells)
        self._random = random
        self.healed = False

    def draw(self, place: int, now_ns: int) -> tuple[float | None, SourceError | None]:
        random = self._random
        after_ms = self.usual_ms * math.exp(random.gauss(0, 0.3))
        if self.healed:
            return min(after_ms, 4.0), None
        mode = FaultMode.FINE
        for spell in self.spells:
            if spell.from_ns <= now_ns < spell.to_ns and spell.places >> place & 1:
                mode = spell.mode
        if mode is FaultMode.FINE:
            return self._fine(after_ms)
        return self._bad(mode, after_ms)

    def _fine(self, after_ms: float) -> tuple[float | None, SourceError | None]:
        chance = self._random.random()
        if chance < 0.02:
            return after_ms * 12, None
        if chance < 0.025:
            return None, None
        return after_ms, None

    def _bad(self, mode: FaultMode, after_ms: float) -> tuple[float | None, SourceError | None]:
        random = self._random
        if mode is FaultMode.FLAKY:
            mode = random.choice(
                (
                    FaultMode.SLOW,
                    FaultMode.HANGING,
                    FaultMode.FAILING,
                    FaultMode.OVERLOADED,
                    FaultMode.GARBLED,
                    FaultMode.FINE,
                    FaultMode.FINE,
                    FaultMode.FINE,
                )
            )
        match mode:
            case FaultMode.SLOW:
                return self._slow_ms * random.uniform(0.5, 1.5), None
            case FaultMode.HANGING:
                return None, None
            case FaultMode.FAILING:
                return random.choice((0.0, 0.2)), Unreachable("refused")
            case FaultMode.OVERLOADED:
                return 1.0, Overloaded("503", 1.0)
            case FaultMode.GARBLED:
                return after_ms, random.choice((Garbled("not of the agreed shape"), WrongIdentity(_OTHER_USER)))
            case _:
                return after_ms, None


class SimulatedCall:
    """A call in flight. It may move to another address, like a wire's after a refusal."""

    def __init__(self, place: int, after_ms: float | None, answer: Callable[[], None]) -> None:
        self.address_index = place
        self._answer: Callable[[], None] | None = answer
        loop = asyncio.get_running_loop()
        self._timer = None if after_ms is None else loop.call_at(loop.time() + after_ms / 1000, self._end)

    def _end(self) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            answer()

    def abandon(self) -> None:
        self._answer = None
        if self._timer is not None:
            self._timer.cancel()


class SimulatedUpstream:
    """An `Upstream` and `BatchUpstream`.

    Answers hold the truth as of the start of the call, the oldest possible.
    """

    def __init__(
        self,
        name: str,
        places: int,
        key_of: Callable[[Known], str],
        truth: Truth,
        faults: FaultSchedule,
        random: Random,
        clock_ns: Callable[[], int],
    ) -> None:
        self.addresses = tuple(f"{name}{index}" for index in range(places))
        self._name = name
        self._key_of = key_of
        self._truth = truth
        self._faults = faults
        self._random = random
        self._clock_ns = clock_ns
        self._turn = 0

    def call(
        self, known: Known, call_headers: Any, budget_ms: int, on_answer: OnAnswer, avoid: int = 0
    ) -> SimulatedCall:
        outcome = self._outcome(known)

        def answer(error: SourceError | None) -> None:
            if error is None:
                on_answer(*outcome)
            else:
                on_answer(self._error(error, known))

        return self._send(answer, avoid)

    def call_many(
        self, many: Sequence[Known], call_headers: Any, budget_ms: int, on_outcomes: OnBatchOutcomes, avoid: int = 0
    ) -> SimulatedCall:
        outcomes = [self._outcome(known) for known in many]

        def answer(error: SourceError | None) -> None:
            if isinstance(error, Garbled):  # one key only
                outcomes[0] = (self._error(error, many[0]), False, None)
                error = None
            on_outcomes(outcomes if error is None else error)

        return self._send(answer, avoid)

    def parse_stored(self, not_found: bool, body: bytes, known: Known) -> Any:
        try:
            fact = _decode(body)
        except msgspec.DecodeError:
            return Garbled("not of the agreed shape")
        return (
            fact
            if fact.source == self._name and fact.key == self._key_of(known)
            else WrongIdentity("answered about another")
        )

    def _outcome(self, known: Known) -> Outcome:
        """One key in seven is "not found", until its next change."""
        key = self._key_of(known)
        version = self._truth.version(self._name, key)
        not_found = (sum(key.encode()) + version) % 7 == 0
        fact = Fact(self._name, key, version, self._clock_ns(), not_found)
        return fact, not_found, _encode(fact)

    def _error(self, error: SourceError, known: Known) -> Any:
        """An answer for another key is parsed like any other, which detects it."""
        if not isinstance(error, WrongIdentity):
            return error
        return self.parse_stored(False, _encode(Fact(self._name, error.detail, 0, 0, False)), known)

    def _send(self, answer: Callable[[SourceError | None], None], avoid: int) -> SimulatedCall:
        allowed = [index for index in range(len(self.addresses)) if not avoid >> index & 1] or list(
            range(len(self.addresses))
        )
        self._turn += 1
        place = allowed[self._turn % len(allowed)]
        after_ms, error = self._faults.draw(place, self._clock_ns())
        call = SimulatedCall(place, after_ms, lambda: answer(error))
        if self._random.random() < 0.03 and len(self.addresses) > 1:
            asyncio.get_running_loop().call_later(0.001, self._move, call)
        return call

    def _move(self, call: SimulatedCall) -> None:
        call.address_index = (call.address_index + 1) % len(self.addresses)


class SimulatedSecondLevel:
    """A second level that is slow, forgets, and sometimes returns the answer of another key."""

    reachable = True
    coherent = True

    def __init__(self, random: Random, clock_ns: Callable[[], int]) -> None:
        self._random = random
        self._clock_ns = clock_ns
        # With its birth and expiry
        self._stored: dict[tuple[str, str], tuple[CachedAnswer, int, int]] = {}
        self._dropped: list[tuple[str, str | None, str | None, int]] = []
        self._reads: list[SimulatedCall] = []
        self.healed = False
        self.hits = 0
        self.wrong_keys = 0

    def get(self, source: str, key: str, on_read: OnRead) -> SimulatedCall:
        after_ms = 0.5 if self.healed else 40 if self._random.random() < 0.01 else self._random.uniform(0.1, 8)
        read = SimulatedCall(0, after_ms, lambda: on_read(self._stored_answer(source, key), b""))
        self._reads.append(read)
        return read

    def close(self) -> None:
        """Abandon all reads: no callback runs afterwards."""
        for read in self._reads:
            read.abandon()

    def _stored_answer(self, source: str, key: str) -> CachedAnswer | None:
        stored = self._stored.get((source, key))
        if stored is not None and self._random.random() < 0.05:
            self.wrong_keys += 1
            stored = self._random.choice([each for (other, _), each in self._stored.items() if other == source])
        if stored is None or self._clock_ns() >= stored[2] or self._invalidated(source, key, stored[1]):
            return None
        self.hits += 1
        return CachedAnswer(stored[0].not_found, stored[0].body, (self._clock_ns() - stored[1]) // MS_NS)

    def put(self, source: str, key: str, stored: CachedAnswer, ttl_s: float, version: bytes) -> None:
        born_ns = self._clock_ns() - stored.age_ms * MS_NS
        late_s = self._random.choice((0, 0.001, 0.005))
        asyncio.get_running_loop().call_later(
            late_s, self._write, source, key, (stored, born_ns, born_ns + round(ttl_s * 1e9))
        )

    def _write(self, source: str, key: str, stored: tuple[CachedAnswer, int, int]) -> None:
        self._stored[source, key] = stored

    def drop(self, source: str, *, key: str | None = None, prefix: str | None = None) -> None:
        self._dropped.append((source, key, prefix, self._clock_ns()))

    async def adrop(self, source: str, *, key: str | None = None, prefix: str | None = None) -> bool:
        self.drop(source, key=key, prefix=prefix)
        return True

    def _invalidated(self, source: str, key: str, born_ns: int) -> bool:
        """Ages have whole ms: an answer born in the ms of the invalidation may predate it."""
        return any(
            of == source
            and (key == one or (prefix is not None and key.startswith(prefix)))
            and born_ns <= at_ns + MS_NS
            for of, one, prefix, at_ns in self._dropped
        )
