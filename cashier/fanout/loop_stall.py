"""Detection of event loop stalls by late timers.

A late timer means that the event loop stalled; it says nothing about the upstreams. Their answers
may be in the sockets already, and the loop reads sockets after timers. A caller that is about to
time calls out therefore waits one loop turn first. Without this, a stall of a few tenths of a
second lost 39 to 151 of 1,250 consultations.
"""

from __future__ import annotations

# More than a timer's own rounding, and more than the delay of a merely busy loop.
_LATE_NS = 5_000_000
# One millisecond: uvloop runs a timer of zero in the same turn.
TURN_S = 0.001


def stalled(due_ns: int, now_ns: int) -> bool:
    """Whether a timer, due at `due_ns`, fired too late to be trusted."""
    return now_ns - due_ns > _LATE_NS
