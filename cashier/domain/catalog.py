"""Catalog: the kinds on offer, their terms and their texts.

The shape of `methods.toml`; that of the texts is in `wording`. Loaded and checked once at start:
every kind has its terms, every locale all its texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated

from msgspec import Meta, Struct, field

from cashier.domain.facts import Bps
from cashier.domain.kinds import KINDS, Listing
from cashier.domain.locale_match import nearest
from cashier.domain.order import Product, Terminal
from cashier.domain.pay_method import Kind, NextAction
from cashier.domain.wording import TITLE_PARTS, Text, Texts, Wording, unrenderable

# Actions that the payer completes elsewhere, by a page, a code or an account that has an end.
ACTS_ELSEWHERE = frozenset(
    {
        NextAction.REDIRECT,
        NextAction.DISPLAY_QR,
        NextAction.DISPLAY_CODE,
        NextAction.DISPLAY_VA,
        NextAction.SDK,
    }
)


class Terms(Struct, frozen=True, forbid_unknown_fields=True):
    """The terms of one kind of payment method.

    `name`, `title`: by locale, in place of those in the locale's texts. A filter that is None
    (`products`, `terminals`, …) allows all. `fee_bps`: the payer's fee where the channel names
    none. `position`: breaks ties in the ranking. `expires_in_s`: the lifetime of the code or page
    that the payer uses. `needs_s`: the least time that a payer needs; with less left of the order,
    the kind is unavailable. `combine`: a card may complete an account that is too low.
    """

    position: int
    icon: str
    next_action: NextAction
    name: dict[str, Text] = field(default_factory=dict)
    title: dict[str, Text] = field(default_factory=dict)
    offered: bool = True
    products: frozenset[Product] | None = None
    terminals: frozenset[Terminal] | None = None
    countries: frozenset[str] | None = None
    currencies: frozenset[str] | None = None
    kyc_level: Annotated[int, Meta(ge=0)] = 0
    fee_bps: Bps = 0
    terminal_actions: dict[Terminal, NextAction] = field(default_factory=dict)
    required_fields: tuple[str, ...] = ()
    expires_in_s: Annotated[int, Meta(ge=1)] | None = None
    needs_s: Annotated[int, Meta(ge=1)] = 1
    combine: bool = True


Methods = dict[Kind, Terms]


class Catalog(Struct, frozen=True):
    methods: Methods
    texts: Texts
    default_locale: str

    def locale(self, wanted: str | None) -> str:
        """The same locale, else the nearest of its language, else the default."""
        if wanted is None or wanted in self.texts:
            return wanted or self.default_locale
        return nearest(wanted, self.texts) or self.default_locale

    def first_known(self, wanted: Iterable[str]) -> str:
        """The nearest of the first one whose language is known, else the default."""
        found = (locale for each in wanted if (locale := nearest(each, self.texts)) is not None)
        return next(found, self.default_locale)

    def wording(self, wanted: str | None) -> Wording:
        return self.texts[self.locale(wanted)]

    def name(self, kind: Kind, locale: str) -> str:
        return self.methods[kind].name.get(locale) or self.texts[locale].kinds[kind].name

    def title(self, kind: Kind, locale: str) -> str:
        """The template for one method of the kind."""
        return self.methods[kind].title.get(locale) or self.texts[locale].kinds[kind].title

    def faults(self) -> list[str]:
        """One sentence per text or table that is missing or cannot be rendered.

        Empty if there is none.
        """
        found = [f"methods: {kind} has no table" for kind in Kind if kind not in self.methods]
        if self.default_locale not in self.texts:
            found.append(
                f"texts: there is no [{self.default_locale}], which is the default locale; "
                f"[consult] locale may be {', '.join(sorted(self.texts))}"
            )
        for locale, wording in self.texts.items():
            named = {kind for kind, terms in self.methods.items() if locale in terms.name and locale in terms.title}
            found += wording.faults(locale, named)
        found += [
            f"methods: {kind}.fee_bps cannot be charged: the fee is on what a channel carries, and the kind needs none"
            for kind, terms in self.methods.items()
            if terms.fee_bps and not KINDS[kind].needs_channel
        ]
        found += [
            f"methods: {kind}.fee_bps cannot be charged: each instalment term of a channel has its own fee_bps"
            for kind, terms in self.methods.items()
            if terms.fee_bps and KINDS[kind].listing is Listing.TERM_PER_PROVIDER
        ]
        found += [
            f"methods: {kind}.combine = false means nothing: a card completes accounts only, so set it for BALANCE"
            for kind, terms in self.methods.items()
            if not terms.combine and KINDS[kind].listing is not Listing.PER_ACCOUNT
        ]
        for kind, terms in self.methods.items():
            found += _lifetime_faults(kind, terms)
            found += unrenderable(f"methods: {kind}.title", terms.title, *TITLE_PARTS)
            found += unrenderable(f"methods: {kind}", {"icon": terms.icon}, "provider")
        return found


def _lifetime_faults(kind: Kind, terms: Terms) -> Iterator[str]:
    acts_elsewhere = ACTS_ELSEWHERE.intersection((terms.next_action, *terms.terminal_actions.values()))
    if terms.expires_in_s is None and acts_elsewhere:
        yield f"methods: {kind}.expires_in_s is missing: what {min(acts_elsewhere)} shows needs an end"
    if terms.expires_in_s is not None and terms.expires_in_s < terms.needs_s:
        yield (
            f"methods: {kind}.needs_s = {terms.needs_s} is more than expires_in_s = {terms.expires_in_s}:"
            " no payer would have enough time; lower needs_s or raise expires_in_s"
        )
