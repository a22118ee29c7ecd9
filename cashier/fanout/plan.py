"""Plan: the asks of a consultation, checked once at start, and what can be proved of them before any is asked.

Nothing here asks, waits or reads a clock; that is `scatter`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cashier.fanout.ask import Ask, Importance

_START_ORDER = (Importance.REQUIRED, Importance.GATING, Importance.ENRICHING)


class Plan:
    """Asks that can all be asked, given `inputs`: the names that the caller always or possibly provides.

    `asks` is in the order in which they start, which is also the order of reports and answers: REQUIRED, GATING, ENRICHING, and within
    each as they were given. `needs` are all names that any of them needs. `waiters` says, for each name that some ask gives, which asks
    need it, as indices into `asks`. `hard` counts the asks that an answer waits for as long as the deadline lets it: REQUIRED and GATING.

    Raises ValueError, naming ask and name, for a plan that could leave an ask without an end or let the order of arrival decide.
    """

    __slots__ = ("asks", "givers", "hard", "inputs", "needs", "waiters")

    def __init__(self, asks: Iterable[Ask], inputs: Iterable[str]) -> None:
        self.asks = tuple(sorted(asks, key=lambda ask: _START_ORDER.index(ask.importance)))
        self.inputs = frozenset(inputs)
        self.needs = frozenset(need for ask in self.asks for need in ask.needs)
        _check_each(self.asks)
        self.givers = _givers(self.asks)
        _check_needs(self.asks, self.givers, self.inputs)
        _check_order(self.asks, self.givers)
        self.waiters = {
            name: tuple(index for index, ask in enumerate(self.asks) if name in ask.needs) for name in self.givers
        }
        self.hard = sum(ask.importance is not Importance.ENRICHING for ask in self.asks)

    def __repr__(self) -> str:
        return f"Plan({', '.join(_in_words(ask) for ask in self.asks)}; inputs: {', '.join(sorted(self.inputs)) or 'none'})"


def latest_ends_ms(plan: Plan, provided: Iterable[str] = ()) -> dict[str, int]:
    """When each ask has ended at the latest, in ms from the beginning, by its own timeout and those of the asks it waits for.

    `provided`: the inputs that the caller is sure to give. What is neither provided nor given by an ask is taken as provided: without
    it the ask ends at once. No deadline and no grace are applied: what is over the deadline here will be cut off by it.
    """
    sure = frozenset(provided)
    ends: dict[str, int] = {}
    for ask in _givers_first(plan.asks, plan.givers):
        waits = [ends[plan.givers[need].name] for need in ask.needs if need in plan.givers and need not in sure]
        ends[ask.name] = ask.timeout_ms + max(waits, default=0)
    return ends


def worst_time_ms(plan: Plan, *, deadline_ms: int, grace_ms: int, reserve_ms: int, provided: Iterable[str] = ()) -> int:
    """After how many ms a scatter over this plan has ended, whatever the sources do; the caller's reserve comes on top.

    That is when all asks have ended, or the hard ones and then the grace, or the deadline less the reserve: whichever is first.
    """
    ends = latest_ends_ms(plan, provided)
    hard_ms = max((ends[ask.name] for ask in plan.asks if ask.importance is not Importance.ENRICHING), default=0)
    return max(0, min(max(ends.values(), default=0), hard_ms + grace_ms, deadline_ms - reserve_ms))


def worst_calls(plan: Plan, attempts: Mapping[str, int] | None = None) -> int:
    """How many calls one consultation makes at most. `attempts`: calls per ask with hedges and retries in, by name, else 1."""
    most = attempts or {}
    return sum(most.get(ask.name, 1) for ask in plan.asks)


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
            raise ValueError(f"{ask.name} has a reveal but does not say which names it gives")
        for names in (ask.needs, ask.gives):
            if twice := next((name for name in names if names.count(name) > 1), None):
                raise ValueError(f"{ask.name} names {twice} twice")


def _givers(asks: tuple[Ask, ...]) -> dict[str, Ask]:
    givers: dict[str, Ask] = {}
    for ask in asks:
        for name in ask.gives:
            if name in givers:  # else the order of arrival would decide whose word is taken
                raise ValueError(f"{givers[name].name} and {ask.name} both give {name}")
            givers[name] = ask
    return givers


def _check_needs(asks: tuple[Ask, ...], givers: dict[str, Ask], inputs: frozenset[str]) -> None:
    for ask in asks:
        for need in ask.needs:
            if need not in givers and need not in inputs:
                raise ValueError(f"{ask.name} needs {need}, which no ask gives and the caller does not provide")


def _check_order(asks: tuple[Ask, ...], givers: dict[str, Ask]) -> None:
    """No cycles, and nothing that is required waits, however indirectly, for what may be left out."""
    optional: dict[str, bool] = {}
    for ask in _givers_first(asks, givers):
        through = next((need for need in ask.needs if need in givers and optional[givers[need].name]), None)
        if ask.importance is Importance.REQUIRED and through is not None:
            raise ValueError(f"{ask.name} is REQUIRED but needs {through}, for which an ENRICHING ask is waited for")
        optional[ask.name] = ask.importance is Importance.ENRICHING or through is not None


def _givers_first(asks: tuple[Ask, ...], givers: dict[str, Ask]) -> list[Ask]:
    """The asks in an order in which whoever gives a name comes before whoever needs it. ValueError where there is none."""
    ordered: list[Ask] = []
    placed: set[str] = set()
    waiting = list(asks)
    while waiting:
        ready = [ask for ask in waiting if all(need not in givers or givers[need].name in placed for need in ask.needs)]
        if not ready:
            circle = _circle(waiting[0], givers, placed)
            raise ValueError(f"these asks wait for each other in a circle: {' → '.join(circle)}")
        ordered += ready
        placed.update(ask.name for ask in ready)
        waiting = [ask for ask in waiting if ask.name not in placed]
    return ordered


def _circle(ask: Ask, givers: dict[str, Ask], placed: set[str]) -> list[str]:
    """A circle that can be reached from `ask`, as `a (x) → b (y) → a`: a needs x of b. Every ask that is not placed waits for another."""
    path: list[Ask] = []
    needs: list[str] = []
    while ask not in path:
        need = next(need for need in ask.needs if need in givers and givers[need].name not in placed)
        path.append(ask)
        needs.append(need)
        ask = givers[need]
    begin = path.index(ask)
    return [f"{each.name} ({need})" for each, need in zip(path[begin:], needs[begin:], strict=True)] + [ask.name]


def _in_words(ask: Ask) -> str:
    needs = f" needs {', '.join(ask.needs)}" if ask.needs else ""
    gives = f" gives {', '.join(ask.gives)}" if ask.gives else ""
    return f"{ask.name} {ask.importance.value}{needs}{gives} in {ask.timeout_ms} ms"
