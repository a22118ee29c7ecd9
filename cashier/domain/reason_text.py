"""Texts of reasons and options, in the payer's locale. Codes are for machines, texts for people."""

from __future__ import annotations

from functools import lru_cache

from cashier.domain.consultation_case import ConsultationCase
from cashier.domain.local_format import format_amount, format_time
from cashier.domain.pay_method import InstalmentTerms, Option, Reason
from cashier.domain.quote import Quote
from cashier.domain.refusal import AVAILABILITY_RANK, AVAILABLE, Refusal, availability
from cashier.domain.text_form import Form
from cashier.domain.wording import text_of


def reason(case: ConsultationCase, refusal: Refusal) -> Reason:
    forms, amount, remedy = case.wording.reasons[refusal.code], refusal.amount, refusal.remedy
    until = None if remedy is None else remedy.until
    if amount is None and until is None:
        return _cached(forms if type(forms) is str else text_of(forms, refusal.form), refusal)
    form, formats = refusal.form, case.wording.formats
    amount_text = until_text = ""
    if until is not None:
        form, until_text = _UNTIL, format_time(until, case.now, case.facts.order.country, formats)
    if amount is not None:
        amount_text = format_amount(amount, formats)
        if not amount.value:
            form = _NOTHING_LEFT
    return _render(text_of(forms, form), refusal, amount_text, until_text)


# Enum members for the hot path: before Python 3.12 each look-up on an enum class costs a call.
_UNTIL, _NOTHING_LEFT = Form.UNTIL, Form.NOTHING_LEFT


@lru_cache(maxsize=1024)
def _cached(text: str, refusal: Refusal) -> Reason:
    """Without an amount or a time, reasons are few, recur, and hold nothing of a payer."""
    return _render(text, refusal, "", "")


def _render(text: str, refusal: Refusal, amount: str, until: str) -> Reason:
    message = text.format(amount=amount, until=until, source=refusal.source or "")
    # An operator's text may end in an `{until}` that is unknown.
    return Reason(refusal.code, message.strip(), refusal.source, refusal.remedy)


def option(
    case: ConsultationCase, option_id: str, title: str, quote: Quote, terms: InstalmentTerms | None = None
) -> Option:
    refusal = quote.refusal
    if refusal is None:
        return Option(option_id, title, AVAILABLE, None, quote.amounts, terms)
    return Option(option_id, title, availability(refusal), reason(case, refusal), quote.amounts, terms)


def sorted_options(options: list[Option]) -> tuple[Option, ...]:
    """Sort in place: usable first, then by title."""
    options.sort(key=_usable_first)
    return tuple(options)


def _usable_first(option: Option) -> tuple[int, str, str]:
    return (AVAILABILITY_RANK[option.availability], option.title, option.option_id)
