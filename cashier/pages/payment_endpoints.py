"""The payment of an order: its challenge, its action, its result, and what the payer does.

What a page shows comes from engine and acquirer at that moment, never from the browser. The payment
token lives in a cookie of the order's path. Without it the session's payer finds the attempt.
"""

from __future__ import annotations

import re

from msgspec.structs import replace
from starlette.responses import RedirectResponse, Response

from cashier.consultation.answer import NotOpen, OrderUnknown, RequiredSourceUnavailable
from cashier.domain.order import Blocked, ConsultRequest, Product, Terminal
from cashier.domain.payment_id import PAYMENT_ID
from cashier.domain.payment_message import MessageCode
from cashier.domain.payment_request import AttemptRequest
from cashier.domain.payment_resource import FoundPayment, Payment
from cashier.domain.payment_state import FINAL
from cashier.domain.wording import PayerProblem
from cashier.pages.forms import PageForm, form_fields, read_form
from cashier.pages.page_call import PageCall, PageRefused, with_locale
from cashier.pages.page_responses import PageResponses
from cashier.pages.payment_view import ChallengeNotice, PaymentForms, may_be_retried, result_view
from cashier.pages.qr import QrCodes
from cashier.pages.surroundings import page_view, payment_page, refresh_s
from cashier.pages.views import CheckoutView, Form, Outcome, PaymentHead, ResultView
from cashier.payments.attempt import kind_of
from cashier.payments.errors import (
    AcceptError,
    ConsultChanged,
    Invalid,
    NoSuchAttempt,
    NotResendable,
    NotResumable,
    OrderBusy,
    ResendUnconfirmed,
)
from cashier.payments.flow import PaymentFlow
from cashier.tokens.jws import TokenRefused
from cashier.tokens.page_session import ReturnClaims, SessionClaims
from cashier.web.rate_limit import RateLimit

# How long "I have paid" waits for a change.
_PAID_WAIT_MS = 2_000
_WAIT_S = 5
# An order of which nothing else is to be expected.
_OVER = frozenset({Blocked.ORDER_PAID, Blocked.ORDER_CLOSED, Blocked.ORDER_EXPIRED})
_PAYMENT_ID = re.compile(PAYMENT_ID)


