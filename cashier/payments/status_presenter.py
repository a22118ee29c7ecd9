"""Telling: where a payment stands, to whoever asks, waits or follows; and to who should learn from it.

Every look tells two more: other workers, which attempt lives; and routing, how a channel did.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import structlog
from msgspec.structs import replace

from cashier.domain.catalog import Catalog
from cashier.domain.payment_resource import Payment, RouteTaken, challenge, message
from cashier.domain.payment_state import PaymentStatus
from cashier.domain.status_resolution import EngineReportStatus, ResolvedStatus
from cashier.payments.attempt import order_key, underway
from cashier.payments.attempt_guard import AttemptGuard
from cashier.payments.channel_health import ChannelHealth
from cashier.payments.coalescing import SharedPoll
from cashier.payments.errors import KeyReused, TooManyPayments
from cashier.payments.settings import AcceptSettings
from cashier.payments.status_query import ResolvedPayment, StatusQuery, UpstreamStatus, shows
from cashier.tokens.payment_token import PaymentClaims

_log = structlog.get_logger("cashier.payments")
# A challenge is answered here, so nobody has to be asked about it often: it may be passed in another tab, and it runs out.
_CHALLENGE_POLL_MS = 3_000


class StatusPresenter:
    """Tells of payments. `sign` makes the token of what the claims say; `now` is the wall clock, `monotonic` what routes are learned by."""

    def __init__(
        self,
        looking: StatusQuery,
        alone: AttemptGuard,
        routes: ChannelHealth,
        sign: Callable[[PaymentClaims], str],
        catalog: Catalog,
        settings: AcceptSettings,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
    ) -> None:
        self._looking = looking
        self._alone = alone
        self._routes = routes
        self._sign = sign
        self._now = now
        self._monotonic = monotonic
        self._polls: SharedPoll[UpstreamStatus] = SharedPoll()
        self.catalog = catalog
        self.settings = settings

    def __repr__(self) -> str:
        return f"<Telling {self._looking!r} {self._polls!r}>"

    def stop_waiting(self) -> None:
        self._polls.stop()

    async def drain(self) -> None:
        """When no look is under way any more."""
        await self._polls.drain()
        await self._looking.drain()

    async def stood(self, claims: PaymentClaims, call_headers: Any, heard: UpstreamStatus | None = None) -> Payment:
        """Where it stands, by a look or by what was just `heard`, under a new token that says what the claims do. Raises `TooManyPayments`."""
        return self.told(claims, (await self._see(claims, call_headers, heard)).resolution)

    async def look(self, claims: PaymentClaims, payment_token: str, call_headers: Any, wait_ms: int) -> Payment:
        """The same, after `wait_ms`, or as soon as that is something else than the token says. Raises `TooManyPayments`."""
        last = first = await self._see(claims, call_headers)
        wait_s = min(wait_ms, self.settings.wait_ms) / 1_000
        news = claims.told not in (None, first.resolution.status)
        if wait_s > 0 and not news and self._polls.waiters < self.settings.most_waiting:
            try:
                async with asyncio.timeout(wait_s), aclosing(self._turns(claims, call_headers, first)) as turns:
                    async for last in turns:
                        if shows(first.resolution, last.resolution):
                            break
            except TimeoutError:
                # As it was at the last look; where none was due in all that time, as it is now.
                last = last if last is not first else await self._see(claims, call_headers)
        return self.told(claims, last.resolution, payment_token)

    async def follow(self, claims: PaymentClaims, payment_token: str, call_headers: Any) -> AsyncGenerator[Payment, None]:
        """At once, and whenever that changes; not beyond a final status, nor beyond `follow_s`. Raises `TooManyPayments`, before the first only."""
        if self._polls.waiters >= self.settings.most_waiting:
            raise TooManyPayments
        told = await self._see(claims, call_headers)
        yield self.told(claims, told.resolution, payment_token)
        until_s = asyncio.get_running_loop().time() + self.settings.follow_s
        async with aclosing(self._turns(claims, call_headers, told, until_s)) as turns:
            async for seen in turns:
                if shows(told.resolution, seen.resolution):
                    told = seen
                    yield self.told(claims, told.resolution, payment_token)

    def told(self, claims: PaymentClaims, found: ResolvedStatus, payment_token: str | None = None) -> Payment:
        """The answer. `payment_token`: the one that the claims came in. It is told again as long as there is nothing else to say by it."""
        route, carried, told_already = claims.route, claims.challenge, claims.told is found.status
        return Payment(
            payment_id=claims.payment_id,
            order_id=claims.chosen.order_id,
            status=found.status,
            amount=claims.chosen.expected_payable,
            challenge=challenge(carried) if carried is not None and found.status is PaymentStatus.CHALLENGE else None,
            next_action=found.next_action,
            route=None
            if route is None
            else RouteTaken(rule=route.rule, channel_id=route.channel_id, alternatives=route.alternatives),
            message=message(found.message, self.catalog.texts[self.catalog.locale(claims.chosen.locale)]),
            poll_after_ms=found.poll_after_ms,
            payment_token=payment_token
            if payment_token and told_already
            else self._sign(replace(claims, told=found.status)),
            expires_at=datetime.fromtimestamp(claims.expires_at, UTC),
        )

    async def _turns(
        self, claims: PaymentClaims, call_headers: Any, seen: ResolvedPayment, until_s: float = float("inf")
    ) -> AsyncGenerator[ResolvedPayment, None]:
        """Each look after the first, as soon as it is due. All who wait for this payment share it."""
        loop, payment_id, order_id = asyncio.get_running_loop(), claims.payment_id, claims.chosen.order_id
        while not seen.resolution.final and loop.time() < until_s:
            after_ms = min(seen.resolution.poll_after_ms or _CHALLENGE_POLL_MS, (until_s - loop.time()) * 1_000)
            claims = replace(claims, told=seen.resolution.status)
            try:
                heard = await self._polls.next(
                    payment_id, after_ms, lambda: self._looking.heard(payment_id, order_id, call_headers)
                )
                if heard is None:
                    return
                seen = await self._see(claims, call_headers, heard)
            except KeyReused:
                return  # the engine has taken another body meanwhile: there is nothing more to tell of this one
            except TooManyPayments:
                continue  # no look could be taken now; who waits already waits for the next
            yield seen

    async def _see(self, claims: PaymentClaims, call_headers: Any, heard: UpstreamStatus | None = None) -> ResolvedPayment:
        seen = await self._looking.see(
            underway(claims, self.catalog), claims.fingerprint, claims.chosen.order_id, call_headers, heard
        )
        key, now_s = order_key(claims.chosen), self._now().timestamp()
        paid = seen.heard.acquirer.paid
        if seen.resolution.status is PaymentStatus.SUCCEEDED and paid not in (None, claims.chosen.expected_payable):
            _log.error(
                "the acquirer was paid another amount than was asked for", payment_id=claims.payment_id, paid=str(paid)
            )
        if seen.resolution.final:
            self._learn(claims, seen, now_s)
            await self._alone.ended(key, claims.payment_id)
        elif claims.sent_at is not None:
            await self._alone.lives(key, claims.payment_id, max(0.0, claims.expires_at - now_s))
        return seen

    def _learn(self, claims: PaymentClaims, seen: ResolvedPayment, now_s: float) -> None:
        """How the channel did that was chosen for it. What ended for another reason than the channel's says nothing of it."""
        route, engine = claims.route, seen.heard.engine
        if route is None or claims.sent_at is None:
            return
        heard_s = self._monotonic()
        began_s = heard_s - max(0.0, now_s - claims.sent_at)
        if engine.word is EngineReportStatus.SUCCEEDED:
            self._routes.worked(claims.payment_id, route.channel_id, began_s, heard_s)
        elif engine.word is EngineReportStatus.FAILED:
            self._routes.failed(claims.payment_id, route.channel_id, engine.failure_code or "", began_s, heard_s)
