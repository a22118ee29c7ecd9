"""Branch and bound for a knapsack with at most one item per group.

Searches the most valuable items first. Exact for a dozen groups and usually for far more; beyond
the step limit the best set so far is the result.
"""

from __future__ import annotations

from collections.abc import Sequence

# One or two milliseconds.
MAX_STEPS = 2_000
# Only this number of the most valuable items is searched. One straight descent takes as many steps,
# and is always granted.
MAX_SEARCHED = 64


class KnapsackSearch:
    """Search on construction; the result is in the attributes.

    `values` are positive and sorted, highest first. `chosen` holds indices: of sets with equal
    values the smallest, then the one with the earliest indices. `value` is the sum of the chosen
    values. `steps` goes in as the allowance and comes out as the rest, negative if overdrawn.
    """

    __slots__ = ("_groups", "_limit", "_rest", "_values", "chosen", "steps", "value")

    def __init__(self, values: Sequence[int], groups: Sequence[str], limit: int, steps: int) -> None:
        self._values = values[:MAX_SEARCHED]
        self._groups = groups[:MAX_SEARCHED]
        self._limit = limit
        self._rest = _achievable_from(self._values, self._groups)
        self.steps = max(steps, MAX_SEARCHED)
        self.value = 0
        self.chosen: tuple[int, ...] = ()
        self._descend(0, 0, (), frozenset())

    def _descend(self, index: int, value: int, taken: tuple[int, ...], groups: frozenset[str]) -> None:
        if value > self.value or (value == self.value and len(taken) < len(self.chosen)):
            self.value, self.chosen = value, taken
        self.steps -= 1
        if self.steps < 0 or self._cannot_improve(index, value, len(taken)):
            return
        group = self._groups[index]
        if group not in groups and value + self._values[index] <= self._limit:
            self._descend(index + 1, value + self._values[index], (*taken, index), groups | {group})
        self._descend(index + 1, value, taken, groups)

    def _cannot_improve(self, index: int, value: int, taken_count: int) -> bool:
        """True if too little value is left, or the limit is already reached with as few items."""
        if index == len(self._values) or value + self._rest[index] < self.value:
            return True
        if self.value < self._limit:
            return False
        fewest_more = -((value - self._limit) // self._values[index])
        return taken_count + fewest_more >= len(self.chosen)


def _achievable_from(values: Sequence[int], groups: Sequence[str]) -> list[int]:
    """By index: the sum of the best value of each group from that index on."""
    best: dict[str, int] = {}
    rest = [0] * (len(values) + 1)
    for index in range(len(values) - 1, -1, -1):
        rest[index] = rest[index + 1] + values[index] - best.get(groups[index], 0)
        best[groups[index]] = values[index]
    return rest