class PaymentEndpoints:
    def __init__(self, responses: PageResponses, qr_codes: QrCodes, answers: RateLimit) -> None:
        """`answers`: to challenges, by payment: another session or device has no further ones."""
        self._responses = responses
        self._qr_codes = qr_codes
        self._answers = answers

    def port(self, call: PageCall) -> PaymentFlow:
        """Raises `PageRefused`."""
        payments = call.cashier.payments
        if payments is None or not call.cashier.ready:
            raise PageRefused(503, PayerProblem.NOT_READY, retry=call.addresses.payment, retry_after_s=_WAIT_S)
        return payments

    # Where others send the payer

    def go(self, call: PageCall, payment_id: str) -> Response:
        """To the page of the attempt that is live, which need not be the one of this browser."""
        return RedirectResponse(f"{call.addresses.payment}?attempt={payment_id}", 303)

    def see(self, call: PageCall, payment: Payment) -> Response:
        """To the page of this payment, whose token the browser keeps."""
        response = RedirectResponse(call.addresses.payment, 303)
        call.cookies.set_payment(response, payment.payment_id, payment.payment_token)
        return response

    async def sent(self, call: PageCall, payment_id: str) -> Response:
        """To the payment that this session has sent already. Raises `PageRefused`."""
        session = call.session
        if session.user_id is not None:
            request = _attempt_request(call, session)
            payment = await self._resumed(call, payment_id, request, call.addresses.payment)
            if payment is not None:
                return self.see(call, payment)
        return self.go(call, payment_id)

    async def held(self, call: PageCall) -> Payment | None:
        """The present state of this browser's last payment."""
        held = call.held_payment()
        return None if held is None else await self._look(call, *held)

    async def found_or_none(self, call: PageCall) -> FoundPayment | None:
        """The order's attempt, if it is this payer's. Raises `PageRefused`: it cannot be known."""
        session = call.session
        if call.payer is None:
            return None
        return await self._find(call, session.merchant_id, call.payer)

    # Requests

    async def show(self, call: PageCall) -> Response:
        """GET: the payment of this browser, else the order's own."""
        session, locale = call.session, call.wanted_locale()
        if locale is not None:
            return self._responses.in_language(call, with_locale(session, locale), call.addresses.payment)
        named = _named_attempt(call)
        held = call.held_payment()
        if held is not None and named in (None, held[0]):
            payment = await self._look(call, *held)
            if payment is not None:
                return await self._page(call, session, payment)
        if named is not None and call.payer is not None:
            resumed = await self._resumed(call, named, _attempt_request(call, session), call.addresses.payment)
            if resumed is not None:
                return await self._page(call, session, resumed)
        found = await self.found_or_none(call)
        if found is None:
            return self._elsewhere(call, session, named) if named else RedirectResponse(call.addresses.page, 303)
        resumed = None
        if found.can_resume:
            request = _attempt_request(call, session)
            resumed = await self._resumed(call, found.payment_id, request, call.addresses.payment)
        if resumed is None:
            return self._result(call, found)
        return await self._page(call, session, resumed)

    async def check(self, call: PageCall) -> Response:
        """POST "I have paid": ask the service, and wait for a change for a moment."""
        await read_form(call)
        held = call.held_payment()
        payment = None if held is None else await self._look(call, *held, wait_ms=_PAID_WAIT_MS)
        return RedirectResponse(call.addresses.payment, 303) if payment is None else self.see(call, payment)

    async def answer(self, call: PageCall) -> Response:
        """POST: the code or password of a challenge."""
        form = await read_form(call)
        held = self._own(call, form)
        value = (form.get("value") or "").strip()
        if held is None or not value:
            return RedirectResponse(call.addresses.payment, 303)
        if not self._answers.admits(held[0]):
            raise PageRefused(429, PayerProblem.OVERLOADED, retry=call.addresses.payment)
        headers = {"request_id": call.request_id, "traceparent": call.traceparent}
        try:
            payment = await self.port(call).answer(held[0], held[1], value, **headers)
        except ConsultChanged:
            return RedirectResponse(call.addresses.page, 303)
        except OrderBusy as busy:
            return self.go(call, busy.payment_id)
        except Invalid:
            return RedirectResponse(f"{call.addresses.payment}?notice=wrong", 303)
        except (AcceptError, TokenRefused, OrderUnknown):
            # Refused or not known: the payment's page shows what is true now.
            return RedirectResponse(f"{call.addresses.payment}?notice=unanswered", 303)
        response = self.see(call, payment)
        if payment.challenge is not None and payment.message.code is MessageCode.CHALLENGE_WRONG:
            response.headers["location"] = f"{call.addresses.payment}?notice=wrong"
        return response

    async def resend(self, call: PageCall) -> Response:
        """POST: send the code again."""
        held = self._own(call, await read_form(call))
        if held is None:
            return RedirectResponse(call.addresses.payment, 303)
        headers = {"request_id": call.request_id, "traceparent": call.traceparent}
        try:
            sent = await self.port(call).resend(held[0], held[1], **headers)
        except ResendUnconfirmed:
            notice = "notice=resent"
        except (NotResendable, AcceptError, TokenRefused):
            notice = "notice=not-resent"
        else:
            wait = "" if sent.resend_after_s is None else f"&wait={sent.resend_after_s}"
            notice = f"notice={'resent' if sent.sent else 'wait'}{wait}"
        return RedirectResponse(f"{call.addresses.payment}?{notice}", 303)

    async def cancel(self, call: PageCall) -> Response:
        """POST: end the payment, unless it is paid."""
        form = await read_form(call)
        held = self._own(call, form)
        if held is None:
            return RedirectResponse(call.addresses.payment, 303)
        return self.see(call, await self._cancel(call, *held))

    async def replace(self, call: PageCall) -> Response:
        """POST: end the payment to pay in another way. Only once it is over there is a choice."""
        form = await read_form(call)
        session, held = call.session, self._own(call, form)
        if held is not None:
            payment = await self._cancel(call, *held)
            response = self.see(call, payment)
            if may_be_retried(payment):
                response.headers["location"] = call.addresses.page
            return response
        if call.payer is None or not form.attempt:
            return RedirectResponse(call.addresses.payment, 303)
        try:
            replaced = await self.port(call).replace(
                form.attempt,
                _attempt_request(call, session),
                request_id=call.request_id,
                traceparent=call.traceparent,
            )
        except OrderBusy as busy:
            return self.go(call, busy.payment_id)
        except NoSuchAttempt:
            return RedirectResponse(call.addresses.page, 303)
        except (AcceptError, OrderUnknown):
            raise _status_unavailable(call) from None
        response = RedirectResponse(call.addresses.page, 303)
        if replaced.payment_token is not None and call.held_payment() is None:
            call.cookies.set_payment(response, replaced.payment_id, replaced.payment_token)
        return response

    async def returned(self, call: PageCall) -> Response:
        """GET or POST: back from a bank or a wallet, in whatever browser.

        A POST of another site has no cookie, so it becomes a GET first, which may have it.
        """
        state = call.request.query_params.get("state", "")
        try:
            back = call.cashier.tokens.pages.read_return(state, call.order_id, call.now.timestamp())
        except TokenRefused:
            if call.session_or_none is not None:
                return RedirectResponse(call.addresses.payment, 303)
            raise PageRefused(403, PayerProblem.TOKEN_EXPIRED) from None
        if call.request.method == "POST":
            return RedirectResponse(f"{call.addresses.returned}?state={state}", 303)
        session = call.session_or_none
        if session is not None and (session.merchant_id, session.user_id) == (back.merchant_id, back.user_id):
            return self.go(call, back.payment_id)
        return await self._result_of_return(call, back)

    # Parts

    async def _result_of_return(self, call: PageCall, back: ReturnClaims) -> Response:
        """For whoever comes back: the state, and nothing to act with. Never the payer's order."""
        call.session_or_none, call.other_locale = None, back.locale
        if back.user_id is None:
            return await self._order_of_return(call, back)
        payment = await self._payment_of(call, back)
        if payment is None:
            raise _return_unknown(call)
        kind = kind_of(self.port(call).choice_of(payment.payment_id, payment.payment_token).method_id)
        refresh = None if payment.status in FINAL else refresh_s(payment)
        page = replace(page_view(call, _same_address(call), refresh_after_s=refresh), back=back.return_url)
        return self._responses.render(page, result_view(payment, kind, call.writing, PaymentForms()))

    async def _order_of_return(self, call: PageCall, back: ReturnClaims) -> Response:
        """A walk-in's attempt is known to their own browser alone. Another browser sees whether the
        order is over.
        """
        request = ConsultRequest(
            order_id=back.order_id,
            merchant_id=back.merchant_id,
            product=Product.SCAN,
            terminal=Terminal.H5,
            locale=call.locale,
            deadline_ms=call.settings.first_answer_ms,
        )
        try:
            consultation = await call.cashier.consult(request, request_id=call.request_id, traceparent=call.traceparent)
        except (NotOpen, OrderUnknown, RequiredSourceUnavailable):
            raise _return_unknown(call) from None
        blocked = consultation.blocked
        if blocked is None or blocked.code not in _OVER:
            raise _return_unknown(call)
        is_paid = blocked.code is Blocked.ORDER_PAID
        view = CheckoutView(form=Form(""), method_name="", blocked=blocked.message, paid=is_paid)
        return self._responses.render(page_view(call, _same_address(call)), view)

    async def _payment_of(self, call: PageCall, back: ReturnClaims) -> Payment | None:
        """For its payer, by the ids of a return. Its token stays here."""
        request = AttemptRequest(
            order_id=back.order_id,
            merchant_id=back.merchant_id,
            user_id=back.user_id,
            # Product and terminal do not matter to an attempt that exists.
            product=Product.STANDARD_CASHIER,
            terminal=Terminal.H5,
            locale=call.locale,
        )
        return await self._resumed(call, back.payment_id, request, _same_address(call))

    async def _resumed(self, call: PageCall, payment_id: str, request: AttemptRequest, address: str) -> Payment | None:
        """None for a payment that is not this payer's, or that only its own browser knows.

        `address`: to ask again if the state cannot be known. Raises `PageRefused`.
        """
        headers = {"request_id": call.request_id, "traceparent": call.traceparent}
        try:
            return await self.port(call).resume(payment_id, request, **headers)
        except (NoSuchAttempt, NotResumable):
            return None
        except (AcceptError, OrderUnknown):
            raise PageRefused(503, PayerProblem.STATUS_UNAVAILABLE, retry=address, retry_after_s=_WAIT_S) from None

    def _result(self, call: PageCall, found: FoundPayment) -> Response:
        refresh = None if found.status in FINAL else refresh_s(found)
        forms = PaymentForms(retry=call.addresses.page)
        page = page_view(call, call.addresses.payment, refresh_after_s=refresh)
        return self._responses.render(page, result_view(found, found.kind, call.writing, forms))

    async def _page(self, call: PageCall, session: SessionClaims, payment: Payment) -> Response:
        method_id = self.port(call).choice_of(payment.payment_id, payment.payment_token).method_id
        notice = _challenge_notice(call, payment)
        page, view = await payment_page(call, session, payment, kind_of(method_id), self._qr_codes, notice)
        response = self._responses.render(page, view)
        call.cookies.set_payment(response, payment.payment_id, payment.payment_token)
        return response

    def _elsewhere(self, call: PageCall, session: SessionClaims, payment_id: str) -> Response:
        """An attempt that is live and cannot be seen from here, such as another tab's challenge."""
        busy = call.writing.problem(PayerProblem.ORDER_BUSY)
        order = session.order
        view = ResultView(
            payment=PaymentHead(
                payment_id=payment_id,
                amount=call.writing.amount(order.amount) if order is not None else "",
                message=busy.message,
            ),
            outcome=Outcome.PROCESSING,
            retry=None,
            # Who may not find it may not end it.
            cancel=None if call.payer is None else Form(call.addresses.replace, form_fields(session, payment_id)),
        )
        return self._responses.render(page_view(call, call.addresses.page, refresh_after_s=_WAIT_S), view)

    async def _look(self, call: PageCall, payment_id: str, token: str, wait_ms: int = 0) -> Payment | None:
        """None for a token that is no longer valid."""
        headers = {"request_id": call.request_id, "traceparent": call.traceparent}
        try:
            return await self.port(call).look(payment_id, token, wait_ms=wait_ms, **headers)
        except TokenRefused:
            return None
        except AcceptError:
            raise _status_unavailable(call) from None

    async def _cancel(self, call: PageCall, payment_id: str, token: str) -> Payment:
        headers = {"request_id": call.request_id, "traceparent": call.traceparent}
        try:
            return await self.port(call).cancel(payment_id, token, **headers)
        except (AcceptError, TokenRefused):
            raise _status_unavailable(call) from None

    async def _find(self, call: PageCall, merchant_id: str, user_id: str) -> FoundPayment | None:
        try:
            return await self.port(call).find(
                call.order_id,
                merchant_id=merchant_id,
                user_id=user_id,
                locale=call.locale,
                request_id=call.request_id,
                traceparent=call.traceparent,
            )
        except (NoSuchAttempt, NotResumable):
            return None
        except OrderUnknown:
            raise PageRefused(404, PayerProblem.ORDER_UNKNOWN) from None
        except AcceptError:
            raise _status_unavailable(call) from None

    def _own(self, call: PageCall, form: PageForm) -> tuple[str, str] | None:
        """The held payment, if the form is about it and not about an older one."""
        held = call.held_payment()
        return held if held is not None and held[0] == form.attempt else None


