"""The second level: which bank, which chain of stores, which card completes the balance."""

from __future__ import annotations

from cashier.domain.method import Option
from cashier.domain.refusal import STANDING


def ordered(options: list[Option]) -> tuple[Option, ...]:
    """Usable ones first, then by name."""
    options.sort(key=_usable_first)
    return tuple(options)


def _usable_first(option: Option) -> tuple[int, str, str]:
    return (STANDING[option.availability], option.title, option.option_id)
