"""Load shedding by event loop lag: optional work goes first, then callers, lowest priority first.

Lag counts as far as our own work causes it. A loop that is late because the machine withheld the
core (other programs, a CPU quota, the host) has little work waiting, and shedding it would not make
the loop earlier.

This module only decides. The guard and the HTTP server side read the decisions and act on them.
"""

from __future__ import annotations

import math
from collections import deque
from enum import StrEnum
from functools import partial
from statistics import median
from typing import Annotated

from msgspec import Meta, Struct

from cashier.metrics.store import Store

LOWEST, HIGHEST = 0, 3
PRIORITY_NAMES = ("low", "normal", "high", "critical")
# Often enough to notice a long loop turn; costs some thousandths of a core.
TICK_MS = 5
# While our work uses less than this share of the time between two ticks. A tick that wakes the
# process up costs several times as much as one among its work.
CALM_TICK_MS = 20
_CALM_SHARE = 0.25
# The lag is the median of this number of ticks. One slow callback, such as a garbage collection,
# delays one tick, or two until its backlog is done; a standing queue delays all of them.
_LAG_TICKS = 5

# Change of the dimmed share per second, per multiple of the mark: full within 0.25 s, back to none
# within 2 s.
_DIM_PER_S = 4.0
_UNDIM_PER_S = 0.5

# Control of the admission rate, tuned with `python -m benchmarks overload` and the simulation in
# the tests. A proportional term changes the fill rate at once; an integral term learns the rate
# behind it.
#
# The target lag is a fraction of the lower mark: refusals too wait for the end of a loop turn, and
# an evenly loaded loop loses no more than a hundredth to so short a queue. The rate falls slowly,
# because lag accumulates over what was admitted, and is more often a stall of the machine than a
# lasting loss of capacity. It rises fast while the loop is nearly idle, and more slowly the closer
# the lag is to its target.
#
# If the thread was off its core for other reasons than the run queue, the host may have withheld
# it, and refusing callers does not help: then the target rises, up to a fraction of the upper mark.
_TARGET = 0.3
_OWN_CORE_BUSY = 0.85
_TARGET_UP_PER_S = 2.0
_TARGET_DOWN_PER_S = 0.5
_MAX_TARGET = 0.5
_SMOOTHING = 0.2
# On a starved machine work takes longer than its CPU time: its lag counts by this factor, and so
# does more than a tick of queued work. Bounded, because so much of it is only an estimate.
_MAX_SLOWDOWN = 4.0
_SLOWDOWN_SMOOTHING = 0.05
_PROPORTIONAL_GAIN = 0.1
_MIN_ERROR = -8.0
_RATE_DOWN_PER_S = 0.5
_RATE_UP_PER_S = 1.5
_LIMITING_S = 0.05
# Trunk reservation: each priority leaves this many seconds of admissions, or this number, to the
# priorities above it. More than one loop turn brings.
_RESERVE_S = 0.008
_MIN_RESERVE = 3.0
# Always admitted: this rate, or this share of the recent throughput. Without it a recovery would
# not show.
_MIN_PER_S = 20.0
_MIN_SHARE = 0.25
# The throughput is measured over this number of ticks; its maximum decays by this share a second.
_THROUGHPUT_TICKS = 20
_THROUGHPUT_DECAY_PER_S = 0.1
# The longest acceptable queue wait at the lowest priority, in upper marks; one more for each
# priority above.
_MAX_WAIT_MARKS = 2
# Admission control ends after this time without a refusal.
_QUIET_S = 0.5


class SheddingStep(StrEnum):
    """What is left undone, from nothing to everything: see `ShedSettings`."""

    CLEAR = "CLEAR"
    DIMMING = "DIMMING"
    STALE = "STALE"
    REFUSING = "REFUSING"


class ShedSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[shed]`: marks of the event loop lag that our own work causes, in ms.

    From `dim_lag_ms` on: no hedges, and a growing share of calls to ENRICHING sources is left out.
    Between the marks: stale answers are served without a refresh. From `refuse_lag_ms` on: callers
    are refused, low priorities first. A caller whose queue wait would exceed two (low priority) to
    five (critical) times `refuse_lag_ms` is refused at once.
    """

    enabled: bool = True
    dim_lag_ms: Annotated[float, Meta(ge=1, le=1_000)] = 5
    refuse_lag_ms: Annotated[float, Meta(ge=2, le=5_000)] = 20


def shed_faults(settings: ShedSettings) -> tuple[str, ...]:
    """Return what is wrong with the settings, each with its remedy."""
    if settings.refuse_lag_ms < 2 * settings.dim_lag_ms:
        return ("[shed] refuse_lag_ms must be at least twice dim_lag_ms: optional work is shed before any caller",)
    return ()


class AdmissionRate:
    """A token bucket whose fill rate follows the loop lag.

    Each priority may empty it to a depth of its own.

    A bucket instead of random drops: its output is even, so the loop can run nearly full with a
    short queue, and no caller is refused once fewer arrive than the rate admits.
    """

    def __init__(self, per_s: float, settings: ShedSettings, now_ns: int) -> None:
        self.per_s = max(_MIN_PER_S, per_s)
        self.refused_at_ns = now_ns
        self._min_target_ms = self._target_ms = settings.dim_lag_ms * _TARGET
        self._max_target_ms = settings.refuse_lag_ms * _MAX_TARGET
        self._steered_ns = self._filled_ns = now_ns
        self._fill_per_ns = 0.0
        self._reserve = 0.0
        self._tokens = 0.0
        self._set_fill(1.0)

    def __repr__(self) -> str:
        tokens, target = f"tokens={self._tokens:.1f} reserve={self._reserve:.1f}", f"target={self._target_ms:.1f}ms"
        return f"<AdmissionRate {self.per_s:.0f}/s {tokens} {target}>"

    def admits(self, priority: int, now_ns: int) -> bool:
        """`priority` from LOWEST to HIGHEST."""
        full = 1 + (HIGHEST - LOWEST + 1) * self._reserve
        self._tokens = min(full, self._tokens + (now_ns - self._filled_ns) * self._fill_per_ns)
        self._filled_ns = now_ns
        if self._tokens >= 1 + (HIGHEST - priority) * self._reserve:
            self._tokens -= 1
            return True
        self.refused_at_ns = now_ns
        return False

    def steer(self, lag_ms: float, busy: float, throughput_per_s: float, now_ns: int) -> None:
        """Adjust the rate to the lag. It grows only while it is what limits the callers."""
        error = max(_MIN_ERROR, 1 - lag_ms / self._target_ms)
        passed_s = min(0.1, (now_ns - self._steered_ns) / 1e9)
        self._steered_ns = now_ns
        if error < 0:
            lowered = self.per_s * (1 - _RATE_DOWN_PER_S * min(1.0, -error) * passed_s)
            self.per_s = max(_MIN_PER_S, throughput_per_s * _MIN_SHARE, lowered)
        elif now_ns - self.refused_at_ns < _LIMITING_S * 1e9:
            self.per_s *= 1 + _RATE_UP_PER_S * error * error * passed_s
        self._adjust_target(error, busy < _OWN_CORE_BUSY, passed_s)
        self._set_fill(1 + _PROPORTIONAL_GAIN * error)

    def _adjust_target(self, error: float, disturbed: bool, passed_s: float) -> None:
        if error < 0 and disturbed:
            self._target_ms = min(self._max_target_ms, self._target_ms * (1 + _TARGET_UP_PER_S * passed_s))
        elif error > 0:
            self._target_ms = max(self._min_target_ms, self._target_ms * (1 - _TARGET_DOWN_PER_S * error * passed_s))

    def _set_fill(self, factor: float) -> None:
        self._fill_per_ns = self.per_s * factor / 1e9
        self._reserve = max(_MIN_RESERVE, self.per_s * _RESERVE_S)


class DegradationLadder:
    """The current degree of degradation. The plain attributes are for reading on the hot path.

    `hedging`: extra calls are allowed. `serve_stale`: stale answers are served without a refresh.
    `refusing`: each caller needs `admits`. The server side increments `answered` for each admitted
    caller that it answers, and sets `queued_ms`, the CPU time that the queued callers will take,
    which counts like loop lag.

    Counts: `dimmed` calls; `served_stale` answers, by caches, that would have been refreshed
    without overload; callers by priority, `refused` by the admission rate and `refused_waits` by
    the queue.

    `lag_ms`: the lag by our own work. `withheld_ms`: the lag that the machine causes, smoothed.
    `tick_ms`: until the next `tick`, TICK_MS or CALM_TICK_MS.
    """

    def __init__(self, settings: ShedSettings | None = None, metrics: Store | None = None) -> None:
        """`metrics`: where to count, and where a `Cashier` with this ladder counts by default."""
        self.settings = settings or ShedSettings()
        self.metrics = metrics = metrics or Store()
        self.hedging = True
        self.serve_stale = False
        self.refusing = False
        self.answered = 0
        self.queued_ms = 0.0
        shed = partial(metrics.counter, "cashier_shed_total")
        self.dimmed = shed("any", "dimmed")
        self.served_stale = shed("any", "stale")
        self.refused = [shed(name, "refused") for name in PRIORITY_NAMES]
        self.refused_waits = [shed(name, "queue") for name in PRIORITY_NAMES]
        self.dim_share = 0.0
        self.lag_ms = 0.0
        self.withheld_ms = 0.0
        self.tick_ms = TICK_MS
        self._lags_ms = deque([0.0] * _LAG_TICKS, maxlen=_LAG_TICKS)
        self._answered_at: deque[tuple[int, int]] = deque(maxlen=_THROUGHPUT_TICKS)
        self._dim_owed = 0.0
        self._ticked_ns = 0
        self._throughput_per_s = 0.0
        self._busy = 1.0
        self._cpu_ms = self._run_delay_ms = 0.0
        self._admission: AdmissionRate | None = None
        # Between the marks: dimming has had its chance, and no caller is refused yet.
        self._stale_lag_ms = math.sqrt(self.settings.dim_lag_ms * self.settings.refuse_lag_ms)

    def __repr__(self) -> str:
        lag = f"lag={self.lag_ms:.1f}ms withheld={self.withheld_ms:.1f}ms"
        load = f"{lag} dim={self.dim_share:.2f} refused={list(self.refused_by_priority)}"
        return f"<DegradationLadder {self.step.lower()} {load} {self._admission or ''}>"

    @property
    def refused_by_priority(self) -> tuple[int, ...]:
        """The refused callers, from the lowest priority to the highest."""
        return tuple(rate.value + wait.value for rate, wait in zip(self.refused, self.refused_waits, strict=True))

    @property
    def step(self) -> SheddingStep:
        if self.refusing:
            return SheddingStep.REFUSING
        if self.serve_stale:
            return SheddingStep.STALE
        return SheddingStep.DIMMING if self.dim_share else SheddingStep.CLEAR

    @property
    def starved(self) -> bool:
        """Whether the loop is as late as for a refusal, by other causes than its work."""
        return self.withheld_ms >= self.settings.refuse_lag_ms and not self.refusing

    def dims_call(self) -> bool:
        """Whether to leave out this call to an ENRICHING source.

        Spread evenly: at a share of 0.3, three of ten in a row.
        """
        if not self.dim_share:
            return False
        self._dim_owed += self.dim_share
        if self._dim_owed < 1:
            return False
        self._dim_owed -= 1
        self.dimmed.add()
        return True

    def admits(self, priority: int, now_ns: int) -> bool:
        """Whether to admit a caller; call it once per caller.

        `priority` from LOWEST to HIGHEST, `now_ns` on the clock of `tick`.
        """
        if self._admission is None or self._admission.admits(priority, now_ns):
            return True
        self.refused[priority].add()
        return False

    def refuses_wait(self, work_ms: float, priority: int) -> bool:
        """Whether to refuse a caller for the work queued ahead of it. Call it once per caller.

        `work_ms`: the CPU time of that work. The queue shows overload before the lag does.

        The bound is several upper marks: a short burst should lose no caller that can still be
        served in time.
        """
        longest_ms = self.settings.refuse_lag_ms * (_MAX_WAIT_MARKS + priority - LOWEST)
        if not self.settings.enabled or self._wait_ms(work_ms) <= longest_ms:
            return False
        self.refused_waits[priority].add()
        return True

    def tick(self, lag_ms: float, now_ns: int, off_cpu_ms: float = 0.0, run_delay_ms: float | None = None) -> None:
        """Take the loop lag. Call it `tick_ms` after the last time, or as soon as the loop allows.

        `off_cpu_ms`: how long the thread had no core since the last tick, asleep or not.
        `run_delay_ms`: how much of it was spent in the run queue; None if the system does not tell.
        """
        passed_ns, self._ticked_ns = now_ns - self._ticked_ns, now_ns
        withheld_ms = self._withheld_ms(off_cpu_ms, run_delay_ms)
        own_ms = lag_ms - withheld_ms if lag_ms > withheld_ms else 0.0
        passed_ms = self.tick_ms + lag_ms
        cpu_ms = passed_ms - off_cpu_ms
        self._cpu_ms += _SLOWDOWN_SMOOTHING * ((cpu_ms if cpu_ms > 0 else 0.0) - self._cpu_ms)
        self._run_delay_ms += _SLOWDOWN_SMOOTHING * ((run_delay_ms or 0.0) - self._run_delay_ms)
        self.withheld_ms += _SMOOTHING * (lag_ms - own_ms - self.withheld_ms)
        self._busy += _SMOOTHING * (1 - (off_cpu_ms - withheld_ms) / passed_ms - self._busy)
        if own_ms or self.queued_ms:
            own_ms = max(min(lag_ms, own_ms * self._slowdown), self._wait_ms(self.queued_ms))
        self._lags_ms.append(own_ms)
        passed_s = min(0.1, passed_ns / 1e9)
        self.lag_ms = lag = median(self._lags_ms)
        self._measure_throughput(now_ns, passed_s)
        self._steer_admission(lag, now_ns)
        self.hedging = not self.refusing and lag < self.settings.dim_lag_ms
        self.serve_stale = self.refusing or lag >= self._stale_lag_ms
        self._adjust_dimming(lag, passed_s)
        calm = cpu_ms < _CALM_SHARE * self.tick_ms and not (lag or self.refusing)
        self.tick_ms = CALM_TICK_MS if calm else TICK_MS

    @property
    def _slowdown(self) -> float:
        """How much longer than its CPU time our work takes, in the run queue."""
        return min(_MAX_SLOWDOWN, 1 + self._run_delay_ms / self._cpu_ms) if self._cpu_ms else 1.0

    def _wait_ms(self, work_ms: float) -> float:
        """How long queued work takes. Little work counts as if the core were ours."""
        return max(work_ms, (work_ms - TICK_MS) * self._slowdown)

    def _withheld_ms(self, off_cpu_ms: float, run_delay_ms: float | None) -> float:
        """How much of the time without a core is no sign of our own work.

        All of it while no caller is queued or refused: then our work is what the CPU time shows.
        With callers queued, the loop may be late because our code sleeps in it, and refusing
        callers helps. What the thread spent in the run queue is the machine's fault even then.
        """
        if run_delay_ms is None or not (self.queued_ms or self.refusing):
            return off_cpu_ms
        return run_delay_ms if run_delay_ms < off_cpu_ms else off_cpu_ms

    def _adjust_dimming(self, lag_ms: float, passed_s: float) -> None:
        excess = 1.0 if self.refusing else lag_ms / self.settings.dim_lag_ms - 1
        step = min(excess, 1.0) * passed_s * (_DIM_PER_S if excess > 0 else _UNDIM_PER_S)
        self.dim_share = min(1.0, max(0.0, self.dim_share + step))
        if not self.dim_share:
            self._dim_owed = 0.0

    def _steer_admission(self, lag_ms: float, now_ns: int) -> None:
        admission = self._admission
        if admission is None:
            if self._has_callers and (lag_ms >= self.settings.refuse_lag_ms or self._growing()):
                self._admission = AdmissionRate(self._throughput_per_s, self.settings, now_ns)
        elif lag_ms < self.settings.refuse_lag_ms and now_ns - admission.refused_at_ns > _QUIET_S * 1e9:
            self._admission = None
        else:
            admission.steer(lag_ms, self._busy, self._throughput_per_s, now_ns)
        self.refusing = self._admission is not None

    @property
    def _has_callers(self) -> bool:
        """Whether any is queued or was answered lately. If not, they do not cause the lag.

        The work of a start is no overload.
        """
        return self.queued_ms > 0 or self.answered > self._answered_at[0][1]

    def _growing(self) -> bool:
        """Two ticks past the upper mark, and not falling.

        The backlog of a single stall shrinks from tick to tick.
        """
        last_ms, before_ms = self._lags_ms[-1], self._lags_ms[-2]
        return last_ms >= before_ms >= self.settings.refuse_lag_ms

    def _measure_throughput(self, now_ns: int, passed_s: float) -> None:
        """Track the best recent throughput: the initial rate of admission control."""
        self._answered_at.append((now_ns, self.answered))
        since_ns, before = self._answered_at[0]
        if len(self._answered_at) == _THROUGHPUT_TICKS:
            per_s = (self.answered - before) / max(1, now_ns - since_ns) * 1e9
            decayed_per_s = self._throughput_per_s * (1 - _THROUGHPUT_DECAY_PER_S * passed_s)
            self._throughput_per_s = max(per_s, decayed_per_s)
