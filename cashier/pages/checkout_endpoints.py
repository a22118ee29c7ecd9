"""The checkout: open a link, show the methods, pay."""

from __future__ import annotations

from functools import partial
from urllib.parse import urlencode

from msgspec import ValidationError
from msgspec.structs import replace
from starlette.responses import RedirectResponse, Response

from cashier.consultation.answer import Consultation, NotOpen, OrderUnknown, RequiredSourceUnavailable
from cashier.domain.money import Money
from cashier.domain.order import Blocked, ConsultRequest, Product
from cashier.domain.payment_id import payment_id
from cashier.domain.payment_request import PaymentRequest
from cashier.domain.wording import PayerProblem
from cashier.pages.cards import card_for, takes_card
from cashier.pages.checkout_view import (
    MAX_TITLE,
    Chosen,
    element_key,
    option_name,
    promotion_fields,
    read_promotions,
    title_name,
)
from cashier.pages.form_token import idempotency_key
from cashier.pages.forms import PageForm, read_form
from cashier.pages.page_call import PageCall, PageRefused, UnknownAddress, public_base, with_locale
from cashier.pages.page_responses import PageResponses
from cashier.pages.payment_endpoints import PaymentEndpoints
from cashier.pages.payment_view import may_be_retried
from cashier.pages.surroundings import checkout_page, shown
from cashier.pages.views import Link, Notice, NoticeTone
from cashier.payments.errors import (
    AcceptError,
    CheckUnavailable,
    ConsultChanged,
    EngineUnavailable,
    InFlight,
    Invalid,
    KeyReused,
    OrderBusy,
    RiskRejected,
    TooManyPayments,
)
from cashier.tokens.consult_token import ConsultClaims
from cashier.tokens.jws import TokenRefused
from cashier.tokens.page_session import PaidBy, ReturnClaims, SessionClaims

# The acquirer says that there is an attempt, and it may be this payer's own.
_ATTEMPTED = frozenset({Blocked.ORDER_PAID, Blocked.ORDER_IN_PROGRESS})
# A bank's page may be open for long, and a result can be asked for as long as a payment token.
_RETURN_S = 7 * 86_400
# Of the address that a bank gets, within `Url`. A shop's address of usual length fits into it; with
# a longer one the payer still sees the result.
_MAX_RETURN_CHARS = 2000
# What a refused submit tells the payer, above a fresh checkout: the status and the text.
_REFUSALS: dict[type[AcceptError], tuple[int, PayerProblem]] = {
    RiskRejected: (402, PayerProblem.RISK_REJECTED),
    CheckUnavailable: (503, PayerProblem.CHECK_UNAVAILABLE),
    EngineUnavailable: (503, PayerProblem.ENGINE_UNAVAILABLE),
    TooManyPayments: (503, PayerProblem.OVERLOADED),
}


