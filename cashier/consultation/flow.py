"""The consult flow, on one screen: ask everything, see what came, say which ways to pay there are; once, or as it unfolds."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Protocol

from msgspec import Meta, Struct

from cashier.domain.assembly import assemble
from cashier.domain.case import ConsultationCase
from cashier.domain.catalog import Catalog
from cashier.domain.facts import Facts
from cashier.domain.money import Money
from cashier.domain.order import Blocked, ConsultRequest, Order
from cashier.domain.order_checks import OWNERSHIP_BLOCKS, first_block
from cashier.domain.pay_method import PayMethod
from cashier.domain.ranking import Weights, rank_offers
from cashier.fanout.ask import Importance, SourceReport, SourceStatus
from cashier.fanout.plan import Plan
from cashier.fanout.scatter import Conclusive, ScatterResult, Timing, scatter
from cashier.fanout.streaming_scatter import StreamingScatter
from cashier.source_errors import Missing, MissingCause

_MS_NS = 1_000_000
_GAP = Missing("", MissingCause.SKIPPED)


class ConsultSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[consult]`. `grace_ms`: how long enriching sources are waited for once all others are in. `reserve_ms`: kept of the deadline for
    our own work after the last answer. `locale`: where the caller names none that we know. `extra_calls_bps`: how many calls more than one
    a question hedges and retries together may make, of each source."""

    deadline_ms: Annotated[int, Meta(ge=5, le=60_000)] = 150
    max_deadline_ms: Annotated[int, Meta(ge=5, le=60_000)] = 1_000
    grace_ms: Annotated[int, Meta(ge=0, le=60_000)] = 15
    reserve_ms: Annotated[int, Meta(ge=0, le=1_000)] = 3
    locale: str = "en"
    extra_calls_bps: Annotated[int, Meta(ge=0, le=10_000)] = 500


class OrderSummary(Struct, frozen=True):
    order_id: str
    title: str
    amount: Money
    expires_at: datetime


class Blockage(Struct, frozen=True):
    code: Blocked
    message: str


class Consultation(Struct, frozen=True):
    """The whole answer, in the shape of the wire. `payable`: the order may be paid; `methods` say how. `degraded`: a source is missing."""

    consult_token: str
    consulted_at: datetime
    expires_at: datetime
    order: OrderSummary
    payable: bool
    blocked: Blockage | None
    degraded: bool
    sources: tuple[SourceReport, ...]
    methods: tuple[PayMethod, ...]


class ConsultationWithCase(Struct, frozen=True):
    """A consultation and the matter behind it. `case`: None where the order cannot be paid. `silent`: the sources without an answer."""

    consultation: Consultation
    case: ConsultationCase | None
    silent: tuple[str, ...]


class ConsultError(Exception):
    """A consultation that has no answer. Everything about the order itself, even that it is paid, is an answer."""


class OrderUnknown(ConsultError):
    """The acquirer has no such order."""

    def __init__(self, order_id: str) -> None:
        super().__init__(f"The acquirer knows no order {order_id}.")
        self.order_id = order_id


class RequiredSourceUnavailable(ConsultError):
    """A source without which nothing can be said did not answer. `sources` are the reports of all that were asked."""

    def __init__(self, sources: tuple[SourceReport, ...], failed: tuple[str, ...]) -> None:
        super().__init__(f"No answer from {', '.join(failed)}, without which nothing can be said about the order.")
        self.sources = sources
        self.failed = failed


class Sign(Protocol):
    """Make the consult token: what acceptance will compare, signed."""

    def __call__(
        self, request: ConsultRequest, amount: Money, methods: Sequence[PayMethod], now_s: int, ttl_s: int
    ) -> str:
        """`amount` is the order's; `now_s` in seconds since 1970."""


