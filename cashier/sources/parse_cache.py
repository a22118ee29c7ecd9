"""Parse cache: an answer that equals the previous one byte for byte is not decoded again.

For sources that all consultations ask for the same few subjects, which change rarely: merchants,
and the channels of a country, the largest answer. The source is asked as usual, and all bytes
are compared; only decoding and preparation are saved.
"""

from __future__ import annotations

from typing import Any

from cashier.sources.source import Inputs, Source

# A few kilobytes each.
MAX_ENTRIES = 256


class ParseCache:
    """A `ContractParser` that remembers the last answer per target and evicts the oldest target.

    Facts are immutable and can be shared.
    """

    __slots__ = ("_last", "_source", "request")

    def __init__(self, source: Source) -> None:
        self._source = source
        self._last: dict[str, tuple[bytes, Any]] = {}
        self.request = source.request

    def parse(self, status: int, body: bytes, inputs: Inputs) -> Any:
        """See `Source.parse`."""
        if status != 200:
            return self._source.parse(status, body, inputs)
        target = self._source.target(inputs)
        last = self._last.get(target)
        if last is not None and last[0] == body:
            return last[1]
        fact = self._source.parse(status, body, inputs)
        if last is None and len(self._last) >= MAX_ENTRIES:
            del self._last[next(iter(self._last))]
        self._last[target] = (body, fact)
        return fact

    def __repr__(self) -> str:
        return f"<ParseCache {self._source.name}: {len(self._last)} answers>"
