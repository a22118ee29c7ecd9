"""The consultation flow: scatter, checks, assembly, ranking; as one answer or as a stream."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Annotated, Any, Generic, Protocol, Self, TypeVar

from msgspec import Meta, Struct

from cashier.consultation.answer import (
    Blockage,
    Consultation,
    ConsultationWithCase,
    OrderSummary,
    OrderUnknown,
    RequiredSourceUnavailable,
)
from cashier.consultation.end import ConsultationEnd, Observers
from cashier.consultation.source_evidence import source_evidence
from cashier.domain.assembly import assemble
from cashier.domain.catalog import Catalog
from cashier.domain.consultation_case import ConsultationCase
from cashier.domain.explanation.evidence import Evidence
from cashier.domain.facts import Facts, Merchant
from cashier.domain.money import Money
from cashier.domain.order import Blocked, ConsultRequest, Order, epoch_s
from cashier.domain.order_checks import OWNERSHIP_BLOCKS, first_block
from cashier.domain.pay_method import PayMethod
from cashier.domain.ranking import Weights, rank_offers
from cashier.fanout.ask import SourceStatus
from cashier.fanout.plan import Plan
from cashier.fanout.scatter import Conclusive, Scatter, ScatterResult, Timing, scatter
from cashier.fanout.streaming_scatter import StreamingScatter
from cashier.source_errors import Missing, MissingCause

_MS_NS = 1_000_000
_NOT_IN_YET = Missing("", MissingCause.SKIPPED)


class ConsultSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[consult]`.

    `grace_ms`: how long to wait for enriching sources after all others answered.
    `reserve_ms`: the part of the deadline kept for our own work after the last answer.
    `locale`: for callers that name none, or an unknown one.
    `extra_calls_bps`: calls that hedges and retries together may add, per source.
    """

    deadline_ms: Annotated[int, Meta(ge=5, le=60_000)] = 150
    max_deadline_ms: Annotated[int, Meta(ge=5, le=60_000)] = 1_000
    grace_ms: Annotated[int, Meta(ge=0, le=60_000)] = 15
    reserve_ms: Annotated[int, Meta(ge=0, le=1_000)] = 3
    locale: str = "en"
    extra_calls_bps: Annotated[int, Meta(ge=0, le=10_000)] = 500


class Sign(Protocol):
    """Makes the consult token: the signed offer that acceptance compares with."""

    def __call__(
        self,
        request: ConsultRequest,
        amount: Money,
        order_expires_at: int,
        methods: Sequence[PayMethod],
        now_s: int,
        ttl_s: int,
    ) -> str:
        """`amount` and `order_expires_at`: the order's. Times in seconds since 1970."""


