"""Long rendering in turns: consultations go on between the pieces of a page.

A checkout takes a millisecond of CPU. In one piece it would be added to the latency of each
consultation that is due meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from time import perf_counter_ns

_TURN_NS = 200_000


async def in_turns(pieces: Iterable[str]) -> str:
    """Join the pieces. After each turn, and before the first, the loop does what else is due."""
    done: list[str] = []
    turn_ends_ns = 0
    for piece in pieces:
        if perf_counter_ns() >= turn_ends_ns:
            await asyncio.sleep(0)
            turn_ends_ns = perf_counter_ns() + _TURN_NS
        done.append(piece)
    return "".join(done)
