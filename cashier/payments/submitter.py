"""Sending: which channel, which legs, and the one submit. What came of it is told; what it means for the payer is for `standing`."""

from __future__ import annotations

from collections.abc import Callable

import structlog
from msgspec import Struct

from cashier.domain import engine_contract as engine
from cashier.domain.channel_candidates import Candidates, ChosenMethod, candidates
from cashier.domain.legs import EngineLeg, LegsRefused, legs
from cashier.domain.offer_diff import Change, ChangeType
from cashier.domain.pay_method import Availability, Kind, ReasonCode
from cashier.domain.status_mapping import engine_report
from cashier.domain.status_resolution import EngineReport
from cashier.payments.attempt import Attempt
from cashier.payments.channel_health import ChannelHealth
from cashier.payments.errors import CheckUnavailable, ConsultChanged, EngineUnavailable, KeyReused, OrderBusy
from cashier.payments.ports import EnginePort
from cashier.payments.recheck import RecheckedOffer
from cashier.payments.settings import AcceptSettings
from cashier.tokens.payment_token import TokenRoute

# They are in the payer's token, which has to fit into a header; nobody tries a seventeenth channel.
_MOST_ALTERNATIVES = 16

_log = structlog.get_logger("cashier.payments")


class PreparedSubmit(Struct, frozen=True):
    """What is to be sent, and the route it takes; None where the money needs no channel."""

    submission: engine.Submission
    route: TokenRoute | None


class Submitter:
    """Routes a checked attempt and sends it. `monotonic`: seconds of the clock that routes are learned by."""

    def __init__(
        self, upstream: EnginePort, routes: ChannelHealth, settings: AcceptSettings, monotonic: Callable[[], float]
    ) -> None:
        self._engine = upstream
        self._routes = routes
        self._settings = settings
        self._monotonic = monotonic

    def prepared(self, attempt: Attempt, checked: RecheckedOffer, decision_id: str) -> PreparedSubmit:
        """To be called once an attempt, right before it is sent: routing counts it. Raises `ConsultChanged` and `CheckUnavailable`."""
        found = candidates(checked.case, self._choice(attempt, checked))
        route = self._route(attempt, found)
        made = legs(checked.method, found.quote, None if route is None else route.channel_id, attempt.means.card_token)
        if isinstance(made, LegsRefused):
            raise _not_payable(attempt, checked, found, made)
        return PreparedSubmit(
            _submission(attempt, made, decision_id, () if route is None else route.alternatives), route
        )

    async def sent(self, attempt: Attempt, prepared: PreparedSubmit) -> EngineReport:
        """What the engine says of the payment. Raises `OrderBusy`, `KeyReused`, and `EngineUnavailable` where certainly nothing left."""
        outcome = await self._engine.submit(prepared.submission, attempt.call_headers, self._settings.submit_ms)
        match outcome:
            case engine.OrderHasLiveAttempt(payment_id):
                raise OrderBusy(payment_id)
            case engine.EngineKeyReused():
                raise KeyReused
            case engine.NotSent(error):
                _log.warning("a payment was not sent", payment_id=attempt.payment_id, why=error.detail)
                raise EngineUnavailable
            case engine.EngineAnswered(payment) if payment.fingerprint not in (None, attempt.fingerprint):
                raise KeyReused
            case engine.OutcomeUnknown(error):
                _log.warning("what became of a submit is not known", payment_id=attempt.payment_id, why=error.detail)
        return engine_report(outcome)

    def _route(self, attempt: Attempt, found: Candidates) -> TokenRoute | None:
        if found.passage is None:
            return None
        taken = self._routes.route(found.passage, found.channels, attempt.payment_id, self._monotonic())
        return TokenRoute(taken.rule, taken.channel_id, taken.alternatives[:_MOST_ALTERNATIVES], taken.probe)

    def _choice(self, attempt: Attempt, checked: RecheckedOffer) -> ChosenMethod:
        """A scanned code is its wallet's, where the gateway has a channel that it calls so."""
        code = attempt.means.auth_code
        provider = None if code is None else self._routes.routing.provider_of(code)
        known = checked.case.channels is not None and provider in checked.case.channels.by_kind.get(
            Kind.CONSUMER_QR, {}
        )
        return ChosenMethod(attempt.chosen.method_id, attempt.chosen.option_id, provider=provider if known else None)


def _submission(
    attempt: Attempt, made: tuple[EngineLeg, ...], decision_id: str, alternatives: tuple[str, ...]
) -> engine.Submission:
    return engine.Submission(
        payment_id=attempt.payment_id,
        order_id=attempt.chosen.order_id,
        user_id=attempt.chosen.user_id,
        merchant_id=attempt.chosen.merchant_id,
        fingerprint=attempt.fingerprint,
        legs=made,
        decision_id=decision_id,
        alternatives=alternatives,
        auth_code=attempt.means.auth_code,
        return_url=attempt.means.return_url,
    )


def _not_payable(
    attempt: Attempt, checked: RecheckedOffer, found: Candidates, why: LegsRefused
) -> CheckUnavailable | ConsultChanged:
    """The method as a whole is fine, but not this way: no channel for this wallet's code, or a silent source that only this way needs."""
    refusal = found.quote.refusal
    if refusal is not None and refusal.undetermined:
        return CheckUnavailable((refusal.source or "channel",), checked.consultation.sources)
    gone = Change(
        what=ChangeType.METHOD_CLOSED,
        before=Availability.AVAILABLE,
        after=None,
        subject=attempt.chosen.method_id,
        reason=why.reason or ReasonCode.NO_CHANNEL,
    )
    return ConsultChanged((gone,), checked.consultation)
