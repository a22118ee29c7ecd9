"""A name service that the test scripts, in the place of the system's."""

from __future__ import annotations

import asyncio
from collections import Counter

from cashier.wire.resolver import Resolution, ResolvedAddress, Resolver


def resolution(*ips: str, ttl_s: float | None = None) -> Resolution:
    return Resolution(tuple(ResolvedAddress(ip) for ip in ips), ttl_s)


class Names:
    """`answers`: what a lookup of each name gives. A name without an answer hangs until `release`.

    `delay_s`: how long an answer takes. `started` counts lookups by name, `at_once` the most of one
    name that were in progress together.
    """

    def __init__(self, **answers: Resolution | OSError) -> None:
        self.answers: dict[str, Resolution | OSError] = dict(answers)
        self.delay_s = 0.0
        self.started: Counter[str] = Counter()
        self.at_once = 0
        self._running: Counter[str] = Counter()
        self._released = asyncio.Event()
        self.resolver = Resolver(self.look_up)

    async def look_up(self, host: str) -> Resolution:
        self.started[host] += 1
        self._running[host] += 1
        self.at_once = max(self.at_once, self._running[host])
        try:
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            while host not in self.answers:
                self._released.clear()
                await self._released.wait()
            answer = self.answers[host]
            if isinstance(answer, OSError):
                raise answer
            return answer
        finally:
            self._running[host] -= 1

    def hang(self, host: str) -> None:
        self.answers.pop(host, None)

    def release(self, host: str, answer: Resolution | OSError) -> None:
        self.answers[host] = answer
        self._released.set()
