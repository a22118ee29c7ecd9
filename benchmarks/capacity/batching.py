"""Keys per call by cashier's own batch rule, simulated for one worker of a given load.

A turn of the loop takes all consultations that arrived during the turn before, and lasts as long as
their work. Keys of one turn leave together even if the source has room, so a busy worker shares
more calls than the rule alone.
"""

from __future__ import annotations

from collections import deque
from functools import lru_cache
from random import Random

from cashier.fanout.batch import BatchPolicy, Departure, departure

USUAL = BatchPolicy()
_CONSULTATIONS = 4_000


@lru_cache(maxsize=512)
def keys_per_call(
    per_s: float, asking: float, cpu_us: float, took_ms: float, policy: BatchPolicy = USUAL, seed: int = 1
) -> float:
    """`per_s`: consultations of this worker, of which a share `asking` calls the source live.

    `cpu_us`: CPU of a consultation.
    """
    random = Random(seed)
    source = SimulatedBatch(policy, took_ms / 1000)
    waiting: deque[float] = deque()
    next_s = now_s = 0.0
    for _ in range(_CONSULTATIONS):
        next_s += random.expovariate(per_s)
        while waiting and now_s < next_s:
            now_s += len(waiting) * cpu_us / 1e6
            keys = sum(random.random() < asking for _ in waiting)
            waiting.clear()
            source.until(now_s)
            source.gather(keys, now_s)
        now_s = max(now_s, next_s)
        waiting.append(next_s)
    return source.keys / source.calls if source.calls else 1.0


class SimulatedBatch:
    """Keys and calls of one source. Times are arguments and never decrease."""

    def __init__(self, policy: BatchPolicy, took_s: float) -> None:
        self.keys = 0
        self.calls = 0
        self._policy = policy
        self._took_s = took_s
        self._gathered = 0
        self._due_s = 0.0
        self._back_s: deque[float] = deque()

    def gather(self, keys: int, now_s: float) -> None:
        """Add the keys of one turn, at its end."""
        for _ in range(keys):
            if not self._gathered:
                self._due_s = now_s + self._policy.wait_ms / 1000
            self._gathered += 1
            if departure(self._gathered, len(self._back_s), self._policy) is Departure.NOW:
                self._send(now_s)
        if self._gathered and departure(self._gathered, len(self._back_s), self._policy) is not Departure.WITH_ROOM:
            self._send(now_s)

    def until(self, now_s: float) -> None:
        """Complete calls and send due batches."""
        while self._back_s and self._back_s[0] <= now_s:
            back_s = self._back_s.popleft()
            if self._gathered and self._due_s <= back_s:
                self._send(self._due_s)
            if self._gathered and departure(self._gathered, len(self._back_s), self._policy) is not Departure.WITH_ROOM:
                self._send(back_s)
        if self._gathered and self._due_s <= now_s:
            self._send(self._due_s)

    def _send(self, now_s: float) -> None:
        self.calls += 1
        self.keys += self._gathered
        self._gathered = 0
        self._back_s.append(now_s + self._took_s)