class ConsultFlow:
    """The consult flow with what it works by. Holds no state between consultations."""

    def __init__(
        self,
        plan: Plan,
        known: Callable[[ConsultRequest], Mapping[str, Any]],
        catalog: Catalog,
        weights: Weights,
        sign: Sign,
        settings: ConsultSettings,
        token_ttl_s: int,
        now: Callable[[], datetime],
        clock_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self._plan = plan
        self._known = known
        self._catalog = catalog
        self._weights = weights
        self._sign = sign
        self._settings = settings
        self._timing = Timing(settings.grace_ms * _MS_NS, settings.reserve_ms * _MS_NS)
        self._token_ttl_s = token_ttl_s
        self._now = now
        self._clock_ns = clock_ns

    async def __call__(self, request: ConsultRequest, call_headers: Any, since_ns: int | None = None) -> Consultation:
        now = self._now()
        return self._answer(request, await self._gathered(request, call_headers, now, since_ns), now)

    async def weighed(self, request: ConsultRequest, call_headers: Any) -> ConsultationWithCase:
        """The same with the matter behind it, for whoever goes on from here. Raises what a call does."""
        now = self._now()
        gathered = await self._gathered(request, call_headers, now, None)
        blocked = self._blockage(request, gathered.answers, now)
        if blocked is not None:
            return ConsultationWithCase(
                self._blocked(request, gathered.answers["order"], blocked, gathered, now), None, ()
            )
        case = self._case(request, gathered, now)
        silent = tuple(name for name, answer in gathered.answers.items() if isinstance(answer, Missing))
        return ConsultationWithCase(self._offer(case, gathered), case, silent)

    async def stream(self, request: ConsultRequest, call_headers: Any) -> AsyncGenerator[Consultation, None]:
        """A first answer as soon as it is usable, a better one whenever there is one; the last is what a call would return.

        Ends by the same deadline, or as soon as nothing can change any more; there is no grace, because nobody waits for the slow. To be
        closed by who does not take all. Raises what a call would, before the first answer and never after it.
        """
        began_ns = self._clock_ns()
        now = self._now()
        patience_ns = self._patience_ns(request)
        unfolding = StreamingScatter(
            self._plan,
            call_headers,
            deadline_ns=began_ns + patience_ns,
            timing=Timing(grace_ns=patience_ns, reserve_ns=self._timing.reserve_ns),
            conclusive=_concluding(request, now),
            clock_ns=self._clock_ns,
        )
        told: Consultation | None = None
        try:
            unfolding.start(self._known(request))
            while True:
                last = (
                    unfolding.over
                )  # read first: it may be over by the time that whoever takes the answers comes back
                gathered = unfolding.so_far()
                if last or _usable(gathered):
                    found = self._answer(request, gathered, now)
                    if told is None or _shows(told, found, last=last):
                        told = found
                        yield found
                if last:
                    return
                await unfolding.change()
        finally:
            unfolding.close()

    def _patience_ns(self, request: ConsultRequest) -> int:
        return min(request.deadline_ms or self._settings.deadline_ms, self._settings.max_deadline_ms) * _MS_NS

    def _gathered(
        self, request: ConsultRequest, call_headers: Any, now: datetime, since_ns: int | None
    ) -> Coroutine[Any, Any, ScatterResult]:
        began_ns = self._clock_ns() if since_ns is None else since_ns
        return scatter(
            self._plan,
            self._known(request),
            call_headers,
            deadline_ns=began_ns + self._patience_ns(request),
            timing=self._timing,
            conclusive=_concluding(request, now),
            clock_ns=self._clock_ns,
        )

    def _answer(self, request: ConsultRequest, gathered: ScatterResult, now: datetime) -> Consultation:
        blocked = self._blockage(request, gathered.answers, now)
        if blocked is not None:
            return self._blocked(request, gathered.answers["order"], blocked, gathered, now)
        return self._offer(self._case(request, gathered, now), gathered)

    def _blockage(self, request: ConsultRequest, answers: Mapping[str, Any], now: datetime) -> Blocked | None:
        order = answers["order"]
        if order is None:
            raise OrderUnknown(request.order_id)
        return (
            None if isinstance(order, Missing) else first_block(request, order, answers["merchant"], answers["member"], now)
        )

    def _case(self, request: ConsultRequest, gathered: ScatterResult, now: datetime) -> ConsultationCase:
        answers = gathered.answers
        if (
            isinstance(answers["order"], Missing)
            or isinstance(answers["merchant"], Missing)
            or isinstance(answers["member"], Missing)
        ):
            raise RequiredSourceUnavailable(gathered.reports, gathered.failed_required)
        return ConsultationCase(request, Facts(**answers), self._catalog, now)

    def _offer(self, case: ConsultationCase, gathered: ScatterResult) -> Consultation:
        request, now, order = case.request, case.now, case.facts.order
        methods = rank_offers(case, assemble(case), self._weights)
        ttl_s = min(self._token_ttl_s, int((order.expires_at - now).total_seconds()))
        return Consultation(
            self._sign(request, order.amount, methods, int(now.timestamp()), ttl_s),
            now,
            now + timedelta(seconds=ttl_s),
            OrderSummary(order.order_id, order.title, order.amount, order.expires_at),
            True,
            None,
            Missing in map(type, gathered.answers.values()),
            gathered.reports,
            methods,
        )

    def _blocked(
        self, request: ConsultRequest, order: Order, blocked: Blocked, gathered: ScatterResult, now: datetime
    ) -> Consultation:
        """An order that cannot be paid is an answer. Of somebody else's order nothing is told."""
        message = self._catalog.texts[self._catalog.locale(request.locale)].blocked[blocked]
        hidden = blocked in OWNERSHIP_BLOCKS
        summary = OrderSummary(
            order.order_id,
            "" if hidden else order.title,
            Money(order.amount.currency, 0) if hidden else order.amount,
            order.expires_at,
        )
        token = self._sign(
            request, summary.amount, (), int(now.timestamp()), 0
        )  # its payload can be read by whoever has it
        return Consultation(token, now, now, summary, False, Blockage(blocked, message), False, gathered.reports, ())


def _concluding(request: ConsultRequest, now: datetime) -> Conclusive:
    """Whether nothing that is still to come could change the answer: there is no such order, or it cannot be paid."""

    def conclusive(answers: Mapping[str, Any]) -> bool:
        if "order" not in answers:
            return False
        order = answers["order"]
        if order is None or isinstance(order, Missing):
            return True
        return first_block(request, order, answers.get("merchant", _GAP), answers.get("member", _GAP), now) is not None

    return conclusive


def _usable(gathered: ScatterResult) -> bool:
    """Whether it is known what is paid and by whom, and, as far as it ever will be, which roads are open. Less would name nothing."""
    return not any(
        report.status is SourceStatus.PENDING and (report.importance is Importance.REQUIRED or report.name == "channel")
        for report in gathered.reports
    )


def _shows(told: Consultation, found: Consultation, *, last: bool) -> bool:
    """Whether what has changed since is worth telling: more than times, the token, and that somebody came who had nothing to add.

    The last answer says what became of everybody, so there that counts too.
    """
    if told.methods != found.methods or told.degraded != found.degraded:
        return True
    return last and any(
        before.status is not after.status for before, after in zip(told.sources, found.sources, strict=True)
    )
