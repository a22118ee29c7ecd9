"""What upstreams know in a simulation, and upstreams that tell it, late, wrongly or not at all, as the weather is."""

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
from cashier.fanout.l2.interface import CachedAnswer
from cashier.fanout.upstream import OnAnswer
from cashier.source_errors import Garbled, Overloaded, SourceError, Unreachable, WrongIdentity

MS_NS = 1_000_000
_MISTAKEN = "somebody else"


class Fact(Struct, frozen=True):
    """An answer that says what it is about, as of which version of the truth, and when the call was made that brought it."""

    source: str
    key: str
    version: int
    called_ns: int
    not_found: bool


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Fact).decode


class Truth:
    """A version for each question of each source. It rises when something changes upstream, of which we hear only later."""

    def __init__(self) -> None:
        self.versions: dict[tuple[str, str], int] = {}
        self.heard_of: dict[tuple[str, str], list[tuple[int, int]]] = {}  # when, and as of which version

    def version(self, source: str, key: str) -> int:
        return self.versions.setdefault((source, key), 0)

    def change(self, source: str, key: str) -> None:
        self.versions[source, key] = self.version(source, key) + 1

    def invalidated(self, source: str, keys: Callable[[str], bool], now_ns: int) -> None:
        """We have heard that whatever we have of these keys may be old."""
        for place, version in self.versions.items():
            if place[0] == source and keys(place[1]):
                self.heard_of.setdefault(place, []).append((now_ns, version))

    def oldest(self, source: str, key: str, asked_ns: int) -> int:
        """The oldest version that whoever asked then may be told."""
        return max((version for at_ns, version in self.heard_of.get((source, key), ()) if at_ns < asked_ns), default=0)

    def heard_between(self, source: str, key: str, from_ns: int, to_ns: int) -> bool:
        return any(from_ns <= at_ns <= to_ns for at_ns, _ in self.heard_of.get((source, key), ()))

    def epoch(self, source: str, key: str) -> int:
        return len(self.heard_of.get((source, key), ()))


class FaultMode(Enum):
    FINE = auto()
    FLAKY = auto()
    SLOW = auto()
    HANGING = auto()
    FAILING = auto()
    OVERLOADED = auto()
    GARBLED = auto()


class FaultSpell(NamedTuple):
    """From when to when, at which places, a bit each."""

    from_ns: int
    to_ns: int
    places: int
    mode: FaultMode


class FaultSchedule:
    """What becomes of each call: after how many ms it is answered, None for never, and with which error. `usual_ms`: on a fine day."""

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
                return after_ms, random.choice((Garbled("not of the agreed shape"), WrongIdentity(_MISTAKEN)))
            case _:
                return after_ms, None


