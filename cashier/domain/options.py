"""The second level: which bank, which chain of stores, which card completes the balance."""

from __future__ import annotations

from cashier.domain.case import Case
from cashier.domain.method import Option
from cashier.domain.offer import Quote, best_quote
from cashier.domain.refusal import STANDING
from cashier.domain.words import option


def by_provider(case: Case, quotes: dict[str, Quote]) -> tuple[tuple[Option, ...], Quote]:
    """An option per provider, and the quote of the best: what the way as a whole shows. `quotes` by provider, one at least."""
    options = [
        option(case, provider, quote.channel.provider_name if quote.channel else provider, quote) for provider, quote in quotes.items()
    ]
    return ordered(options), best_quote(list(quotes.values()))


def ordered(options: list[Option]) -> tuple[Option, ...]:
    """Usable ones first, then by name."""
    options.sort(key=_usable_first)
    return tuple(options)


def _usable_first(option: Option) -> tuple[int, str, str]:
    return (STANDING[option.availability], option.title, option.option_id)
