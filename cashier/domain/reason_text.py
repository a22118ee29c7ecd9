"""Texts of reasons and options, in the payer's locale. Codes are for machines, texts for people."""

from __future__ import annotations

from functools import lru_cache

from cashier.domain.consultation_case import ConsultationCase
from cashier.domain.pay_method import Option, Reason
from cashier.domain.quote import Quote
from cashier.domain.refusal import AVAILABILITY_RANK, AVAILABLE, Refusal, availability


def reason(case: ConsultationCase, refusal: Refusal) -> Reason:
    text, remedy = case.wording.reasons[refusal.code], refusal.remedy
    if refusal.amount is None and (remedy is None or remedy.until is None):
        return _cached(text, refusal)
    until = "" if remedy is None or remedy.until is None else f"{remedy.until:%Y-%m-%d %H:%M %Z}"
    amount = "" if refusal.amount is None else str(refusal.amount)
    return _render(text, refusal, amount, until)


@lru_cache(maxsize=1024)
def _cached(text: str, refusal: Refusal) -> Reason:
    """Without an amount or a time, reasons are few, recur, and hold nothing of a payer."""
    return _render(text, refusal, "", "")


def _render(text: str, refusal: Refusal, amount: str, until: str) -> Reason:
    message = text.format(amount=amount, until=until, source=refusal.source or "")
    # A text may end in an `{until}` that is unknown.
    return Reason(refusal.code, message.strip(), refusal.source, refusal.remedy)


def option(case: ConsultationCase, option_id: str, title: str, quote: Quote) -> Option:
    refusal = quote.refusal
    if refusal is None:
        return Option(option_id, title, AVAILABLE, None, quote.amounts)
    return Option(option_id, title, availability(refusal), reason(case, refusal), quote.amounts)


def sorted_options(options: list[Option]) -> tuple[Option, ...]:
    """Sort in place: usable first, then by title."""
    options.sort(key=_usable_first)
    return tuple(options)


def _usable_first(option: Option) -> tuple[int, str, str]:
    return (AVAILABILITY_RANK[option.availability], option.title, option.option_id)