class ConsultFlow:
    """The consultation flow over one plan. Stateless between consultations."""

    def __init__(
        self,
        plan: Plan,
        known_inputs: Callable[[ConsultRequest], Mapping[str, Any]],
        catalog: Catalog,
        weights: Weights,
        sign: Sign,
        settings: ConsultSettings,
        token_ttl_s: int,
        now: Callable[[], datetime],
        clock_ns: Callable[[], int] = time.perf_counter_ns,
        observers: Observers | None = None,
        recheck: bool = False,
    ) -> None:
        """`recheck`: the consultations are checks of payments before their submit."""
        self._plan = plan
        self._known_inputs = known_inputs
        self._catalog = catalog
        self._weights = weights
        self._sign = sign
        self._settings = settings
        self._timing = Timing(settings.grace_ms * _MS_NS, settings.reserve_ms * _MS_NS)
        self._token_ttl_s = token_ttl_s
        self._now = now
        self._clock_ns = clock_ns
        self._observers = observers or Observers()
        self._recheck = recheck

    async def __call__(self, request: ConsultRequest, call_headers: Any, since_ns: int | None = None) -> Consultation:
        """Return the payment methods by the deadline, which counts from `since_ns` or from now.

        Raises `ConsultError`.
        """
        with self._scatter(request, call_headers, since_ns) as run:
            run.gathered = gathered = await run.scatter.run(self._known_inputs(request))
            return run.completed(self._consultation(request, gathered, run.now))

    async def with_case(self, request: ConsultRequest, call_headers: Any) -> ConsultationWithCase:
        """The same, with the case behind it. Raises `ConsultError`."""
        with self._scatter(request, call_headers, None) as run:
            now = run.now
            run.gathered = gathered = await run.scatter.run(self._known_inputs(request))
            order, blocked = gathered.answers["order"], self._block(request, gathered.answers, now)
            if blocked is not None:
                refused = run.completed(self._blocked(request, order, blocked, gathered, now))
                return ConsultationWithCase(refused, None, (), order.user_id is not None)
            case = self._case(request, gathered, now)
            silent = tuple(name for name, answer in gathered.answers.items() if isinstance(answer, Missing))
            payable = run.completed(self._payable(case, gathered))
            return ConsultationWithCase(payable, case, silent, order.user_id is not None)

    async def evidence(self, request: ConsultRequest, call_headers: Any) -> Evidence:
        """What the sources answer now, by the same plan and deadline, for an explanation.

        No observer is told, because no payer consults. It does not end early either: an operator
        wants the checks behind the first that fails.
        """
        now = self._now()
        gathered = await scatter(
            self._plan,
            self._known_inputs(request),
            call_headers,
            deadline_ns=self._clock_ns() + self._budget_ns(request),
            timing=self._timing,
            clock_ns=self._clock_ns,
        )
        return Evidence(request, gathered.answers, now, source_evidence(gathered))

    async def stream(self, request: ConsultRequest, call_headers: Any) -> AsyncGenerator[Consultation, None]:
        """Yield the first usable answer, then each better one.

        The last equals the result of a call.

        Ends by the same deadline, or as soon as nothing can change. Applies no grace: slow sources
        delay no answer here. Raises what a call does, before the first answer only. Close the
        generator (`contextlib.aclosing`) if you stop early.
        """
        with self._streaming_scatter(request, call_headers) as run:
            streaming = run.scatter
            streaming.start(self._known_inputs(request))
            while True:
                # Read before the yield: the scatter may end while the consumer handles the answer.
                last = streaming.ended
                gathered = streaming.snapshot()
                if last:
                    run.gathered = gathered
                if last or self._usable(gathered):
                    consultation = self._consultation(request, gathered, run.now)
                    changed = run.sent is None or _visibly_different(run.sent, consultation, last=last)
                    if last:
                        run.completed(consultation)
                    if changed:
                        run.sent = consultation
                        yield consultation
                if last:
                    return
                await streaming.change()

    def _usable(self, gathered: ScatterResult) -> bool:
        """Whether the leading sources have ended: without them an answer would list no method."""
        return not any(
            report.status is SourceStatus.PENDING and report.name in self._plan.leading for report in gathered.reports
        )

    def _budget_ns(self, request: ConsultRequest) -> int:
        return min(request.deadline_ms or self._settings.deadline_ms, self._settings.max_deadline_ms) * _MS_NS

    def _scatter(self, request: ConsultRequest, call_headers: Any, since_ns: int | None) -> _Run[Scatter]:
        now = self._now()
        started_ns = self._clock_ns() if since_ns is None else since_ns
        deadline_ns = started_ns + self._budget_ns(request)
        scatter = Scatter(
            self._plan,
            call_headers,
            deadline_ns=deadline_ns,
            timing=self._timing,
            conclusive=_conclusive(request, now),
            clock_ns=self._clock_ns,
        )
        return _Run(self._observers, self._recheck, request, call_headers, now, started_ns, deadline_ns, scatter)

    def _streaming_scatter(self, request: ConsultRequest, call_headers: Any) -> _Run[StreamingScatter]:
        started_ns = self._clock_ns()
        now = self._now()
        budget_ns = self._budget_ns(request)
        streaming = StreamingScatter(
            self._plan,
            call_headers,
            deadline_ns=started_ns + budget_ns,
            timing=Timing(grace_ns=budget_ns, reserve_ns=self._timing.reserve_ns),
            conclusive=_conclusive(request, now),
            clock_ns=self._clock_ns,
        )
        return _Run(
            self._observers, self._recheck, request, call_headers, now, started_ns, started_ns + budget_ns, streaming
        )

    def _consultation(self, request: ConsultRequest, gathered: ScatterResult, now: datetime) -> Consultation:
        blocked = self._block(request, gathered.answers, now)
        if blocked is not None:
            return self._blocked(request, gathered.answers["order"], blocked, gathered, now)
        return self._payable(self._case(request, gathered, now), gathered)

    def _block(self, request: ConsultRequest, answers: Mapping[str, Any], now: datetime) -> Blocked | None:
        order = answers["order"]
        if order is None:
            raise OrderUnknown(request.order_id)
        if isinstance(order, Missing):
            return None
        return first_block(request, order, answers["merchant"], answers["member"], now)

    def _case(self, request: ConsultRequest, gathered: ScatterResult, now: datetime) -> ConsultationCase:
        answers = gathered.answers
        if (
            isinstance(answers["order"], Missing)
            or isinstance(answers["merchant"], Missing)
            or isinstance(answers["member"], Missing)
        ):
            raise RequiredSourceUnavailable(gathered.reports, gathered.failed_required)
        return ConsultationCase(request, Facts(**answers), self._catalog, now)

    def _payable(self, case: ConsultationCase, gathered: ScatterResult) -> Consultation:
        request, now, order = case.request, case.now, case.facts.order
        methods = rank_offers(case, assemble(case), self._weights)
        ttl_s = min(self._token_ttl_s, case.left_s)
        order_ends_s = epoch_s(order.expires_at)
        return Consultation(
            consult_token=self._sign(request, order.amount, order_ends_s, methods, int(now.timestamp()), ttl_s),
            consulted_at=now,
            expires_at=now + timedelta(seconds=ttl_s),
            order=OrderSummary(
                order.order_id, order.title, order.amount, order.expires_at, case.facts.merchant.name, order.country
            ),
            payable=True,
            blocked=None,
            degraded=Missing in map(type, gathered.answers.values()),
            sources=gathered.reports,
            methods=methods,
        )

    def _blocked(
        self, request: ConsultRequest, order: Order, blocked: Blocked, gathered: ScatterResult, now: datetime
    ) -> Consultation:
        """The answer for an order that cannot be paid.

        Hides title, amount, merchant and country of another party's order.
        """
        message = self._catalog.wording(request.locale).blocked[blocked]
        hidden = blocked in OWNERSHIP_BLOCKS
        if hidden:
            summary = OrderSummary(order.order_id, "", Money(order.amount.currency, 0), order.expires_at)
        else:
            merchant = gathered.answers["merchant"]
            name = merchant.name if isinstance(merchant, Merchant) else None
            summary = OrderSummary(order.order_id, order.title, order.amount, order.expires_at, name, order.country)
        # The token's payload is readable, so it carries the hidden amount too.
        order_ends_s = epoch_s(order.expires_at)
        token = self._sign(request, summary.amount, order_ends_s, (), int(now.timestamp()), 0)
        return Consultation(
            consult_token=token,
            consulted_at=now,
            expires_at=now,
            order=summary,
            payable=False,
            blocked=Blockage(blocked, message),
            degraded=False,
            sources=gathered.reports,
            methods=(),
        )


