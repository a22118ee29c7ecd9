"""A simulated event loop: turns as long as their work, random arrivals, late ticks.

An admitted caller costs `cost_ms` in four parts, each in a later turn, with an upstream's `wait_ms`
after the first. A refusal costs little. The same seed gives the same figures on any machine.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from cashier.fanout.load_shedding import DegradationLadder

PARTS = 4
REFUSAL_MS = 0.02


class SimulatedCaller(NamedTuple):
    """One caller: arrival, priority, whether it was admitted, and the wait for its answer."""

    at_ms: float
    priority: int
    admitted: bool
    waited_ms: float


class SimulatedEventLoop:
    """`per_s(now_ms)`: the arrival rate, at most `most_per_s`.

    `stalls`: start and length in ms of the times in which another program has the core.
    `run_delay_known`: whether the system reports them. `asleep`: the share of the work that blocks
    the loop without CPU.
    """

    def __init__(
        self,
        ladder: DegradationLadder,
        per_s: Callable[[float], float],
        *,
        most_per_s: float = 5_000,
        cost_ms: float = 0.8,
        wait_ms: float = 5.0,
        priorities: Sequence[int] = (1,),
        stalls: Sequence[tuple[float, float]] = (),
        run_delay_known: bool = True,
        asleep: float = 0.0,
        seed: int = 1,
    ) -> None:
        self.ladder = ladder
        self.called: list[SimulatedCaller] = []
        self.longest_turn_ms = 0.0
        self._per_s = per_s
        self._most_per_s = most_per_s
        self.cost_ms = cost_ms
        self._wait_ms = wait_ms
        self._priorities = priorities
        self._stalls = list(stalls)
        self._random = random.Random(seed)
        self._now_ms = 0.0
        self._run_delay_known = run_delay_known
        self._asleep = asleep
        # Since the last tick
        self._busy_ms = self._stalled_ms = 0.0
        # Ready at, number, part, arrival, priority
        self._coming: list[tuple[float, int, int, float, int]] = []
        self._number = 0
        self._arrival_ms = 0.0
        self._next_arrival()

    def run(self, until_ms: float) -> None:
        due_ms, ticked_ms = self._now_ms + self.ladder.tick_ms, self._now_ms
        while self._now_ms < until_ms:
            began_ms = self._now_ms
            if began_ms >= due_ms:
                off_cpu_ms = began_ms - ticked_ms - self._busy_ms
                run_delay_ms = self._stalled_ms if self._run_delay_known else None
                self.ladder.tick(began_ms - due_ms, round(began_ms * 1e6), off_cpu_ms, run_delay_ms)
                ticked_ms, self._busy_ms, self._stalled_ms = began_ms, 0.0, 0.0
                due_ms = began_ms + self.ladder.tick_ms
            while self._coming and self._coming[0][0] <= began_ms:
                self._do(*heapq.heappop(self._coming))
            worked_ms = self._now_ms - began_ms
            self._busy_ms += worked_ms * (1 - self._asleep)
            while self._stalls and self._stalls[0][0] <= self._now_ms:
                stall_ms = self._stalls.pop(0)[1]
                self._now_ms += stall_ms
                self._stalled_ms += stall_ms
            if self._now_ms == began_ms:
                self._now_ms = min(due_ms, self._coming[0][0])
            self.longest_turn_ms = max(self.longest_turn_ms, self._now_ms - began_ms)

    def between(self, from_ms: float, to_ms: float) -> list[SimulatedCaller]:
        return [each for each in self.called if from_ms <= each.at_ms < to_ms]

    def _do(self, ready_ms: float, number: int, part: int, at_ms: float, priority: int) -> None:
        if part == 0:
            self._next_arrival()
            if self.ladder.refusing and not self.ladder.admits(priority, round(self._now_ms * 1e6)):
                self._now_ms += REFUSAL_MS
                self.called.append(SimulatedCaller(at_ms, priority, False, self._now_ms - at_ms))
                return
        self._now_ms += self.cost_ms / PARTS
        if part == PARTS - 1:
            self.ladder.answered += 1
            self.called.append(SimulatedCaller(at_ms, priority, True, self._now_ms - at_ms))
        else:
            heapq.heappush(
                self._coming, (self._now_ms + (self._wait_ms if part == 0 else 0.0), number, part + 1, at_ms, priority)
            )

    def _next_arrival(self) -> None:
        # Thinning: arrivals at the highest rate, each kept with the probability of its time.
        while True:
            at_ms = self._arrival_ms = self._arrival_ms + self._random.expovariate(self._most_per_s) * 1000
            if self._random.random() <= self._per_s(at_ms) / self._most_per_s:
                break
        self._number += 1
        heapq.heappush(self._coming, (at_ms, self._number, 0, at_ms, self._random.choice(self._priorities)))
