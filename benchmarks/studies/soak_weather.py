"""Disturbances of a soak and their schedule: sources that stutter, answers that are invalidated."""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import Mapping
from random import Random

import msgspec

from benchmarks.lab.upstream import LeanUpstream
from benchmarks.lab.upstream_control import SOURCE_NAMES, Behaviour
from benchmarks.lean_upstream import FIRST_USER

DELAYS_MS = {**dict.fromkeys(SOURCE_NAMES, 2.0), "balance": 5.0}
# Share of calls, in basis points, that take twelve times as long.
STUTTER_BPS = 1_000
# In samples.
STUTTER_EVERY, STUTTER_FOR = 6, 1.5
CARDS_EVERY, ALL_EVERY = 2, 12


class Weather:
    """Makes each source stutter in turn. Control calls run in a thread, because they block."""

    def __init__(self, upstream: LeanUpstream, port: int, users: int) -> None:
        self.invalidations = 0
        self._upstream = upstream
        self._port = port
        self._users = users
        self._random = Random(1)

    async def clear(self) -> None:
        await asyncio.to_thread(self._upstream.behave, Behaviour(delay_ms=DELAYS_MS))

    async def everywhere(self) -> None:
        """Make all sources stutter at once."""
        every = dict.fromkeys(SOURCE_NAMES, STUTTER_BPS)
        await asyncio.to_thread(self._upstream.behave, Behaviour(delay_ms=DELAYS_MS, straggling_bps=every))

    async def pass_by(self, sample: int, sample_s: float) -> None:
        """Run the disturbances of this sample; return when they are over."""
        if sample % CARDS_EVERY == 1:
            await self._invalidate({"source": "card", "key": f"u_{FIRST_USER + self._random.randrange(self._users)}"})
        if sample % ALL_EVERY == ALL_EVERY - 1:
            await self._invalidate({"source": SOURCE_NAMES[sample // ALL_EVERY % len(SOURCE_NAMES)], "prefix": ""})
        if name := stuttering(sample):
            await asyncio.to_thread(
                self._upstream.behave, Behaviour(delay_ms=DELAYS_MS, straggling_bps={name: STUTTER_BPS})
            )
            await asyncio.sleep(STUTTER_FOR * sample_s)
            await self.clear()

    async def _invalidate(self, what: Mapping[str, str]) -> None:
        await asyncio.to_thread(self._post, msgspec.json.encode(what))
        self.invalidations += 1

    def _post(self, body: bytes) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            connection.request("POST", "/v1/invalidate", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            response_body = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            raise ValueError(f"the service answered {answer.status}: {response_body.decode()}")


def stuttering(sample: int) -> str:
    """The source that starts to stutter with this sample, or an empty string."""
    return (
        SOURCE_NAMES[sample // STUTTER_EVERY % len(SOURCE_NAMES)] if sample % STUTTER_EVERY == STUTTER_EVERY - 1 else ""
    )
