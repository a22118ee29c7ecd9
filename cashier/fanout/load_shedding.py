"""Shedding: how late the loop is, and what is left undone because of it. Cheap things go first, callers last and by priority.

Decides only. Whoever calls a source or opens the door reads the rungs here and acts; nothing here knows what a call or a caller is.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from statistics import median
from typing import Annotated

from msgspec import Meta, Struct

LOWEST, HIGHEST = 0, 3
# Often enough to see a turn that is too long, seldom enough to cost a thousandth of a core.
TICK_MS = 5
# The middle of so many ticks counts. One slow callback, a garbage collection say, makes one tick late, or two until what waited for it is
# done; a standing queue makes all of them late.
_TICKS = 5

# The share that is left out moves by so much a second for each multiple of the mark: in full within a quarter of a second, back within two.
_DIM_PER_S = 4.0
_UNDIM_PER_S = 0.5

# How admission is steered, found with `python -m benchmarks overload` and the simulation in the tests. The flow changes at once, in
# proportion to the error; the rate behind it is learned. The aim is a share of the lowest mark: refusals wait for a turn's end like
# everybody, and a loop that is kept evenly busy loses no more than a hundredth by so short a queue. Downwards slowly, because lag is a
# sum of what was let in, and more often a stall of the machine than a lasting loss; upwards fast while the loop is all but idle, and the
# more carefully the nearer the lag is to its aim. Where the loop is late without having had its core to itself others have it, and
# refusing does not help: then the aim gives way, by so much a second and up to a share of the upper mark.
_AIM = 0.3
_ALONE = 0.85
_AIM_UP_PER_S = 2.0
_AIM_DOWN_PER_S = 0.5
_AIM_MOST = 0.5
_BUSY_WEIGHT = 0.2
_AT_ONCE = 0.1
_WORST_ERROR = -8.0
_DOWN_PER_S = 0.5
_UP_PER_S = 1.5
_LIMITING_S = 0.05
# Each priority leaves what comes in so long, or so many, for those above it: trunk reservation. More than one turn of the loop brings.
_RESERVE_S = 0.008
_RESERVE_LEAST = 3.0
# So many are always let in, or such a share of what was lately answered: else it would not show when things have become better.
_LEAST_PER_S = 20.0
_LEAST_SHARE = 0.25
# What is answered is counted over so many ticks; of the best count so much is forgotten a second.
_COUNTED_TICKS = 20
_FORGOTTEN_PER_S = 0.1
# How long a wait may be foretold to somebody of the lowest priority, in upper marks; one more for each priority above.
_MARKS_IN_LINE = 2
# Refusing has ended when nobody had to be refused for so long.
_QUIET_S = 0.5


class ShedSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[shed]`. Marks of how late the event loop is, in ms.

    From `dim_lag_ms` on there are no hedges and enriching sources are left out, as large a share of their calls as it takes; between the
    marks what is stale is served without asking anew; from `refuse_lag_ms` on callers are refused, those of low priority first. Whoever
    would wait in line for twice that (low priority) to five times (critical) is refused at once.
    """

    enabled: bool = True
    dim_lag_ms: Annotated[float, Meta(ge=1, le=1_000)] = 5
    refuse_lag_ms: Annotated[float, Meta(ge=2, le=5_000)] = 20


def shed_faults(settings: ShedSettings) -> tuple[str, ...]:
    """What is wrong with the settings, each with its remedy. Empty: nothing."""
    if settings.refuse_lag_ms < 2 * settings.dim_lag_ms:
        return ("[shed] refuse_lag_ms must be at least twice dim_lag_ms: what is optional goes before any caller does",)
    return ()


