"""The expected result of a scatter, computed without one, from the natural end of each ask."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from cashier.fanout.ask import Importance, SourceStatus
from cashier.source_errors import Missing, MissingCause, SourceError
from tests.fanout.scripted_sources import NEVER, AnswerMode, ScriptedSource

# The largest lateness of a timer (whole milliseconds, rounded up), and earliness of the end.
SLACK_MS = 1.001


class AskCourse(NamedTuple):
    """One ask on its own: its start (None: never), its end, and its outcome."""

    began_ms: float | None
    ended_ms: float
    outcome: Any

    @property
    def timed(self) -> bool:
        """Whether it timed out."""
        return isinstance(self.outcome, Missing) and self.outcome.cause is MissingCause.TIMEOUT

    @property
    def momentary(self) -> bool:
        """Whether it ended during its start, or came too late to start."""
        return self.began_ms == self.ended_ms


class ExpectedResult(NamedTuple):
    ended_ms: float
    answers: dict[str, Any]
    failed_required: set[str]
    certain: bool
    """False if the result depends on the order of events within the slack of a timer."""


def expected_status(gap: Missing) -> SourceStatus:
    """The status that reports a gap."""
    failed = gap.cause in (MissingCause.UNREACHABLE, MissingCause.OVERLOADED)
    return SourceStatus.ERROR if failed else SourceStatus(gap.cause.value)


def expected_result(
    sources: Sequence[ScriptedSource], known: Collection[str], *, end_ms: float, grace_ms: float, conclusive: str | None
) -> ExpectedResult:
    """`sources`: givers first. `end_ms`: the deadline less the reserve.

    `conclusive`: the source that ends it.
    """
    courses: dict[str, AskCourse] = {}
    for source in sources:
        courses[source.name] = _course(source, sources, courses, known, end_ms)
    hard = [courses[source.name].ended_ms for source in sources if source.importance is not Importance.ENRICHING]
    grace_end_ms = max(hard, default=0.0) + grace_ms
    cuts = [
        course.ended_ms
        for course in map(courses.__getitem__, _required(sources))
        if isinstance(course.outcome, Missing)
    ]
    concluded = (
        [courses[conclusive].ended_ms] if conclusive and not isinstance(courses[conclusive].outcome, Missing) else []
    )
    cuts += concluded
    all_in_ms = max((course.ended_ms for course in courses.values()), default=0.0)
    ended_ms = min([all_in_ms, grace_end_ms, *cuts])
    answers = {}
    for name, course in courses.items():
        if course.ended_ms <= ended_ms:
            answers[name] = course.outcome
        else:
            in_grace = ended_ms not in cuts and course.began_ms is not None and course.began_ms <= ended_ms
            answers[name] = Missing(name, MissingCause.TIMEOUT if in_grace else MissingCause.SKIPPED)
    failed = {
        name
        for name in _required(sources)
        if isinstance(courses[name].outcome, Missing) and courses[name].ended_ms <= ended_ms
    }
    if ended_ms in concluded:  # its revealed names do not matter any more
        failed = set()
    # Asks that start and end at the moment of the cut: the order of the plan decides, not the time.
    within = ended_ms in cuts and any(course.momentary and course.ended_ms == ended_ms for course in courses.values())
    certain = not within and _certain(courses, ended_ms, grace_end_ms)
    return ExpectedResult(ended_ms, answers, failed, certain)


def _course(
    source: ScriptedSource,
    sources: Sequence[ScriptedSource],
    courses: dict[str, AskCourse],
    known: Collection[str],
    end_ms: float,
) -> AskCourse:
    unmet_needs = [need for need in source.needs if need not in known]
    givers = [each for each in sources if set(each.given) & set(unmet_needs)]
    # A source with a reveal of its own reveals nothing here.
    failed_ms = [
        courses[each.name].ended_ms for each in givers if each.reveal or isinstance(courses[each.name].outcome, Missing)
    ]
    failed_ms += [0.0 for need in unmet_needs if not any(need in each.given for each in givers)]
    if failed_ms:
        return AskCourse(None, min(failed_ms), Missing(source.name, MissingCause.SKIPPED))
    began_ms = max((courses[each.name].ended_ms for each in givers), default=0.0)
    if end_ms - began_ms < 1:
        return AskCourse(began_ms, began_ms, Missing(source.name, MissingCause.SKIPPED))
    takes_ms = 0.0 if source.mode is AnswerMode.AT_ONCE else source.after_ms
    limit_ms = min(began_ms + source.timeout_ms, end_ms)
    if takes_ms is NEVER or began_ms + takes_ms >= limit_ms:
        return AskCourse(began_ms, limit_ms, Missing(source.name, MissingCause.TIMEOUT))
    outcome = source.outcome
    return AskCourse(
        began_ms, began_ms + takes_ms, outcome.missing(source.name) if isinstance(outcome, SourceError) else outcome
    )


def _required(sources: Sequence[ScriptedSource]) -> list[str]:
    return [source.name for source in sources if source.importance is Importance.REQUIRED]


def _certain(courses: dict[str, AskCourse], ended_ms: float, grace_end_ms: float) -> bool:
    timers = [course.ended_ms for course in courses.values() if course.timed] + [grace_end_ms]
    events = [ms for course in courses.values() for ms in (course.ended_ms, course.began_ms) if ms is not None]
    return not any(0 < abs(event - timer) < SLACK_MS for timer in timers for event in [*events, ended_ms, grace_end_ms])
