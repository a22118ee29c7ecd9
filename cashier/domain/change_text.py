"""Texts of the changes of an offer, in the payer's locale."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import structs

from cashier.domain.local_format import format_amount, format_percentage
from cashier.domain.money import Money
from cashier.domain.offer_diff import Change, ChangeType
from cashier.domain.order import Blocked
from cashier.domain.pay_method import PayMethod, Reason, ReasonCode
from cashier.domain.wording import ChangeText, Wording, text_of


def with_messages(
    changes: Sequence[Change], methods: Sequence[PayMethod], chosen_method_id: str, wording: Wording
) -> tuple[Change, ...]:
    """The changes with their messages. `methods`: of the fresh consultation, whose reasons hold."""
    return tuple(
        structs.replace(change, message=_message(change, methods, chosen_method_id, wording)) for change in changes
    )


def _message(change: Change, methods: Sequence[PayMethod], chosen_method_id: str, wording: Wording) -> str | None:
    if change.what is ChangeType.ORDER_STATE:
        return wording.blocked[Blocked(str(change.after))]
    if change.reason is not None:
        return _reason_message(change.subject, change.reason, methods, chosen_method_id, wording)
    text = wording.changes.get(_TEXTS.get(change.what) or _price_text(change))
    if text is None:
        return None
    before, after = (_value(value, change, wording) for value in (change.before, change.after))
    return text.format(before=before, after=after)


_TEXTS = {ChangeType.PROMOTION_GONE: ChangeText.PROMOTION_GONE, ChangeType.BALANCE_SHORT: ChangeText.BALANCE}
_BY_SUBJECT = {
    None: ChangeText.PRICE,
    "order": ChangeText.ORDER_AMOUNT,
    "fee": ChangeText.FEE,
    "count": ChangeText.INSTALMENTS,
    "apr_bps": ChangeText.ANNUAL_RATE,
}


def _price_text(change: Change) -> ChangeText:
    text = _BY_SUBJECT.get(change.subject, ChangeText.PART)
    return ChangeText.NEW_PRICE if text is ChangeText.PRICE and change.before is None else text


def _reason_message(
    subject: str | None, code: ReasonCode, methods: Sequence[PayMethod], chosen_method_id: str, wording: Wording
) -> str:
    """As the fresh consultation gives it for this method or option; the general text otherwise."""
    found = (reason for reason in _reasons(subject, methods, chosen_method_id) if reason.code is code)
    reason = next(found, None)
    return text_of(wording.reasons[code]).format(amount="", until="", source="") if reason is None else reason.message


def _reasons(subject: str | None, methods: Sequence[PayMethod], chosen_method_id: str) -> Iterator[Reason]:
    for method in methods:
        if method.method_id == subject and method.reason is not None:
            yield method.reason
        if method.method_id == chosen_method_id:
            yield from (option.reason for option in method.options if option.option_id == subject and option.reason)


def _value(value: Money | str | None, change: Change, wording: Wording) -> str:
    """Of a price: nothing is 0 in the currency of the other side."""
    if isinstance(value, str):
        return format_percentage(int(value), wording.formats) if change.subject == "apr_bps" else value
    for other in (value, change.before, change.after):
        if isinstance(other, Money):
            return format_amount(other if value is not None else Money(other.currency, 0), wording.formats)
    return ""
