"""A recorded consultation, replayed for the console: per kind and method the rule that decided."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from cashier.domain.explanation.schema import Check, KindExplanation, MethodExplanation, Result
from cashier.settings.schema import Configuration
from cashier.telemetry.records import ConsultationRecord
from cashier.telemetry.replay import CannotReplay, replayed, unpacked


class MethodView(Struct, frozen=True):
    """`refused_by`: the first rule that did not pass; `behind`: those that would refuse next."""

    method_id: str
    availability: str
    rank: int
    refused_by: str | None
    behind: tuple[str, ...]
    sentence: str


class KindView(Struct, frozen=True):
    """`left_out`: why the kind lists no method."""

    kind: str
    left_out: str | None
    methods: tuple[MethodView, ...]


class ReplayView(Struct, frozen=True):
    """`unavailable`: why there is no replay; everything else is then empty.

    `order`: sentences of the checks of the order that did not pass. `differences`: between the
    answer and the replay. `same_configuration`: that of this process decides as the worker's did.
    """

    sentence: str
    unavailable: str | None = None
    same_configuration: bool = True
    differences: tuple[str, ...] = ()
    order: tuple[str, ...] = ()
    kinds: tuple[KindView, ...] = ()


def replay_view(record: ConsultationRecord, config: Configuration) -> ReplayView:
    """Takes some ten milliseconds."""
    try:
        replay = replayed(unpacked(record.facts), config.catalog, config.weights)
    except CannotReplay as error:
        return ReplayView("", str(error))
    why = replay.explanation
    return ReplayView(
        sentence=why.sentence,
        same_configuration=replay.same_configuration,
        differences=replay.differences,
        order=tuple(check.sentence for check in _stopped(why.order_checks)),
        kinds=tuple(map(_kind, why.kinds)),
    )


def _kind(kind: KindExplanation) -> KindView:
    left_out = None if kind.left_out is None else kind.left_out.sentence
    methods = sorted(kind.methods, key=lambda method: method.rank)
    return KindView(kind.kind, left_out, tuple(map(_method, methods)))


def _method(method: MethodExplanation) -> MethodView:
    behind = tuple(check.rule for check in _stopped(method.checks))[1:]
    return MethodView(method.method_id, method.availability, method.rank, method.refused_by, behind, method.sentence)


def _stopped(checks: Iterable[Check]) -> list[Check]:
    return [check for check in checks if check.result in (Result.REFUSED, Result.UNDETERMINED)]
