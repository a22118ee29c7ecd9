"""Status follower: a payment's status as a `Payment`, at once, by long poll or as a stream.

Each resolved status also updates the attempt guard (which attempt is live) and channel health.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from datetime import UTC, datetime

from msgspec.structs import replace

from cashier.domain.payment_resource import Payment, RouteTaken, challenge, message
from cashier.domain.payment_state import PaymentStatus
from cashier.domain.routing_rules import Routing
from cashier.domain.status_resolution import ResolvedStatus
from cashier.domain.upstream_report import AcquirerReportStatus, EngineReportStatus
from cashier.payments.attempt import order_key, payment_progress
from cashier.payments.attempt_guard import AttemptGuard
from cashier.payments.background_queries import BackgroundQueries, WatchedPayment
from cashier.payments.channel_health import ChannelHealth
from cashier.payments.coalescing import SingleFlight
from cashier.payments.errors import InFlight, KeyReused, TooManyPayments
from cashier.payments.learning import Learning
from cashier.payments.payment_metrics import PaymentMetrics
from cashier.payments.policy import Operation, PaymentPolicy
from cashier.payments.status_query import ResolvedPayment, StatusQuery, UpstreamStatus, visibly_different
from cashier.payments.step_log import StatusLog, log_step
from cashier.tokens.payment_state_token import PaymentClaims

# The payer answers a challenge here, so poll slowly: it can only expire, or be passed in another
# tab.
_CHALLENGE_POLL_MS = 3_000
_ACKNOWLEDGED = frozenset(EngineReportStatus) - {EngineReportStatus.SILENT, EngineReportStatus.NEVER_ARRIVED}


class StatusFollower:
    """`sign` makes a payment token.

    `now` is the wall clock, `monotonic` the clock of `channel_health`.
    """

    def __init__(
        self,
        status_query: StatusQuery,
        attempt_guard: AttemptGuard,
        channel_health: ChannelHealth,
        learning: Learning,
        counts: PaymentMetrics,
        sign: Callable[[PaymentClaims], str],
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
    ) -> None:
        self._status_query = status_query
        self._attempt_guard = attempt_guard
        self._channel_health = channel_health
        self._learning = learning
        self._counts = counts
        self._sign = sign
        self._now = now
        self._monotonic = monotonic
        self._polls: SingleFlight[UpstreamStatus] = SingleFlight(expected=(TooManyPayments,))
        self._status_log = StatusLog(monotonic)
        self._background = BackgroundQueries(self._poll, counts)

    def __repr__(self) -> str:
        return f"<StatusFollower {self._status_query!r} {self._polls!r} {self._background!r}>"

    def watched(self) -> Iterator[WatchedPayment]:
        """The payments that this worker sent and that have not ended."""
        return self._background.payments()

    def stop_waiting(self) -> None:
        self._background.stop()
        self._polls.stop()

    async def drain(self) -> None:
        """Wait until no status query is under way."""
        await self._polls.drain()
        await self._status_query.drain()

    async def current(
        self, claims: PaymentClaims, operation: Operation, upstream: UpstreamStatus | None = None
    ) -> Payment:
        """The status from `upstream` or from a new query, with a new token.

        Raises `KeyReused`, `TooManyPayments`.
        """
        return self.present(claims, operation.policy, (await self.resolve(claims, operation, upstream)).resolution)

    async def after_submit(self, claims: PaymentClaims, operation: Operation, upstream: UpstreamStatus) -> Payment:
        """The status of a payment that this worker has just sent.

        The worker looks on in the background, whether a caller waits or not. Raises what `current`
        does.
        """
        try:
            resolution = (await self.resolve(claims, operation, upstream)).resolution
        except TooManyPayments:
            self._background.watch(claims, operation)
            raise
        if not resolution.final:
            self._background.watch(
                replace(claims, told=resolution.status), operation, resolution.poll_after_ms, resolution.event
            )
        return self.present(claims, operation.policy, resolution)

    async def is_over(self, claims: PaymentClaims, operation: Operation) -> bool:
        """Whether the payment is confirmed over. One that is due for a reversal is reversed first.

        Raises `TooManyPayments`.
        """
        try:
            return (await self.resolve(claims, operation)).resolution.final
        except KeyReused:
            # The engine has another body under this id. Ours was never accepted; that one counts
            # until it has failed.
            upstream = await self._status_query.query(claims.payment_id, claims.chosen.order_id, operation)
            return upstream.engine.status is EngineReportStatus.FAILED

    async def look(self, claims: PaymentClaims, payment_token: str, operation: Operation, wait_ms: int) -> Payment:
        """The status, after `wait_ms` or as soon as it differs from the token's.

        Raises what `current` does.
        """
        latest = first = await self.resolve(claims, operation)
        wait_s = min(wait_ms, operation.policy.settings.wait_ms) / 1_000
        is_news = claims.told not in (None, first.resolution.status)
        if wait_s > 0 and not is_news and self._polls.waiters < operation.policy.settings.most_waiting:
            try:
                async with (
                    asyncio.timeout(wait_s),
                    aclosing(self._later_statuses(claims, operation, first)) as later_statuses,
                ):
                    async for latest in later_statuses:
                        if visibly_different(first.resolution, latest.resolution):
                            break
            except TimeoutError:
                # If no poll was due in the whole wait, query once more.
                latest = latest if latest is not first else await self.resolve(claims, operation)
        return self.present(claims, operation.policy, latest.resolution, payment_token)

    async def follow(
        self, claims: PaymentClaims, payment_token: str, operation: Operation
    ) -> AsyncGenerator[Payment, None]:
        """Yield the status now and after each change, until a final one or `follow_s`.

        Raises what `current` does, before the first status only.
        """
        if self._polls.waiters >= operation.policy.settings.most_waiting:
            raise TooManyPayments
        sent = await self.resolve(claims, operation)
        yield self.present(claims, operation.policy, sent.resolution, payment_token)
        until_s = asyncio.get_running_loop().time() + operation.policy.settings.follow_s
        async with aclosing(self._later_statuses(claims, operation, sent, until_s)) as later_statuses:
            async for latest in later_statuses:
                if visibly_different(sent.resolution, latest.resolution):
                    sent = latest
                    yield self.present(claims, operation.policy, sent.resolution, payment_token)

    def present(
        self, claims: PaymentClaims, policy: PaymentPolicy, resolution: ResolvedStatus, payment_token: str | None = None
    ) -> Payment:
        """The resource for the caller.

        `payment_token`: the caller's token, which is returned unless the status in it has changed.
        """
        route = claims.route
        carried = claims.challenge if resolution.status is PaymentStatus.CHALLENGE else None
        arrived = resolution.arrived
        return Payment(
            payment_id=claims.payment_id,
            order_id=claims.chosen.order_id,
            status=resolution.status,
            amount=claims.chosen.expected_payable,
            challenge=None if carried is None else challenge(carried),
            next_action=resolution.next_action,
            route=None
            if route is None
            else RouteTaken(rule=route.rule, channel_id=route.channel_id, alternatives=route.alternatives),
            message=message(
                resolution.message,
                claims.kind,
                policy.catalog.wording(claims.chosen.locale),
                carried,
                arrived,
                claims.promotion_titles.get(resolution.refused_promotion or ""),
            ),
            poll_after_ms=resolution.poll_after_ms,
            payment_token=payment_token
            if payment_token and claims.told is resolution.status
            else self._sign(replace(claims, told=resolution.status)),
            expires_at=datetime.fromtimestamp(claims.expires_at, UTC),
            received=None if arrived is None else arrived.received,
            returned=None if arrived is None or not arrived.returned.value else arrived.returned,
        )

    async def _later_statuses(
        self, claims: PaymentClaims, operation: Operation, latest: ResolvedPayment, until_s: float = float("inf")
    ) -> AsyncGenerator[ResolvedPayment, None]:
        """Yield each status after `latest` when its poll is due.

        All callers that wait for this payment share the polls.
        """
        loop, payment_id, order_id = asyncio.get_running_loop(), claims.payment_id, claims.chosen.order_id
        while not latest.resolution.final and loop.time() < until_s:
            after_ms = min(latest.resolution.poll_after_ms or _CHALLENGE_POLL_MS, (until_s - loop.time()) * 1_000)
            claims = replace(claims, told=latest.resolution.status)
            try:
                upstream = await self._polls.run(
                    payment_id,
                    lambda: self._status_query.query(payment_id, order_id, operation),
                    after_s=after_ms / 1_000,
                )
                latest = await self.resolve(claims, operation, upstream)
            except InFlight:
                return  # a stop
            except KeyReused:
                # Meanwhile the engine took another body under this id: this one has no further
                # status.
                return
            except TooManyPayments:
                continue  # no query could run now; wait for the next one
            yield latest

    async def _poll(self, claims: PaymentClaims, operation: Operation) -> None:
        """Query now, together with the callers that wait for this payment."""
        payment_id, order_id = claims.payment_id, claims.chosen.order_id
        upstream = await self._polls.run(payment_id, lambda: self._status_query.query(payment_id, order_id, operation))
        await self.resolve(claims, operation, upstream)

    async def resolve(
        self, claims: PaymentClaims, operation: Operation, upstream: UpstreamStatus | None = None
    ) -> ResolvedPayment:
        """Resolve the status, and pass it on to attempt guard, channel health and background."""
        resolved = await self._status_query.resolve(
            payment_progress(claims, operation.policy),
            claims.fingerprint,
            claims.chosen.order_id,
            operation,
            upstream,
        )
        self._background.note(claims, resolved.resolution)
        self._status_log.note(claims, operation, resolved)
        key, now_s = order_key(claims.chosen), self._now().timestamp()
        paid = resolved.upstream.acquirer.paid
        if resolved.resolution.status is PaymentStatus.SUCCEEDED and paid not in (None, claims.chosen.expected_payable):
            log_step("amount paid differs from amount requested", claims, operation, "status", level="error")
        if resolved.resolution.final:
            self._record_channel_outcome(claims, operation.policy.routing, resolved, now_s)
            self._counts.count_end(claims, resolved.resolution.status)
            self._learning.from_end(claims, operation, resolved.resolution.status, resolved.upstream.engine)
            await self._attempt_guard.mark_ended(key, claims.payment_id, _paid_by(claims.payment_id, resolved))
        elif claims.sent_at is not None:
            await self._attempt_guard.mark_live(
                replace(claims, told=resolved.resolution.status),
                max(0.0, claims.expires_at - now_s),
                acknowledged=resolved.upstream.engine.status in _ACKNOWLEDGED,
            )
        return resolved

    def _record_channel_outcome(
        self, claims: PaymentClaims, routing: Routing, resolved: ResolvedPayment, now_s: float
    ) -> None:
        """Report the engine's final word on the channel.

        Other reasons for an end say nothing about the channel.
        """
        route, engine = claims.route, resolved.upstream.engine
        if route is None or claims.sent_at is None:
            return
        monotonic_s = self._monotonic()
        sent_s = monotonic_s - max(0.0, now_s - claims.sent_at)
        if engine.status is EngineReportStatus.SUCCEEDED:
            self._channel_health.record_success(routing, claims.payment_id, route.channel_id, sent_s, monotonic_s)
        elif engine.status is EngineReportStatus.FAILED:
            self._channel_health.record_failure(
                routing, claims.payment_id, route.channel_id, engine.failure_code or "", sent_s, monotonic_s
            )


def _paid_by(payment_id: str, resolved: ResolvedPayment) -> str | None:
    """The payment that paid the order, by the acquirer's word."""
    resolution = resolved.resolution
    if resolution.status is PaymentStatus.SUCCEEDED and resolution.event is not None:
        return payment_id
    acquirer = resolved.upstream.acquirer
    return acquirer.payment_id if acquirer.status is AcquirerReportStatus.PAID else None
