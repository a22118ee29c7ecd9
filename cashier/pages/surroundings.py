"""What surrounds the views: order, languages, where to look again; and the forms of a payment."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from urllib.parse import urlencode

from msgspec.structs import replace

from cashier.consultation.answer import Consultation
from cashier.domain.order import epoch_s
from cashier.domain.pay_method import Kind, RemedyType
from cashier.domain.payment_resource import FoundPayment, Payment
from cashier.domain.payment_state import FINAL, PaymentStatus
from cashier.pages.browser_call import BrowserCall
from cashier.pages.cards import card_for, takes_card
from cashier.pages.checkout_view import CheckoutAddresses, Chosen, checkout_view, missing_sources, promotion_fields
from cashier.pages.developer_view import developer_view
from cashier.pages.forms import form_fields
from cashier.pages.page_call import PageCall
from cashier.pages.payment_view import ChallengeNotice, PaymentForms, deadline, payment_view
from cashier.pages.qr import QrCodes
from cashier.pages.views import (
    ActionView,
    ChallengeView,
    CheckoutView,
    Form,
    Language,
    Link,
    Notice,
    NoticeTone,
    OrderView,
    PageView,
    ResultView,
)
from cashier.tokens.page_session import SessionClaims, ShownOrder

# Each in that language itself.
_LANGUAGES = {
    "zh-CN": "简体中文",
    "zh-TW": "繁體中文",
    "en": "English",
    "id": "Bahasa Indonesia",
    "ja": "日本語",
    "ar": "العربية",
}
# Of an open page: the sources that it is without, separated by commas.
MISSING_NAME = "missing"
# In a cookie.
_MOST_TITLE, _MOST_NAME = 128, 64
# Without JavaScript: how often a page that may change is loaded again.
_SHORTEST_REFRESH_S, _LONGEST_REFRESH_S = 3, 30


def page_view(
    call: BrowserCall,
    address: str,
    *,
    refresh_after_s: int | None = None,
    live: str | None = None,
) -> PageView:
    """`address`: of this page, which shows the present state."""
    # A till and a printed code are no payer's, but somebody reads them.
    payer = call if isinstance(call, PageCall) else None
    session = payer.session_or_none if payer is not None else None
    joint = "&" if "?" in address else "?"
    return PageView(
        locale=call.locale,
        prefix=call.prefix,
        now=call.now.isoformat(timespec="seconds"),
        order=_order_view(call, session) if session is not None else None,
        back=session.return_url if session is not None else None,
        refresh=address,
        refresh_after_s=refresh_after_s,
        live=live,
        languages=tuple(
            Language(locale, name, f"{address}{joint}locale={locale}")
            for locale, name in _LANGUAGES.items()
            if (payer is None or session is not None) and locale in call.cashier.catalog.texts
        ),
    )


def checkout_page(
    call: PageCall,
    session: SessionClaims,
    consultation: Consultation,
    attempt: str,
    chosen: Chosen,
    notice: Notice | None = None,
    resume: Link | None = None,
) -> tuple[PageView, CheckoutView]:
    """`attempt`: the payment that ended before; empty for the first. See `form_token`."""
    addresses, labels = call.addresses, call.writing.labels
    parameters = promotion_fields(chosen.promotions)
    if card_for(session, attempt) is not None:
        chosen = replace(chosen, has_card=True)
        if chosen.method_id is not None and takes_card(chosen.method_id):
            notice = notice or Notice(NoticeTone.INFO, str(labels.card_entered))
            parameters += (("method", chosen.method_id),)
    query = urlencode(parameters)
    here = f"{addresses.page}?{query}" if query else addresses.page
    missing = (MISSING_NAME, ",".join(sorted(missing_sources(consultation))))
    links = call.settings.links
    remedies = {
        RemedyType.TOP_UP: links.top_up,
        RemedyType.BIND_CARD: links.bind_card,
        RemedyType.UPDATE_CARD: links.update_card,
    }
    view = checkout_view(
        consultation,
        call.writing,
        CheckoutAddresses(
            addresses.page,
            here,
            addresses.pay,
            addresses.methods,
            {key: url for key, url in remedies.items() if url},
            addresses.card if call.vault else None,
        ),
        form_fields(session, attempt),
        chosen,
        notice,
        resume,
    )
    if session.user_id is None:
        view = replace(view, checking_coupons=False)  # a walk-in has none
    if call.is_developer:
        view = replace(view, developer=developer_view(consultation, view, call.request_id))
    page = page_view(
        call,
        here,
        refresh_after_s=_LONGEST_REFRESH_S if view.blocked and resume else None,
        live=None if view.blocked else f"{addresses.methods}?{urlencode((*parameters, missing))}",
    )
    return page, view


async def payment_page(
    call: PageCall,
    session: SessionClaims,
    payment: Payment,
    kind: Kind,
    qr_codes: QrCodes,
    notice: ChallengeNotice,
) -> tuple[PageView, ChallengeView | ActionView | ResultView]:
    payment = _in_language(call, payment, kind)
    view = await payment_view(payment, kind, call.writing, _payment_forms(call, session, payment), qr_codes, notice)
    paid_by = session.paid_by
    if paid_by is not None and paid_by.payment_id == payment.payment_id:
        view = replace(view, payment=replace(view.payment, method=paid_by.title))
    final = payment.status in FINAL
    page = page_view(
        call,
        call.addresses.payment,
        # A reload would lose what the payer is typing.
        refresh_after_s=None if final or isinstance(view, ChallengeView) else refresh_s(payment),
        live=None if final else call.addresses.events,
    )
    return page, view


def refresh_s(payment: Payment | FoundPayment) -> int:
    poll_s = math.ceil((payment.poll_after_ms or 0) / 1000)
    return min(max(poll_s, _SHORTEST_REFRESH_S), _LONGEST_REFRESH_S)


def shown(session: SessionClaims, consultation: Consultation) -> SessionClaims:
    """The session with the order as it is shown now. An order of another party has no title."""
    order = consultation.order
    if not order.title:
        return session
    shown_order = ShownOrder(
        short(order.title, _MOST_TITLE),
        order.amount,
        epoch_s(order.expires_at),
        short(order.merchant_name or "", _MOST_NAME),
        order.country,
    )
    return replace(session, order=shown_order)


def short_title(title: str) -> str:
    return short(title, _MOST_TITLE)


def short(text: str, most: int) -> str:
    """An acquirer's text may have any length; a cookie and a page have room for some lines."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _in_language(call: PageCall, payment: Payment, kind: Kind) -> Payment:
    """The core writes in the language of the submit; the payer may have chosen another since."""
    payments = call.cashier.payments
    if payments is None:
        return payment
    written_in = payments.choice_of(payment.payment_id, payment.payment_token).locale
    if call.cashier.catalog.locale(written_in) == call.locale:
        return payment
    text = call.writing.message(payment, kind)
    return payment if text is None else replace(payment, message=replace(payment.message, text=text))


def _payment_forms(call: PageCall, session: SessionClaims, payment: Payment) -> PaymentForms:
    addresses, fields = call.addresses, form_fields(session, payment.payment_id)
    acting = payment.status in (PaymentStatus.CHALLENGE, PaymentStatus.ACTION_REQUIRED)
    return PaymentForms(
        answer=Form(addresses.challenge, fields),
        resend=Form(addresses.resend, fields),
        cancel=Form(addresses.cancel, fields),
        replace=Form(addresses.replace, fields) if acting else None,
        paid=Form(addresses.payment, fields),
        retry=addresses.page,
    )


def _order_view(call: BrowserCall, session: SessionClaims) -> OrderView | None:
    order = session.order
    if order is None:
        return None
    writing = call.writing
    ends_at = datetime.fromtimestamp(order.expires_at, UTC)
    return OrderView(
        session.order_id,
        order.title,
        writing.amount(order.amount),
        order.merchant or None,
        deadline=deadline(ends_at, writing) if ends_at > call.now else None,
    )
