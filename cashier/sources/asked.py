"""The inputs of an adapter: those that its source needs, and no others.

An answer is cached by these inputs. An adapter that reads another one, such as the merchant of a
payer's cards, would serve the answer for one merchant to the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


class UnneededInput(KeyError):
    """The adapter read an input that is not among the needs of its source."""


class Asked(Mapping[str, Any]):
    """Read-only: `order_id`, `user_id`, `merchant_id`, `currency`, `country` are texts, `amount` is
    a `Money`.

    Also `get` raises `UnneededInput`: an input that is never there needs no default.
    """

    __slots__ = ("_inputs", "_source")

    def __init__(self, source: str, inputs: Mapping[str, Any], needs: tuple[str, ...]) -> None:
        self._source = source
        self._inputs = {name: inputs[name] for name in needs}

    def __getitem__(self, name: str) -> Any:
        try:
            return self._inputs[name]
        except (KeyError, TypeError):
            # A name that is no field name may be a payer's data.
            is_field = isinstance(name, str) and name.isascii() and name.isidentifier() and len(name) <= 40
            shown = repr(name) if is_field else "another name"
            raise UnneededInput(f"{shown}, but {self._source} has only {', '.join(self._inputs)}") from None

    def get(self, name: str, default: Any = None) -> Any:
        return self[name]

    def __contains__(self, name: object) -> bool:
        return name in self._inputs

    def __iter__(self) -> Iterator[str]:
        return iter(self._inputs)

    def __len__(self) -> int:
        return len(self._inputs)

    def __repr__(self) -> str:
        """Omit the values: they name the payer."""
        return f"<Asked {self._source}: {', '.join(self._inputs)}>"
