"""The headers of an answer, for adapters. Contract services need none, so they are not kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping


class ResponseHeaders(Mapping[str, str]):
    """Read-only; names match in any case. Values of a repeated header are joined by `, `."""

    __slots__ = ("_values",)

    def __init__(self, headers: Mapping[str, str] | Iterable[tuple[str, str]] = ()) -> None:
        self._values: dict[str, str] = {}
        for name, value in headers.items() if isinstance(headers, Mapping) else headers:
            key = name.lower()
            self._values[key] = f"{self._values[key]}, {value}" if key in self._values else value

    def __getitem__(self, name: str) -> str:
        try:
            return self._values[name.lower()]
        except KeyError:
            raise KeyError(name) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        """Omit the values: they may hold tokens."""
        return f"<ResponseHeaders {', '.join(self)}>"


NO_HEADERS = ResponseHeaders()
