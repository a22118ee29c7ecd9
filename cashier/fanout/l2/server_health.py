"""Standing: whether something that we can do without is worth asking now. Pure: times are handed in. The looking for it is elsewhere."""

from __future__ import annotations

# One slow answer is chance, and a pause of our own looks the same.
SLOW_IN_A_ROW = 3


class ServerHealth:
    """Lost after one failure, or after three slow answers in a row; good again when it was found.

    Slow answers count as in a row where each was asked for after the one before had come: a hundred calls held up together are one.
    """

    __slots__ = ("_slow", "_slow_s", "good")

    def __init__(self) -> None:
        self.good = False
        self._slow = 0
        self._slow_s = float("-inf")

    def __repr__(self) -> str:
        return f"<Standing {'good' if self.good else 'lost'} slow={self._slow}>"

    def quick(self) -> None:
        self._slow = 0

    def slow(self, began_s: float, ended_s: float) -> bool:
        """Whether this is what loses it."""
        if began_s >= self._slow_s:
            self._slow += 1
            self._slow_s = ended_s
        return self._slow >= SLOW_IN_A_ROW and self.failed()

    def failed(self) -> bool:
        """Whether this is what loses it: False where it was lost already."""
        was_good, self.good = self.good, False
        return was_good

    def found(self) -> None:
        self.good = True
        self._slow = 0
