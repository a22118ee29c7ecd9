"""Search: the most valuable set within a limit, at most one of each group. Knows nothing of what the values are worth to whom.

Branch and bound, most valuable first. Exact for a dozen groups and usually for far more; past a bound the best set seen so far stands,
and the search begins with the likeliest.
"""

from __future__ import annotations

from collections.abc import Sequence

# One or two milliseconds.
MAX_STEPS = 2_000
# Of more than this only the most valuable are searched. One descent without a turn takes as many steps and is always granted.
MAX_SEARCHED = 64


class KnapsackSearch:
    """Found when constructed: `chosen` are indices, of equal values the fewest, of as many the earliest; `value` is their sum.

    `values` are positive and fall. `steps` comes in as the allowance and goes out as what is left of it, negative when overdrawn.
    """

    __slots__ = ("_groups", "_limit", "_rest", "_values", "chosen", "steps", "value")

    def __init__(self, values: Sequence[int], groups: Sequence[str], limit: int, steps: int) -> None:
        self._values = values[:MAX_SEARCHED]
        self._groups = groups[:MAX_SEARCHED]
        self._limit = limit
        self._rest = _rest(self._values, self._groups)
        self.steps = max(steps, MAX_SEARCHED)
        self.value = 0
        self.chosen: tuple[int, ...] = ()
        self._descend(0, 0, (), frozenset())

    def _descend(self, index: int, value: int, taken: tuple[int, ...], groups: frozenset[str]) -> None:
        if value > self.value or (value == self.value and len(taken) < len(self.chosen)):
            self.value, self.chosen = value, taken
        self.steps -= 1
        if self.steps < 0 or self._hopeless(index, value, len(taken)):
            return
        group = self._groups[index]
        if group not in groups and value + self._values[index] <= self._limit:
            self._descend(index + 1, value + self._values[index], (*taken, index), groups | {group})
        self._descend(index + 1, value, taken, groups)

    def _hopeless(self, index: int, value: int, taken: int) -> bool:
        """Whether nothing from here on can be better: too little is left, or the limit is reached already with as few."""
        if index == len(self._values) or value + self._rest[index] < self.value:
            return True
        if self.value < self._limit:
            return False
        fewest_more = -((value - self._limit) // self._values[index])
        return taken + fewest_more >= len(self.chosen)


def _rest(values: Sequence[int], groups: Sequence[str]) -> list[int]:
    """By index, what the best of each group from there on would add."""
    best: dict[str, int] = {}
    rest = [0] * (len(values) + 1)
    for index in range(len(values) - 1, -1, -1):
        rest[index] = rest[index + 1] + values[index] - best.get(groups[index], 0)
        best[groups[index]] = values[index]
    return rest
