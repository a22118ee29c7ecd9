"""Words: what codes are called, for people, in their locale. Codes are for machines; neither is ever parsed for the other."""

from __future__ import annotations

from functools import lru_cache

from cashier.domain.case import ConsultationCase
from cashier.domain.pay_method import Option, Reason
from cashier.domain.quote import Quote
from cashier.domain.refusal import AVAILABLE, STANDING, Refusal, availability


def reason(case: ConsultationCase, refusal: Refusal) -> Reason:
    text, remedy = case.wording.reasons[refusal.code], refusal.remedy
    if refusal.amount is None and (remedy is None or remedy.until is None):
        return _plain(text, refusal)
    until = "" if remedy is None or remedy.until is None else f"{remedy.until:%Y-%m-%d %H:%M %Z}"
    amount = "" if refusal.amount is None else str(refusal.amount)
    return _told(text, refusal, amount, until)


@lru_cache(maxsize=1024)
def _plain(text: str, refusal: Refusal) -> Reason:
    """With neither an amount nor an instant in it there are few, and they come again and again; nothing of a payer's is in them."""
    return _told(text, refusal, "", "")


def _told(text: str, refusal: Refusal, amount: str, until: str) -> Reason:
    message = text.format(amount=amount, until=until, source=refusal.source or "")
    return Reason(
        refusal.code, message.strip(), refusal.source, refusal.remedy
    )  # a text may end in an `until` that nobody told


def option(case: ConsultationCase, option_id: str, title: str, quote: Quote) -> Option:
    refusal = quote.refusal
    if refusal is None:
        return Option(option_id, title, AVAILABLE, None, quote.amounts)
    return Option(option_id, title, availability(refusal), reason(case, refusal), quote.amounts)


def ordered(options: list[Option]) -> tuple[Option, ...]:
    """Sort the second level (banks, store chains, cards): usable ones first, then by title."""
    options.sort(key=_usable_first)
    return tuple(options)


def _usable_first(option: Option) -> tuple[int, str, str]:
    return (STANDING[option.availability], option.title, option.option_id)
