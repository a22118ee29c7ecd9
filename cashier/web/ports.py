"""The cashier as the HTTP endpoints use it: consultations, invalidation, payments."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from starlette.types import Receive, Scope, Send

from cashier.consultation.answer import Consultation
from cashier.domain.catalog import Catalog
from cashier.domain.explanation.evidence import WhyRequest
from cashier.domain.explanation.schema import Explanation
from cashier.domain.order import ConsultRequest
from cashier.domain.page_session import PageSession, SessionRequest, TillRequest
from cashier.domain.payment_request import AttemptRequest, PaymentChoice, PaymentRequest
from cashier.domain.payment_resource import ChallengeSent, FoundPayment, Payment, StreamTicket
from cashier.fanout.l2.interface import Invalidated
from cashier.fanout.reachability import SourceReachability
from cashier.metrics.store import Store
from cashier.payments.attempt_recovery import ReplacedPayment
from cashier.tokens.payment_state_token import PaymentClaims


class PaymentsPort(Protocol):
    """All methods raise `TokenRefused`, `OrderUnknown` and the errors of `cashier.payments.errors`.

    `submit`, `answer` and `resend` go on if their caller is cancelled: a client that disconnects
    does not undo a payment.
    """

    async def submit(
        self,
        request: PaymentRequest,
        idempotency_key: str,
        *,
        request_id: str | None = None,
        traceparent: str | None = None,
    ) -> Payment:
        """Once per key; a repetition returns the same payment."""

    async def answer(
        self,
        payment_id: str,
        payment_token: str,
        value: str,
        *,
        request_id: str | None = None,
        traceparent: str | None = None,
    ) -> Payment:
        """Answer the challenge of a payment. `value` is secret."""

    async def resend(
        self, payment_id: str, payment_token: str, *, request_id: str | None = None, traceparent: str | None = None
    ) -> ChallengeSent:
        """Send the code of the open challenge again."""

    async def cancel(
        self, payment_id: str, payment_token: str, *, request_id: str | None = None, traceparent: str | None = None
    ) -> Payment:
        """Cancel for the payer. Returns the present state, which need not be final."""

    async def look(
        self,
        payment_id: str,
        payment_token: str,
        *,
        wait_ms: int = 0,
        request_id: str | None = None,
        traceparent: str | None = None,
    ) -> Payment:
        """Return once the payment is final or differs from its token, or after `wait_ms`."""

    def follow(
        self, payment_id: str, payment_token: str, *, request_id: str | None = None, traceparent: str | None = None
    ) -> AsyncGenerator[Payment, None]:
        """Yield the payment now and on each visible change, until it is final or time is up.

        Raises only before the first. Close the generator (`contextlib.aclosing`) if you stop early.
        """

    async def find(
        self,
        order_id: str,
        *,
        merchant_id: str,
        user_id: str,
        locale: str | None = None,
        request_id: str | None = None,
        traceparent: str | None = None,
    ) -> FoundPayment:
        """The live or last attempt of the order. `user_id`: authenticated, as in the next two."""

    async def resume(
        self,
        payment_id: str,
        request: AttemptRequest,
        *,
        request_id: str | None = None,
        traceparent: str | None = None,
    ) -> Payment:
        """The payment with a new token."""

    async def replace(
        self,
        payment_id: str,
        request: AttemptRequest,
        *,
        request_id: str | None = None,
        traceparent: str | None = None,
    ) -> ReplacedPayment:
        """End the payment for good, and consult afresh."""

    def choice_of(self, payment_id: str, payment_token: str) -> PaymentChoice:
        """The order, user and merchant of a payment, and what was chosen."""

    def issue_stream_ticket(self, payment_id: str, payment_token: str) -> StreamTicket:
        """A ticket that permits to follow this payment until it expires, and nothing else."""

    def read_stream_ticket(self, payment_id: str, ticket: str) -> PaymentClaims:
        """What `follow_claims` takes."""

    def follow_claims(
        self, claims: PaymentClaims, *, request_id: str | None = None, traceparent: str | None = None
    ) -> AsyncGenerator[Payment, None]:
        """As `follow`. The payments carry tokens, which the holder of a ticket must not get."""

    def stop_waiting(self) -> None:
        """End all waits: `look` returns the present state, `follow` ends."""


class ConsultService(Protocol):
    """The cashier, open or about to open."""

    @property
    def ready(self) -> bool:
        """Whether it accepts requests."""

    @property
    def sources_reached(self) -> bool:
        """Whether its required sources have been reached, or waited for, since its start."""

    def reachability(self) -> tuple[SourceReachability, ...]:
        """What is known about its sources and payment services. Makes no call."""

    @property
    def catalog(self) -> Catalog:
        """The texts for payers."""

    @property
    def metrics(self) -> Store:
        """Where it counts."""

    @property
    def payments(self) -> PaymentsPort | None:
        """None without configured payments."""

    async def consult(
        self,
        request: ConsultRequest,
        *,
        request_id: str,
        traceparent: str | None = None,
        since_ns: int | None = None,
        decoded: bool = False,
    ) -> Consultation:
        """Return by the request's deadline, counted from `since_ns` (`perf_counter_ns`) or now.

        `decoded`: the request's bounds are checked. Raises `OrderUnknown`,
        `RequiredSourceUnavailable` and `NotOpen`.
        """

    def stream(
        self, request: ConsultRequest, *, request_id: str, traceparent: str | None = None
    ) -> AsyncGenerator[Consultation, None]:
        """Yield complete consultations as they improve, the last as `consult` returns it.

        Raises as `consult`, but only before the first. Close the generator
        (`contextlib.aclosing`) if you stop early.
        """

    async def why(
        self,
        question: WhyRequest,
        *,
        internals: bool = True,
        request_id: str | None = None,
        traceparent: str | None = None,
    ) -> Explanation:
        """Explain what `consult` would answer now. `internals`: see `Judgement`."""

    async def ainvalidate(self, source: str, *, key: str | None = None, prefix: str | None = None) -> Invalidated:
        """Drop cached answers of `key`, or of all keys with `prefix`, in all workers.

        Waits for the confirmation within a bound. Raises `SourceUnknown`.
        """


class PagesPort(Protocol):
    """The cashier pages, an ASGI application of its own."""

    def serves(self, path: str) -> bool:
        """Whether this path, without the mount point, is the pages'."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...

    async def close(self) -> None:
        """Close connections of their own. The cashier is closed afterwards."""

    def open_session(self, wanted: SessionRequest, scope: Scope) -> PageSession:
        """A link to the page, for the payer. Raises `RequestRefused`: INVALID.

        `scope`: of the request, which names the service where no public address is configured.
        """

    def open_till(self, wanted: TillRequest, scope: Scope) -> PageSession:
        """A link to the page of a till. Raises `RequestRefused`: PAGES_NOT_CONFIGURED."""
