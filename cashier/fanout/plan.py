"""The plan: the asks of a consultation, checked once at start, with bounds on its time and calls.

Pure: `scatter` executes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cashier.fanout.ask import Ask, Importance

_START_ORDER = (Importance.REQUIRED, Importance.GATING, Importance.ENRICHING)


class Plan:
    """Asks that can all start, given `inputs`: the names that the caller always or sometimes has.

    `asks` is in start order, which is also the order of reports and answers: REQUIRED, GATING,
    ENRICHING, and as given within each. `needs`: all names that an ask needs. `giver_of`: the ask
    that gives a name. `needed_by`: for each given name, the indices of the asks that need it.
    `essential_count`: the number of REQUIRED and GATING asks, for which a scatter waits until the
    deadline. `leading`: the names of the asks that have ended in every usable snapshot, the
    REQUIRED ones and those marked so.

    Raises ValueError, naming ask and name, for a plan in which an ask might never end or the order
    of arrival would matter.
    """

    __slots__ = ("asks", "essential_count", "giver_of", "inputs", "leading", "needed_by", "needs")

    def __init__(self, asks: Iterable[Ask], inputs: Iterable[str]) -> None:
        self.asks = tuple(sorted(asks, key=lambda ask: _START_ORDER.index(ask.importance)))
        self.inputs = frozenset(inputs)
        self.needs = frozenset(need for ask in self.asks for need in ask.needs)
        _check_each(self.asks)
        self.giver_of = _giver_of(self.asks)
        _check_needs(self.asks, self.giver_of, self.inputs)
        _check_order(self.asks, self.giver_of)
        self.needed_by = {
            name: tuple(index for index, ask in enumerate(self.asks) if name in ask.needs) for name in self.giver_of
        }
        self.essential_count = sum(ask.importance is not Importance.ENRICHING for ask in self.asks)
        self.leading = frozenset(ask.name for ask in self.asks if ask.leading or ask.importance is Importance.REQUIRED)

    def __repr__(self) -> str:
        return (
            f"Plan({', '.join(_summary(ask) for ask in self.asks)}; inputs: {', '.join(sorted(self.inputs)) or 'none'})"
        )


def latest_ends_ms(plan: Plan, provided: Iterable[str] = ()) -> dict[str, int]:
    """Return the latest end of each ask, in ms from the start, dependencies included.

    `provided`: the inputs that the caller certainly gives. A name that is neither provided nor
    given by an ask counts as provided: without it the ask ends at once. Deadline and grace are not
    applied; an end beyond the deadline will be cut off by it.
    """
    certain = frozenset(provided)
    ends: dict[str, int] = {}
    for ask in _givers_first(plan.asks, plan.giver_of):
        waits = [ends[plan.giver_of[need].name] for need in ask.needs if need in plan.giver_of and need not in certain]
        ends[ask.name] = ask.timeout_ms + max(waits, default=0)
    return ends


def worst_time_ms(plan: Plan, *, deadline_ms: int, grace_ms: int, reserve_ms: int, provided: Iterable[str] = ()) -> int:
    """Return the upper bound in ms on a scatter over this plan; the caller's reserve comes on top.

    The first of: the end of all asks, the end of the essential ones plus the grace, and the
    deadline less the reserve.
    """
    ends = latest_ends_ms(plan, provided)
    essential_ms = max((ends[ask.name] for ask in plan.asks if ask.importance is not Importance.ENRICHING), default=0)
    return max(0, min(max(ends.values(), default=0), essential_ms + grace_ms, deadline_ms - reserve_ms))


def worst_calls(plan: Plan, attempts: Mapping[str, int] | None = None) -> int:
    """Return the largest number of calls of one consultation.

    `attempts`: calls per ask with hedges and retries, default 1.
    """
    attempts_by_name = attempts or {}
    return sum(attempts_by_name.get(ask.name, 1) for ask in plan.asks)


def _check_each(asks: tuple[Ask, ...]) -> None:
    seen: set[str] = set()
    for ask in asks:
        if ask.name in seen:
            raise ValueError(f"two asks are named {ask.name}")
        seen.add(ask.name)
        if ask.timeout_ms < 1:
            raise ValueError(f"{ask.name} has a timeout of {ask.timeout_ms} ms; it must be at least 1")
        if ask.gives and ask.reveal is None:
            raise ValueError(f"{ask.name} gives {', '.join(ask.gives)} but has no reveal to take it from its answer")
        if ask.reveal is not None and not ask.gives:
            raise ValueError(f"{ask.name} has a reveal but gives no names")
        if ask.unasked is not None and ask.gives:
            raise ValueError(f"{ask.name} gives {', '.join(ask.gives)}, so it cannot be left unasked")
        for names in (ask.needs, ask.gives):
            if duplicate := next((name for name in names if names.count(name) > 1), None):
                raise ValueError(f"{ask.name} names {duplicate} twice")


def _giver_of(asks: tuple[Ask, ...]) -> dict[str, Ask]:
    giver_of: dict[str, Ask] = {}
    for ask in asks:
        for name in ask.gives:
            if name in giver_of:  # otherwise the order of arrival would decide which value counts
                raise ValueError(f"{giver_of[name].name} and {ask.name} both give {name}")
            giver_of[name] = ask
    return giver_of


def _check_needs(asks: tuple[Ask, ...], giver_of: dict[str, Ask], inputs: frozenset[str]) -> None:
    for ask in asks:
        for need in ask.needs:
            if need not in giver_of and need not in inputs:
                raise ValueError(f"{ask.name} needs {need}, which no ask gives and the caller does not provide")


def _check_order(asks: tuple[Ask, ...], giver_of: dict[str, Ask]) -> None:
    """Reject cycles, and REQUIRED asks that depend, even indirectly, on an ENRICHING one."""
    optional: dict[str, bool] = {}
    for ask in _givers_first(asks, giver_of):
        through = next((need for need in ask.needs if need in giver_of and optional[giver_of[need].name]), None)
        if ask.importance is Importance.REQUIRED and through is not None:
            raise ValueError(f"{ask.name} is REQUIRED but needs {through}, which depends on an ENRICHING ask")
        optional[ask.name] = ask.importance is Importance.ENRICHING or through is not None


def _givers_first(asks: tuple[Ask, ...], giver_of: dict[str, Ask]) -> list[Ask]:
    """Sort topologically: the ask that gives a name before those that need it.

    ValueError for a cycle.
    """
    ordered: list[Ask] = []
    placed: set[str] = set()
    waiting = list(asks)
    while waiting:
        ready = [
            ask for ask in waiting if all(need not in giver_of or giver_of[need].name in placed for need in ask.needs)
        ]
        if not ready:
            cycle = _cycle(waiting[0], giver_of, placed)
            raise ValueError(f"these asks wait for each other in a cycle: {' → '.join(cycle)}")
        ordered += ready
        placed.update(ask.name for ask in ready)
        waiting = [ask for ask in waiting if ask.name not in placed]
    return ordered


def _cycle(ask: Ask, giver_of: dict[str, Ask], placed: set[str]) -> list[str]:
    """Return a cycle reachable from `ask`, as `a (x) → b (y) → a`: a needs x of b.

    Every ask not placed waits for another.
    """
    path: list[Ask] = []
    needs: list[str] = []
    while ask not in path:
        need = next(need for need in ask.needs if need in giver_of and giver_of[need].name not in placed)
        path.append(ask)
        needs.append(need)
        ask = giver_of[need]
    start = path.index(ask)
    return [f"{step.name} ({need})" for step, need in zip(path[start:], needs[start:], strict=True)] + [ask.name]


def _summary(ask: Ask) -> str:
    needs = f" needs {', '.join(ask.needs)}" if ask.needs else ""
    gives = f" gives {', '.join(ask.gives)}" if ask.gives else ""
    return f"{ask.name} {ask.importance.value}{needs}{gives} in {ask.timeout_ms} ms"