class CheckoutEndpoints:
    """`payments`: finds the attempt that keeps an order from being paid."""

    def __init__(self, responses: PageResponses, payments: PaymentEndpoints) -> None:
        self._responses = responses
        self._payments = payments

    async def show(self, call: PageCall) -> Response:
        """GET: open a link, or show the checkout of the session."""
        token = call.request.query_params.get("token")
        if token is not None:
            return self._open(call, token)
        session, locale = call.session, call.wanted_locale()
        # Back from the vault, with the method that the card is for.
        chosen = Chosen(read_promotions(call.query), call.request.query_params.get("method"))
        if locale is not None:
            return self._responses.in_language(call, with_locale(session, locale), _address(call, chosen))
        held = await self._payments.held(call)
        if held is not None and not may_be_retried(held):
            return self._payments.see(call, held)
        call.require_admission()
        attempt = "" if held is None else held.payment_id
        return await self._checkout(call, session, await consult(call, session, chosen), attempt, chosen)

    async def go_to_page(self, call: PageCall) -> Response:
        """GET of a form's address: to what is true now."""
        return RedirectResponse(call.addresses.page, 303)

    async def pay(self, call: PageCall) -> Response:
        """POST: submit. Every refusal sent nothing, and shows a fresh checkout with the reason."""
        session, form = call.session, await read_form(call)
        promotions = read_promotions(form.fields)
        method_id = form.get("method")
        if method_id is None:
            return await self._again(call, session, form, Chosen(promotions), 422, _missing(call, None))
        chosen = Chosen(promotions, method_id, form.get(option_name(method_id)))
        if takes_card(method_id) and card_for(session, form.attempt) is None and call.vault:
            query = urlencode({"method": method_id, "attempt": form.attempt})
            return RedirectResponse(f"{call.addresses.card}?{query}", 303)
        try:
            request, key = self._request(call, session, form, chosen)
        except (TokenRefused, _NotOffered, ValidationError):
            return await self._again(call, session, form, chosen, 409, _notice(call, PayerProblem.CONSULT_CHANGED))
        payments = self._payments.port(call)
        try:
            payment = await payments.submit(request, key, request_id=call.request_id, traceparent=call.traceparent)
        except ConsultChanged as changed:
            return await self._changed(call, session, form, chosen, changed)
        except OrderBusy as busy:
            return self._payments.go(call, busy.payment_id)
        except (InFlight, KeyReused):
            # Sent already, from another worker or by an older form.
            return await self._payments.sent(call, payment_id(session.merchant_id, session.order_id, key))
        except TokenRefused:
            return await self._again(call, session, form, chosen, 409, _notice(call, PayerProblem.CONSULT_CHANGED))
        except Invalid as invalid:
            missing = any(fault.field == "option_id" for fault in invalid.faults)
            notice = _missing(call, method_id) if missing else _notice(call, PayerProblem.INVALID)
            return await self._again(call, session, form, chosen, 422, notice)
        except AcceptError as refused:
            status, problem = _REFUSALS[type(refused)]
            return await self._again(call, session, form, chosen, status, _notice(call, problem))
        except ValidationError:
            raise PageRefused(422, PayerProblem.INVALID, retry=call.addresses.page) from None
        except OrderUnknown:
            raise PageRefused(404, PayerProblem.ORDER_UNKNOWN) from None
        response = self._payments.see(call, payment)
        title = form.get(title_name(method_id))
        if title is not None:
            paid_by = PaidBy(payment.payment_id, title[:MAX_TITLE])
            call.cookies.set_session(response, call.sign_session(replace(session, paid_by=paid_by)))
        return response

    def _open(self, call: PageCall, token: str) -> Response:
        """A link becomes a cookie, so that no later address has a secret."""
        response = RedirectResponse(call.addresses.page, 303)
        try:
            link = call.cashier.tokens.pages.read_link(token, call.order_id, call.now.timestamp())
        except TokenRefused:
            if call.session_or_none is None:
                raise PageRefused(403, PayerProblem.TOKEN_EXPIRED) from None
            return response  # an old link, reloaded in a browser that opened it in time
        call.cookies.set_session(response, call.sign_session(_continued(link, call.session_or_none)))
        return response

    async def _checkout(
        self,
        call: PageCall,
        session: SessionClaims,
        consultation: Consultation,
        attempt: str,
        chosen: Chosen,
        *,
        status: int = 200,
        notice: Notice | None = None,
    ) -> Response:
        blocked, resume = consultation.blocked, None
        if blocked is not None and blocked.code in _ATTEMPTED:
            found = await self._payments.found_or_none(call)
            if found is not None and found.payment_id != attempt:
                return self._payments.go(call, found.payment_id)
            if blocked.code is Blocked.ORDER_IN_PROGRESS:
                resume = Link(str(call.writing.labels.check_again), call.addresses.page)
        session = shown(session, consultation)
        changed = session != call.session_or_none
        call.session_or_none = session
        page, view = checkout_page(call, session, consultation, attempt, chosen, notice, resume)
        response = await self._responses.render_in_turns(page, view, status)
        if changed:
            call.cookies.set_session(response, call.sign_session(session))
        return response

    async def _again(
        self, call: PageCall, session: SessionClaims, form: PageForm, chosen: Chosen, status: int, notice: Notice
    ) -> Response:
        """The same attempt: nothing was sent under its key."""
        consultation = await consult(call, session, chosen)
        return await self._checkout(call, session, consultation, form.attempt, chosen, status=status, notice=notice)

    async def _changed(
        self, call: PageCall, session: SessionClaims, form: PageForm, chosen: Chosen, changed: ConsultChanged
    ) -> Response:
        """What changed and the new price, to agree to once more."""
        lines = tuple(change.message for change in changed.changes if change.message)
        notice = _notice(call, PayerProblem.CONSULT_CHANGED, lines)
        return await self._checkout(
            call, session, changed.consultation, form.attempt, chosen, status=409, notice=notice
        )

    def _request(
        self, call: PageCall, session: SessionClaims, form: PageForm, chosen: Chosen
    ) -> tuple[PaymentRequest, str]:
        """The submit and its idempotency key. What the payer agreed to is in the signed offer.

        Raises `TokenRefused`, `_NotOffered`, msgspec.ValidationError.
        """
        consult_token = form.get("consult_token") or ""
        method_id = chosen.method_id or ""
        offer = call.cashier.tokens.read_consult_token(consult_token)
        payable = _agreed(offer, method_id, chosen.option_id)
        choice = (method_id, chosen.option_id or "", f"{payable.currency} {payable.value}")
        picked = ("*",) if chosen.promotions is None else chosen.promotions
        card_token = card_for(session, form.attempt) if takes_card(method_id) else None
        entered = () if card_token is None else ("card", card_token)
        key = idempotency_key(session, form.attempt, *choice, *picked, *entered)
        return (
            PaymentRequest(
                consult_token=consult_token,
                order_id=session.order_id,
                user_id=session.user_id,
                merchant_id=session.merchant_id,
                product=session.product,
                terminal=session.terminal,
                country=session.country,
                locale=call.locale,
                method_id=method_id,
                option_id=chosen.option_id,
                chosen_promotions=chosen.promotions,
                expected_payable=payable,
                card_token=card_token,
                return_url=self._return_url(call, session, key),
                device=call.device,
            ),
            key,
        )

    def _return_url(self, call: PageCall, session: SessionClaims, key: str) -> str:
        """The same for each submit of this payment, because it is compared."""
        try:
            base = public_base(call.settings, call.request.scope)
        except UnknownAddress:
            raise PageRefused(421, PayerProblem.INVALID) from None
        back = ReturnClaims(
            order_id=session.order_id,
            merchant_id=session.merchant_id,
            user_id=session.user_id,
            payment_id=payment_id(session.merchant_id, session.order_id, key),
            # Only by the very same submit a walk-in gets a payment whose answer was lost, also in a
            # language that was chosen since.
            locale=None if session.user_id is None else session.locale,
            return_url=session.return_url if session.product is Product.EMBEDDED_CASHIER else None,
        )

        def address(claims: ReturnClaims) -> str:
            state = call.cashier.tokens.pages.sign_return(claims, session.opened_at + _RETURN_S)
            return f"{base}/cashier/{session.order_id}/return?state={state}"

        with_shop = address(back)
        return with_shop if len(with_shop) <= _MAX_RETURN_CHARS else address(replace(back, return_url=None))