class AdmissionRate:
    """Lets in as much as the loop bears: a bucket that fills at a rate steered by lag, and that each priority may empty to its own depth.

    A bucket and not dice: what it lets through is even, so the loop can be nearly full and its queue still short; and as soon as less
    comes than it lets through nobody is refused.
    """

    def __init__(self, per_s: float, settings: ShedSettings, now_ns: int) -> None:
        self.per_s = max(_LEAST_PER_S, per_s)
        self.refused_at_ns = now_ns
        self._least_aim_ms = self._aim_ms = settings.dim_lag_ms * _AIM
        self._most_aim_ms = settings.refuse_lag_ms * _AIM_MOST
        self._steered_ns = self._filled_ns = now_ns
        self._flow_per_ns = 0.0
        self._reserve = 0.0
        self._tokens = 0.0
        self._flow(1.0)

    def __repr__(self) -> str:
        return f"<Admission {self.per_s:.0f}/s tokens={self._tokens:.1f} reserve={self._reserve:.1f} aim={self._aim_ms:.1f}ms>"

    def admits(self, priority: int, now_ns: int) -> bool:
        """`priority` from LOWEST to HIGHEST."""
        full = 1 + (HIGHEST - LOWEST + 1) * self._reserve
        self._tokens = min(full, self._tokens + (now_ns - self._filled_ns) * self._flow_per_ns)
        self._filled_ns = now_ns
        if self._tokens >= 1 + (HIGHEST - priority) * self._reserve:
            self._tokens -= 1
            return True
        self.refused_at_ns = now_ns
        return False

    def steer(self, lag_ms: float, busy: float, proven_per_s: float, now_ns: int) -> None:
        """Learn from how late the loop is. The rate grows only while it is what holds callers back."""
        error = max(_WORST_ERROR, 1 - lag_ms / self._aim_ms)
        passed_s = min(0.1, (now_ns - self._steered_ns) / 1e9)
        self._steered_ns = now_ns
        if error < 0:
            fallen = self.per_s * (1 - _DOWN_PER_S * min(1.0, -error) * passed_s)
            self.per_s = max(_LEAST_PER_S, proven_per_s * _LEAST_SHARE, fallen)
        elif now_ns - self.refused_at_ns < _LIMITING_S * 1e9:
            self.per_s *= 1 + _UP_PER_S * error * error * passed_s
        self._take_aim(error, busy < _ALONE, passed_s)
        self._flow(1 + _AT_ONCE * error)

    def _take_aim(self, error: float, disturbed: bool, passed_s: float) -> None:
        if error < 0 and disturbed:
            self._aim_ms = min(self._most_aim_ms, self._aim_ms * (1 + _AIM_UP_PER_S * passed_s))
        elif error > 0:
            self._aim_ms = max(self._least_aim_ms, self._aim_ms * (1 - _AIM_DOWN_PER_S * error * passed_s))

    def _flow(self, factor: float) -> None:
        self._flow_per_ns = self.per_s * factor / 1e9
        self._reserve = max(_RESERVE_LEAST, self.per_s * _RESERVE_S)


