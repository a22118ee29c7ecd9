"""The trace of a caller's request: its `traceparent`, with the `tracestate` that came with it.

https://www.w3.org/TR/trace-context/, section 3.3. The state is other tracing systems' own: it is
passed on as it came, and read by nothing here.
"""

from __future__ import annotations

import re
from typing import Self

# What the standard demands to pass on at least. A longer one is dropped as a whole: its entries
# have no ranks by which some of them could be.
MOST_STATE_CHARACTERS = 512
_MOST_ENTRIES = 32
_ENTRY = re.compile(r"([a-z0-9][a-z0-9_*/@-]{0,255})=[ -+\--<>-~]{0,255}[!-+\--<>-~]")


class CallerTrace(str):
    """A `traceparent` that carries its `tracestate`, so that both take one way to the upstreams.

    Neither needs to be valid: `tracestate` is then None, and a `traceparent` is judged by its user.
    """

    __slots__ = ("tracestate",)

    tracestate: str | None

    def __new__(cls, traceparent: str, tracestate: str) -> Self:
        trace = super().__new__(cls, traceparent)
        trace.tracestate = _valid_state(tracestate)
        return trace


def tracestate_of(traceparent: str) -> str | None:
    """The valid `tracestate` that came with it, if any."""
    return traceparent.tracestate if isinstance(traceparent, CallerTrace) else None


def _valid_state(tracestate: str) -> str | None:
    if len(tracestate) > MOST_STATE_CHARACTERS:
        return None
    entries = [entry for part in tracestate.split(",") if (entry := part.strip(" \t"))]
    found = [_ENTRY.fullmatch(entry) for entry in entries]
    keys = {match[1] for match in found if match is not None}
    if not entries or len(keys) < len(entries) or len(entries) > _MOST_ENTRIES:
        return None
    return ",".join(entries)
