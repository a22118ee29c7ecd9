"""Why methods are withheld, for the engineer who integrates the pages. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from cashier.consultation.answer import Consultation
from cashier.domain.pan import looks_issued
from cashier.domain.pay_method import Availability, Option, PayMethod
from cashier.pages.views import CheckoutView, DeveloperView, SourceLine, WithheldMethod


def developer_view(consultation: Consultation, checkout: CheckoutView, request_id: str) -> DeveloperView:
    """`checkout`: the view of this consultation, which has no row for what it cannot ask for."""
    shown = {row.value for row in (*checkout.recommended, *checkout.others, *checkout.refused)}
    withheld = [each for method in consultation.methods for each in _withheld(method, method.method_id in shown)]
    if consultation.blocked is not None:
        withheld.insert(0, WithheldMethod("every method", "BLOCKED", consultation.blocked.code))
    sources = (SourceLine(each.name, each.status, f"{each.elapsed_ms:.0f} ms") for each in consultation.sources)
    return DeveloperView(request_id=request_id, withheld=tuple(withheld), sources=tuple(sources))


def _withheld(method: PayMethod, has_row: bool) -> Iterator[WithheldMethod]:
    if not has_row:
        is_card = looks_issued(method.method_id)
        needs = "another id, not a card number's" if is_card else ", ".join(method.required_fields)
        yield WithheldMethod(method.method_id, "NOT_SHOWN", f"needs {needs}")
    yield from _refused(method.method_id, method)
    for option in method.options:
        if option.reason != method.reason:
            yield from _refused(f"{method.method_id}/{option.option_id}", option)


def _refused(name: str, offered: PayMethod | Option) -> Iterator[WithheldMethod]:
    if offered.availability is not Availability.AVAILABLE and offered.reason is not None:
        yield WithheldMethod(name, offered.availability, offered.reason.code, offered.reason.source)
