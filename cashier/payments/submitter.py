"""Submitter: choose the channel, split the amount into legs, send the one submit.

Does not decide the payment's status.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from msgspec import Struct

from cashier.domain import engine_contract as engine
from cashier.domain.channel_candidates import Candidates, ChosenMethod, candidates
from cashier.domain.legs import EngineLeg, LegsRefused, legs
from cashier.domain.offer_diff import Change, ChangeType
from cashier.domain.pay_method import Availability, NextAction, ReasonCode
from cashier.domain.promised_action import unkept_action
from cashier.domain.status_mapping import engine_report
from cashier.domain.upstream_report import EngineReport
from cashier.payments.attempt import Attempt
from cashier.payments.channel_health import ChannelHealth
from cashier.payments.errors import CheckUnavailable, ConsultChanged, EngineUnavailable, KeyReused, OrderBusy
from cashier.payments.ports import EnginePort
from cashier.payments.recheck import RecheckedOffer, offer_changed
from cashier.payments.step_log import log_step
from cashier.source_errors import SourceError
from cashier.tokens.payment_state_token import TokenRoute

# The alternatives travel in the payer's token, which must fit into a header. No engine tries a
# seventeenth channel.
_MAX_ALTERNATIVES = 16


class PreparedSubmit(Struct, frozen=True):
    """The submission and its route; None if the payment needs no channel.

    `promised`: the action that the offer says will follow.
    """

    submission: engine.Submission
    route: TokenRoute | None
    promised: NextAction


class Submitter:
    """`monotonic`: the clock of `channel_health`, in seconds."""

    def __init__(
        self,
        engine_port: EnginePort,
        channel_health: ChannelHealth,
        monotonic: Callable[[], float],
    ) -> None:
        self._engine = engine_port
        self._channel_health = channel_health
        self._monotonic = monotonic

    def prepare(self, attempt: Attempt, rechecked: RecheckedOffer, decision_id: str, expires_at: int) -> PreparedSubmit:
        """Call once per attempt, right before `submit`: routing counts it.

        `expires_at`: the end of the payer's time to act, in seconds since 1970. Raises
        `ConsultChanged` and `CheckUnavailable`.
        """
        eligible = candidates(rechecked.case, self._chosen_method(attempt, rechecked))
        route = self._route(attempt, eligible)
        engine_legs = legs(
            rechecked.method, eligible.quote, None if route is None else route.channel_id, attempt.means.card_token
        )
        if isinstance(engine_legs, LegsRefused):
            raise _not_payable(attempt, rechecked, eligible, engine_legs)
        alternatives = () if route is None else route.alternatives
        return PreparedSubmit(
            _submission(attempt, engine_legs, decision_id, alternatives, expires_at),
            route,
            rechecked.method.next_action,
        )

    async def submit(self, attempt: Attempt, prepared: PreparedSubmit) -> EngineReport:
        """Send the submit once.

        Raises `OrderBusy`, `KeyReused`, and `EngineUnavailable` if it certainly never left.
        """
        operation = attempt.operation
        outcome = await self._engine.submit(
            prepared.submission, operation.call_headers, operation.policy.settings.submit_ms
        )
        match outcome:
            case engine.OrderHasLiveAttempt(payment_id):
                raise OrderBusy(payment_id)
            case engine.EngineKeyReused():
                raise KeyReused
            case engine.NotSent(error):
                self._warn("submit not sent", attempt, error)
                raise EngineUnavailable
            case engine.EngineAnswered(payment) if payment.fingerprint not in (None, attempt.fingerprint):
                raise KeyReused
            case engine.OutcomeUnknown(error):
                self._warn("submit outcome unknown", attempt, error)
        report = engine_report(outcome)
        given = unkept_action(prepared.promised, attempt.kind, report)
        if given is not None:
            log_step(
                "the engine did not give the promised action",
                attempt,
                operation,
                "submit",
                level="warning",
                promised=prepared.promised.value,
                given=given.value,
            )
        return report

    def _warn(self, event: str, attempt: Attempt, error: SourceError) -> None:
        fields = {"code": error.reason.value, "why": error.detail}
        log_step(event, attempt, attempt.operation, "submit", level="warning", **fields)

    def _route(self, attempt: Attempt, eligible: Candidates) -> TokenRoute | None:
        if eligible.routed_payment is None:
            return None
        decision = self._channel_health.route(
            attempt.operation.policy.routing,
            eligible.routed_payment,
            eligible.channels,
            attempt.payment_id,
            self._monotonic(),
        )
        return TokenRoute(
            rule=decision.rule,
            channel_id=decision.channel_id,
            alternatives=decision.alternatives[:_MAX_ALTERNATIVES],
            probe=decision.probe,
        )

    def _chosen_method(self, attempt: Attempt, rechecked: RecheckedOffer) -> ChosenMethod:
        """Narrow a scanned code to its wallet, if the gateway has a channel of that provider."""
        code = attempt.means.auth_code
        provider = None if code is None else attempt.operation.policy.routing.provider_of(code)
        channels = rechecked.case.channels
        known = channels is not None and provider in channels.by_kind.get(attempt.kind, {})
        return ChosenMethod(attempt.chosen.method_id, attempt.chosen.option_id, provider=provider if known else None)


def _submission(
    attempt: Attempt,
    engine_legs: tuple[EngineLeg, ...],
    decision_id: str,
    alternatives: tuple[str, ...],
    expires_at: int,
) -> engine.Submission:
    return engine.Submission(
        payment_id=attempt.payment_id,
        order_id=attempt.chosen.order_id,
        user_id=attempt.chosen.user_id,
        merchant_id=attempt.chosen.merchant_id,
        fingerprint=attempt.fingerprint,
        amount=attempt.chosen.expected_payable,
        legs=engine_legs,
        decision_id=decision_id,
        alternatives=alternatives,
        method_id=attempt.chosen.method_id,
        option_id=attempt.chosen.option_id,
        auth_code=attempt.means.auth_code,
        return_url=attempt.means.return_url,
        expires_at=datetime.fromtimestamp(expires_at, UTC),
    )


def _not_payable(
    attempt: Attempt, rechecked: RecheckedOffer, eligible: Candidates, refused: LegsRefused
) -> CheckUnavailable | ConsultChanged:
    """The method is available, but this use of it is not.

    Either no channel takes this wallet's code, or a source that only this use needs is silent.
    """
    refusal = eligible.quote.refusal
    if refusal is not None and refusal.undetermined and refusal.source is not None:
        return CheckUnavailable((refusal.source,), rechecked.consultation.sources)
    closed = Change(
        what=ChangeType.METHOD_CLOSED,
        before=Availability.AVAILABLE,
        after=None,
        subject=attempt.chosen.method_id,
        reason=refused.reason or ReasonCode.NO_CHANNEL,
    )
    return offer_changed(attempt, (closed,), rechecked.consultation)
