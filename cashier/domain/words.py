"""Words: what codes are called, for people, in their locale. Codes are for machines; neither is ever parsed for the other."""

from __future__ import annotations

from cashier.domain.case import Case
from cashier.domain.method import Option, Reason
from cashier.domain.quote import Quote
from cashier.domain.refusal import Refusal, availability


def reason(case: Case, refusal: Refusal) -> Reason:
    remedy = refusal.remedy
    until = "" if remedy is None or remedy.until is None else f"{remedy.until:%Y-%m-%d %H:%M %Z}"
    amount = "" if refusal.amount is None else str(refusal.amount)
    message = case.wording.reasons[refusal.code].format(amount=amount, until=until, source=refusal.source or "")
    return Reason(refusal.code, message.strip(), refusal.source, remedy)  # a text may end in an `until` that nobody told


def option(case: Case, option_id: str, title: str, quote: Quote) -> Option:
    refusal = quote.refusal
    return Option(option_id, title, availability(refusal), None if refusal is None else reason(case, refusal), quote.amounts)
