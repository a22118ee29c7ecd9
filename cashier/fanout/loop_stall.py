"""Stall: a timer that fires late says that our loop stood still, and nothing of those whom we waited for.

Their answers may lie in the sockets since long, and sockets are read after timers. So whoever is about to give somebody up waits one turn
of the loop first. 39 to 151 of 1,250 consultations had been lost to a stall of a few tenths of a second.
"""

from __future__ import annotations

# Later than any timer is by its own rounding, and than a loop that is merely busy.
_LATE_NS = 5_000_000
# A millisecond, because uvloop makes a timer of none part of the same turn.
TURN_S = 0.001


def stalled(due_ns: int, now_ns: int) -> bool:
    """Whether a timer that was due then has fired too late to be believed."""
    return now_ns - due_ns > _LATE_NS
