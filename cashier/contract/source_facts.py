"""What the plan says about each source: its class, what it is asked, and by what it is cached."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct

from cashier.consultation.source_table import SOURCE_SPECS, SourceSpec
from cashier.contract.operations import INPUTS, SOURCES
from cashier.fanout.cache_lifetime import CacheSettings

PAYMENT = "payment"


class SourceFacts(Struct, frozen=True):
    """`asked`: the inputs of an adapter or function. `cached_by`: what a kept answer is found by.

    `cache`: None for a payment service, of which nothing is kept.
    """

    importance: str
    asked: tuple[str, ...] = ()
    cached_by: tuple[str, ...] = ()
    cache: CacheSettings | None = None


def _facts(spec: SourceSpec) -> SourceFacts:
    key = spec.key(INPUTS)
    parts = (key,) if isinstance(key, str) else key
    return SourceFacts(spec.importance.value, spec.needs, tuple(part.strip("{}") for part in parts), spec.cache)


SOURCE_FACTS: Mapping[str, SourceFacts] = {
    **{source: SourceFacts(PAYMENT) for source in SOURCES},
    **{spec.source.name: _facts(spec) for spec in SOURCE_SPECS},
}


def asked_table(sources: Iterable[str] = SOURCES) -> str:
    """As Markdown: one row for each of the sources that belongs to a consultation."""
    rows = [
        "| source | `asked` and arguments of a function | cached by | kept by default |",
        "|---|---|---|---|",
    ]
    for name in sources:
        facts = SOURCE_FACTS[name]
        if facts.cache is not None:
            rows.append(f"| `{name}` | {_names(facts.asked)} | {_names(facts.cached_by)} | {_kept(facts.cache)} |")
    return "\n".join(rows)


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _kept(cache: CacheSettings) -> str:
    if not cache.fresh_s:
        return "never"
    return f"new for {cache.fresh_s:g} s, stale for {cache.stale_s:g} s, instead of an error for {cache.error_s:g} s"