def _address(call: PageCall, chosen: Chosen) -> str:
    """Of the checkout with this choice."""
    fields = promotion_fields(chosen.promotions)
    if chosen.method_id is not None and takes_card(chosen.method_id):
        fields += (("method", chosen.method_id),)
    return f"{call.addresses.page}?{urlencode(fields)}" if fields else call.addresses.page


class _NotOffered(Exception):
    """The offer that the payer saw has no such method, or no price for it."""


async def consult(call: PageCall, session: SessionClaims, chosen: Chosen) -> Consultation:
    """What is known within `first_answer_ms`. Raises `PageRefused`.

    Without the order there is nothing to show yet: then for as long as the service permits.
    """
    page = call.addresses.page
    ask = partial(call.cashier.consult, request_id=call.request_id, traceparent=call.traceparent)
    try:
        try:
            return await ask(consult_request(call, session, chosen))
        except RequiredSourceUnavailable:
            longest_ms = call.cashier.config.settings.consult.max_deadline_ms
            return await ask(consult_request(call, session, chosen, longest_ms))
    except ValidationError:
        raise PageRefused(422, PayerProblem.INVALID, retry=page) from None
    except OrderUnknown:
        raise PageRefused(404, PayerProblem.ORDER_UNKNOWN) from None
    except RequiredSourceUnavailable:
        raise PageRefused(503, PayerProblem.REQUIRED_SOURCE_UNAVAILABLE, retry=page, retry_after_s=5) from None
    except NotOpen:
        raise PageRefused(503, PayerProblem.NOT_READY, retry=page, retry_after_s=5) from None


def consult_request(
    call: PageCall, session: SessionClaims, chosen: Chosen, deadline_ms: int | None = None
) -> ConsultRequest:
    """`deadline_ms`: None for that of a page."""
    return ConsultRequest(
        order_id=session.order_id,
        user_id=session.user_id,
        merchant_id=session.merchant_id,
        product=session.product,
        terminal=session.terminal,
        amount=session.amount,
        country=session.country,
        locale=call.locale,
        deadline_ms=deadline_ms or call.settings.first_answer_ms,
        chosen_promotions=chosen.promotions,
    )


def _agreed(offer: ConsultClaims, method_id: str, option_id: str | None) -> Money:
    """The price of the chosen method, or of its option, as it was shown.

    The offer has the promotions in it, so the submit need not name them: a submit names few, and
    none that looks like a card number.
    """
    price = offer.find_price(method_id, option_id)
    if price is not None and price.options:
        price = price.options[0]
    if price is None or price.payable is None:
        raise _NotOffered
    return Money(offer.currency, price.payable)


def _continued(link: SessionClaims, before: SessionClaims | None) -> SessionClaims:
    """A link that is opened again keeps what its payer has seen and chosen since."""
    if before is None or before.session_id != link.session_id:
        return link
    return replace(link, order=before.order, locale=before.locale, paid_by=before.paid_by, card=before.card)


def _notice(call: PageCall, problem: PayerProblem, lines: tuple[str, ...] = ()) -> Notice:
    tone = NoticeTone.WARNING if problem is PayerProblem.CONSULT_CHANGED else NoticeTone.ERROR
    return Notice(tone, call.writing.problem(problem).message, lines)


def _missing(call: PageCall, method_id: str | None) -> Notice:
    labels = call.writing.labels
    if method_id is None:
        return Notice(NoticeTone.ERROR, str(labels.method_missing), field="methods")
    return Notice(NoticeTone.ERROR, str(labels.option_missing), field=f"{element_key('m', method_id)}-options")