def _named_attempt(call: PageCall) -> str | None:
    """The payment that the address names. It goes into requests, so nothing else is one."""
    named = call.request.query_params.get("attempt", "")
    return named if _PAYMENT_ID.fullmatch(named) else None


def _attempt_request(call: PageCall, session: SessionClaims) -> AttemptRequest:
    return AttemptRequest(
        order_id=session.order_id,
        merchant_id=session.merchant_id,
        user_id=session.user_id,
        product=session.product,
        terminal=session.terminal,
        locale=call.locale,
    )


def _challenge_notice(call: PageCall, payment: Payment) -> ChallengeNotice:
    """What the redirect said. The words are ours: an address can only choose among them."""
    query = call.request.query_params
    wait = query.get("wait", "")
    wait_s = int(wait) if wait.isascii() and wait.isdigit() and len(wait) < 5 else None
    match query.get("notice"):
        case "wrong":
            return ChallengeNotice(wrong=call.writing.wrong_answer(payment))
        case "resent":
            return ChallengeNotice(resent=True, resend_after_s=wait_s)
        case "wait":
            return ChallengeNotice(resend_after_s=wait_s)
        case _:
            return ChallengeNotice()


def _status_unavailable(call: PageCall) -> PageRefused:
    return PageRefused(503, PayerProblem.STATUS_UNAVAILABLE, retry=call.addresses.payment, retry_after_s=_WAIT_S)


def _return_unknown(call: PageCall) -> PageRefused:
    """Looked at again by itself."""
    return PageRefused(503, PayerProblem.STATUS_UNAVAILABLE, retry=_same_address(call), retry_after_s=_WAIT_S)


def _same_address(call: PageCall) -> str:
    return f"{call.addresses.returned}?state={call.request.query_params.get('state', '')}"