S = TypeVar("S", bound=Scatter)


class _Run(Generic[S]):
    """One consultation from its start to the end of its scatter. Observers are told once.

    `sent`: the last answer of a stream so far.
    """

    __slots__ = (
        "_observed", "_observers", "_recheck", "call_headers", "deadline_ns", "gathered", "now", "request",
        "scatter", "sent", "started_ns",
    )  # fmt: skip

    def __init__(
        self,
        observers: Observers,
        recheck: bool,
        request: ConsultRequest,
        call_headers: Any,
        now: datetime,
        started_ns: int,
        deadline_ns: int,
        scatter: S,
    ) -> None:
        self._observers = observers
        self._observed = False
        self._recheck = recheck
        self.request = request
        self.call_headers = call_headers
        self.now = now
        self.started_ns = started_ns
        self.deadline_ns = deadline_ns
        self.scatter = scatter
        self.gathered: ScatterResult | None = None
        self.sent: Consultation | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Observers read the asks, so they come before the close, which drops what these did."""
        try:
            if not self._observed and self._observers.registered:
                self._observe(self.sent, error)
        finally:
            self.scatter.close()

    def completed(self, consultation: Consultation) -> Consultation:
        self._observed = True
        if self._observers.registered:
            self._observe(consultation, None)
        return consultation

    def _observe(self, consultation: Consultation | None, error: BaseException | None) -> None:
        scatter = self.scatter
        self._observers.notify(
            ConsultationEnd(
                request=self.request,
                call_headers=self.call_headers,
                asks=scatter.asks,
                gathered=self.gathered,
                consultation=consultation,
                error=error,
                now=self.now,
                started_ns=self.started_ns,
                asked_ns=scatter.started_ns,
                ended_ns=scatter.clock_ns(),
                deadline_ns=self.deadline_ns,
                recheck=self._recheck,
                streamed=isinstance(scatter, StreamingScatter),
            )
        )


def _conclusive(request: ConsultRequest, now: datetime) -> Conclusive:
    """Build the test for an early end: the order is unknown, or no answer can unblock it."""

    def conclusive(answers: Mapping[str, Any]) -> bool:
        if "order" not in answers:
            return False
        order = answers["order"]
        if order is None or isinstance(order, Missing):
            return True
        merchant, member = answers.get("merchant", _NOT_IN_YET), answers.get("member", _NOT_IN_YET)
        return first_block(request, order, merchant, member, now) is not None

    return conclusive


def _visibly_different(sent: Consultation, latest: Consultation, *, last: bool) -> bool:
    """Compare what a client shows: methods and `degraded`, but not times and token.

    The last answer reports the final status of every source, so there a status counts too.
    """
    if sent.methods != latest.methods or sent.degraded != latest.degraded:
        return True
    return last and any(
        before.status is not after.status for before, after in zip(sent.sources, latest.sources, strict=True)
    )