class SimulatedCall:
    """A call under way. It may move to another place, as a wire's does that is refused at the first."""

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
    """An `Upstream`, and a `Many` for the same questions. It tells the truth as of the beginning of a call: the oldest that it could."""

    def __init__(
        self,
        name: str,
        places: int,
        key_of: Callable[[Known], str],
        truth: Truth,
        weather: FaultSchedule,
        random: Random,
        clock_ns: Callable[[], int],
    ) -> None:
        self.addresses = tuple(f"{name}{index}" for index in range(places))
        self._name = name
        self._key_of = key_of
        self._truth = truth
        self._weather = weather
        self._random = random
        self._clock_ns = clock_ns
        self._turn = 0

    def call(self, known: Known, call_headers: Any, budget_ms: int, heard: OnAnswer, avoid: int = 0) -> SimulatedCall:
        outcome = self._outcome(known)

        def answer(error: SourceError | None) -> None:
            if error is None:
                heard(*outcome)
            else:
                heard(self._error(error, known))

        return self._send(answer, avoid)

    def call_many(
        self, many: Sequence[Known], call_headers: Any, budget_ms: int, heard: OnBatchOutcomes, avoid: int = 0
    ) -> SimulatedCall:
        outcomes = [self._outcome(known) for known in many]

        def answer(error: SourceError | None) -> None:
            if isinstance(error, Garbled):  # one part only
                outcomes[0] = (self._error(error, many[0]), False, None)
                error = None
            heard(outcomes if error is None else error)

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
        """One question in seven is answered by "there is none", and may be answered otherwise after it has changed."""
        key = self._key_of(known)
        version = self._truth.version(self._name, key)
        not_found = (sum(key.encode()) + version) % 7 == 0
        fact = Fact(self._name, key, version, self._clock_ns(), not_found)
        return fact, not_found, _encode(fact)

    def _error(self, error: SourceError, known: Known) -> Any:
        """An answer about somebody else is read as any other, and found out by that."""
        if not isinstance(error, WrongIdentity):
            return error
        return self.parse_stored(False, _encode(Fact(self._name, error.detail, 0, 0, False)), known)

    def _send(self, answer: Callable[[SourceError | None], None], avoid: int) -> SimulatedCall:
        allowed = [index for index in range(len(self.addresses)) if not avoid >> index & 1] or list(
            range(len(self.addresses))
        )
        self._turn += 1
        place = allowed[self._turn % len(allowed)]
        after_ms, error = self._weather.draw(place, self._clock_ns())
        leg = SimulatedCall(place, after_ms, lambda: answer(error))
        if self._random.random() < 0.03 and len(self.addresses) > 1:
            asyncio.get_running_loop().call_later(0.001, self._move, leg)
        return leg

    def _move(self, leg: SimulatedCall) -> None:
        leg.address_index = (leg.address_index + 1) % len(self.addresses)


class SimulatedSecondLevel:
    """A second level. It is slow, forgetful, and now and then hands out what belongs to another key."""

    reachable = True

    def __init__(self, random: Random, clock_ns: Callable[[], int]) -> None:
        self._random = random
        self._clock_ns = clock_ns
        self._kept: dict[
            tuple[str, str], tuple[CachedAnswer, int, int]
        ] = {}  # with when it was born, and until when it is kept
        self._dropped: list[tuple[str, str | None, str | None, int]] = []
        self._looks: list[SimulatedCall] = []
        self.healed = False
        self.hits = 0
        self.lies = 0

    def get(self, source: str, key: str, found: Callable[[CachedAnswer | None], None]) -> SimulatedCall:
        after_ms = 0.5 if self.healed else 40 if self._random.random() < 0.01 else self._random.uniform(0.1, 8)
        look = SimulatedCall(0, after_ms, lambda: found(self._found(source, key)))
        self._looks.append(look)
        return look

    def close(self) -> None:
        """Nothing is told to anybody afterwards."""
        for look in self._looks:
            look.abandon()

    def _found(self, source: str, key: str) -> CachedAnswer | None:
        kept = self._kept.get((source, key))
        if kept is not None and self._random.random() < 0.05:
            self.lies += 1
            kept = self._random.choice([each for (other, _), each in self._kept.items() if other == source])
        if kept is None or self._clock_ns() >= kept[2] or self._buried(source, key, kept[1]):
            return None
        self.hits += 1
        return CachedAnswer(kept[0].not_found, kept[0].body, (self._clock_ns() - kept[1]) // MS_NS)

    def put(self, source: str, key: str, kept: CachedAnswer, ttl_s: float) -> None:
        born_ns = self._clock_ns() - kept.age_ms * MS_NS
        late_s = self._random.choice((0, 0.001, 0.005))
        asyncio.get_running_loop().call_later(
            late_s, self._write, source, key, (kept, born_ns, born_ns + round(ttl_s * 1e9))
        )

    def _write(self, source: str, key: str, kept: tuple[CachedAnswer, int, int]) -> None:
        self._kept[source, key] = kept

    def drop(self, source: str, *, key: str | None = None, prefix: str | None = None) -> None:
        self._dropped.append((source, key, prefix, self._clock_ns()))

    def _buried(self, source: str, key: str, born_ns: int) -> bool:
        """Ages are told in whole ms, so what was born in the ms of the invalidation may be from before it."""
        return any(
            of == source
            and (key == one or (prefix is not None and key.startswith(prefix)))
            and born_ns <= at_ns + MS_NS
            for of, one, prefix, at_ns in self._dropped
        )