class DegradationLadder:
    """What is left undone now. The plain attributes are for reading on the hot path.

    `hedging`: a second call may be made for a slow one. `stale`: what may be served stale is, without asking anew. `refusing`: callers
    must be admitted one by one. `answered` is counted up by whoever answers a caller that was let in. `waiting_ms`: how long those who were
    let in have been waiting to begin, told by whoever keeps them in line; it counts like lateness of the loop.
    """

    def __init__(self, settings: ShedSettings | None = None) -> None:
        self.settings = settings or ShedSettings()
        self.hedging = True
        self.stale = False
        self.refusing = False
        self.answered = 0
        self.waiting_ms = 0.0
        self.dimmed = 0
        self.refused = [0] * (HIGHEST + 1)
        self.dim_share = 0.0
        self.lag_ms = 0.0
        self._lags_ms = deque([0.0] * _TICKS, maxlen=_TICKS)
        self._counts: deque[tuple[int, int]] = deque(maxlen=_COUNTED_TICKS)
        self._dim_owed = 0.0
        self._ticked_ns = 0
        self._proven_per_s = 0.0
        self._busy = 1.0
        self._admission: AdmissionRate | None = None
        # Where dimming has had its chance, and nobody is refused yet.
        self._stale_lag_ms = math.sqrt(self.settings.dim_lag_ms * self.settings.refuse_lag_ms)

    def __repr__(self) -> str:
        rung = "refusing" if self.refusing else "stale" if self.stale else "dimming" if self.dim_share else "clear"
        return f"<Ladder {rung} lag={self.lag_ms:.1f}ms dim={self.dim_share:.2f} refused={self.refused} {self._admission or ''}>"

    def dims(self) -> bool:
        """Whether this call of an enriching source is left out. Evenly spread: of ten calls in a row a share of 0.3 leaves out three."""
        if not self.dim_share:
            return False
        self._dim_owed += self.dim_share
        if self._dim_owed < 1:
            return False
        self._dim_owed -= 1
        self.dimmed += 1
        return True

    def admits(self, priority: int, now_ns: int) -> bool:
        """Whether a caller is let in; to be asked once for each. `priority` from LOWEST to HIGHEST, `now_ns` on the clock of `tick`."""
        if self._admission is None or self._admission.admits(priority, now_ns):
            return True
        self.refused[priority] += 1
        return False

    def too_late(self, wait_ms: float, priority: int) -> bool:
        """Whether a caller of that priority who would wait so long is refused at once, whatever lateness says: it says so later.

        Several times the upper mark, because a burst that is over soon should lose nobody who can still be served in time. Asked once
        for each, who is counted where it says yes.
        """
        if not self.settings.enabled or wait_ms <= self.settings.refuse_lag_ms * (_MARKS_IN_LINE + priority - LOWEST):
            return False
        self.refused[priority] += 1
        return True

    def tick(self, lag_ms: float, now_ns: int, busy: float = 1.0) -> None:
        """The loop was `lag_ms` late just now. To be told every `TICK_MS`, or as soon after as the loop can.

        `busy`: which share of the time since then the loop had a core, from 0 to 1.
        """
        self._lags_ms.append(max(lag_ms, self.waiting_ms))
        passed_s = min(0.1, (now_ns - self._ticked_ns) / 1e9)
        self._ticked_ns = now_ns
        self.lag_ms = lag = median(self._lags_ms)
        self._busy += _BUSY_WEIGHT * (busy - self._busy)
        self._count(now_ns, passed_s)
        self._refuse(lag, now_ns)
        self.hedging = not self.refusing and lag < self.settings.dim_lag_ms
        self.stale = self.refusing or lag >= self._stale_lag_ms
        self._dim(lag, passed_s)

    def _dim(self, lag_ms: float, passed_s: float) -> None:
        over = 1.0 if self.refusing else lag_ms / self.settings.dim_lag_ms - 1
        step = min(over, 1.0) * passed_s * (_DIM_PER_S if over > 0 else _UNDIM_PER_S)
        self.dim_share = min(1.0, max(0.0, self.dim_share + step))
        if not self.dim_share:
            self._dim_owed = 0.0

    def _refuse(self, lag_ms: float, now_ns: int) -> None:
        admission = self._admission
        if admission is None:
            if lag_ms >= self.settings.refuse_lag_ms or self._growing():
                self._admission = AdmissionRate(self._proven_per_s, self.settings, now_ns)
        elif lag_ms < self.settings.refuse_lag_ms and now_ns - admission.refused_at_ns > _QUIET_S * 1e9:
            self._admission = None
        else:
            admission.steer(lag_ms, self._busy, self._proven_per_s, now_ns)
        self.refusing = self._admission is not None

    def _growing(self) -> bool:
        """Twice in a row past the mark, and not for the better. What a single stall leaves behind becomes less from tick to tick."""
        last_ms, before_ms = self._lags_ms[-1], self._lags_ms[-2]
        return last_ms >= before_ms >= self.settings.refuse_lag_ms

    def _count(self, now_ns: int, passed_s: float) -> None:
        """What was answered of late at best is what the loop was seen to do: a rate to begin with, better than none."""
        self._counts.append((now_ns, self.answered))
        since_ns, before = self._counts[0]
        if len(self._counts) == _COUNTED_TICKS:
            per_s = (self.answered - before) / max(1, now_ns - since_ns) * 1e9
            self._proven_per_s = max(per_s, self._proven_per_s * (1 - _FORGOTTEN_PER_S * passed_s))


class LoopLagMonitor:
    """Measures how late the running loop is and tells the ladder. One a process; it costs a timer every `TICK_MS`."""

    def __init__(
        self,
        ladder: DegradationLadder,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
        busy_ns: Callable[[], int] = time.thread_time_ns,
    ) -> None:
        """`busy_ns`: how long this thread has had a core so far."""
        self._ladder = ladder
        self._clock_ns = clock_ns
        self._busy_ns = busy_ns
        self._beaten = (0, 0)
        self._due_ns = 0
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Pulse {'beating' if self._timer else 'still'} of {self._ladder!r}>"

    def start(self) -> None:
        """In the loop that is to be watched. Nothing happens where shedding is turned off."""
        if self._ladder.settings.enabled and self._timer is None:
            self._beaten = (self._clock_ns(), self._busy_ns())
            self._next(asyncio.get_running_loop())

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        now_ns = self._clock_ns()
        # uvloop counts whole ms from the beginning of its turn, so a timer may also be up to 1 ms early.
        (then_ns, had_ns), self._beaten = self._beaten, (now_ns, self._busy_ns())
        busy = (self._beaten[1] - had_ns) / max(1, now_ns - then_ns)
        self._ladder.tick(max(0.0, (now_ns - self._due_ns) / 1e6), now_ns, min(1.0, busy))
        self._next(loop)

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due_ns = self._clock_ns() + TICK_MS * 1_000_000
        self._timer = loop.call_later(TICK_MS / 1000, self._beat, loop)
