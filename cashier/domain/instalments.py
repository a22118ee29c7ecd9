"""Instalments (分期): a method per provider, whose options are its terms, fewest instalments first.

Each term has its own fee, and so its own price. Limits are tested on the whole payable amount: that
is what uses up the payer's credit. A channel without terms offers nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter

from cashier.domain.kind_assessment import KindAssessment
from cashier.domain.local_format import format_amount
from cashier.domain.money import Money, instalments
from cashier.domain.offer import Offer, quote
from cashier.domain.offered_kinds import OfferedChannel, OfferedProvider
from cashier.domain.pay_method import Amounts, InstalmentTerms, Option, ReasonCode
from cashier.domain.quote import Quote, best_quote
from cashier.domain.reason_text import option
from cashier.domain.refusal import Refusal


def offers_by_term(assessment: KindAssessment) -> Iterator[Offer]:
    """A method per provider, with the figures of its cheapest term.

    A term without a price is no option: there is nothing to show to the payer. Nor has a refused
    kind any.
    """
    refusal, offered = assessment.refusal, assessment.offered
    for provider in offered.providers.values():
        best = Quote(refusal)
        options: tuple[Option, ...] = ()
        if refusal is None:
            quotes = _best_by_term(assessment, provider)
            best = best_quote(quotes)
            options = tuple([_option(assessment, found, found.amounts) for found in quotes if found.amounts])
        yield Offer(provider.method_id, offered, provider.title, provider.icon, provider.instrument, best, options)


def _best_by_term(assessment: KindAssessment, provider: OfferedProvider) -> list[Quote]:
    """The best quote of each term over the provider's channels, fewest instalments first."""
    best: dict[str, Quote] = {}
    for offered in provider.channels:
        term_id, found = offered.term.term_id if offered.term else "", _quote(assessment, provider.provider, offered)
        known = best.get(term_id)
        best[term_id] = found if known is None else best_quote([known, found])
    return sorted(best.values(), key=_fewest_first)


_fewest_first = attrgetter("term.count", "term.term_id")


def term_quotes(assessment: KindAssessment, provider: OfferedProvider, term_id: str) -> list[Quote]:
    """The quotes of the provider's channels for one term."""
    return [
        _quote(assessment, provider.provider, offered)
        for offered in provider.channels
        if offered.term is not None and offered.term.term_id == term_id
    ]


def _quote(assessment: KindAssessment, provider: str, offered: OfferedChannel) -> Quote:
    """No instalment is 0, unless nothing at all is to pay."""
    found, term = quote(assessment, offered, provider, None, None), offered.term
    refusal = found.refusal
    if term is not None and refusal is None and found.amounts is not None:
        payable = found.amounts.payable
        if 0 < payable.value < term.count:
            refusal = Refusal(ReasonCode.BELOW_MIN, "channel", None, Money(payable.currency, term.count))
    return Quote(refusal, found.amounts, found.limits, found.channel, (), term)


def _option(assessment: KindAssessment, found: Quote, amounts: Amounts) -> Option:
    term, payable, wording = found.term, amounts.payable, assessment.case.wording
    assert term is not None  # noqa: S101  quotes of terms only
    each, last = instalments(payable.value, term.count)
    terms = InstalmentTerms(term.count, Money(payable.currency, each), Money(payable.currency, last), term.apr_bps)
    title = wording.instalments.format(count=term.count, amount=format_amount(terms.per_instalment, wording.formats))
    return option(assessment.case, term.term_id, title, found, terms)
