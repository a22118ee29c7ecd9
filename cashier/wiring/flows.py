"""The flows of consultation, recheck and payment over the parts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial

from cashier.consultation.cache_invalidation import CacheInvalidation
from cashier.consultation.flow import ConsultFlow, ConsultSettings
from cashier.consultation.source_table import consultation_plan, known_inputs
from cashier.fanout.plan import Plan, latest_ends_ms
from cashier.payments.attempt_leases import AttemptLeases
from cashier.payments.channel_health import ChannelHealth
from cashier.payments.flow import PaymentFlow
from cashier.payments.policy import PaymentPolicy
from cashier.payments.step_feed import StepFeed
from cashier.settings.schema import (
    Configuration,
)
from cashier.telemetry.traced_payments import TracedPaymentFlow
from cashier.telemetry.traced_ports import traced_ports, traced_recheck
from cashier.wire.transport import CallHeaders
from cashier.wiring.parts import Parts


def consult_flow(parts: Parts, config: Configuration, clock: Callable[[], datetime]) -> tuple[Plan, ConsultFlow]:
    plan = consultation_plan({name: pipeline.binding() for name, pipeline in parts.pipelines.items()})
    return plan, _consult_flow(parts, config, plan, config.settings.consult, clock)


def recheck_flow(parts: Parts, config: Configuration, clock: Callable[[], datetime]) -> ConsultFlow:
    """The recheck reads no cache, and gives every source the time that the payer can wait.

    Also one that has to wait for the order first.
    """
    settings = config.settings
    plan = consultation_plan(
        {name: pipeline.uncached_binding(settings.check_ms(name)) for name, pipeline in parts.pipelines.items()}
    )
    all_end_ms = max(latest_ends_ms(plan).values())
    patient = ConsultSettings(
        deadline_ms=all_end_ms,
        max_deadline_ms=all_end_ms,
        grace_ms=all_end_ms,
        reserve_ms=0,
        locale=settings.consult.locale,
    )
    return _consult_flow(parts, config, plan, patient, clock, recheck=True)


def _consult_flow(
    parts: Parts,
    config: Configuration,
    plan: Plan,
    settings: ConsultSettings,
    clock: Callable[[], datetime],
    *,
    recheck: bool = False,
) -> ConsultFlow:
    return ConsultFlow(
        plan=plan,
        known_inputs=known_inputs,
        catalog=config.catalog,
        weights=config.weights,
        sign=parts.tokens.sign_consult_token,
        settings=settings,
        token_ttl_s=config.settings.tokens.ttl_s,
        now=clock,
        observers=parts.observers,
        recheck=recheck,
    )


def payment_policy(config: Configuration, recheck: ConsultFlow) -> PaymentPolicy:
    return PaymentPolicy(
        settings=config.settings.accept_in_effect,
        catalog=config.catalog,
        routing=config.routing,
        consult_uncached=traced_recheck(recheck.with_case),
    )


def payment_flow(
    parts: Parts,
    policy: PaymentPolicy,
    clock: Callable[[], datetime],
    monotonic: Callable[[], float],
    call_headers: Callable[[str | None, str | None], CallHeaders],
    steps: StepFeed,
) -> PaymentFlow | None:
    """None without payment services."""
    if parts.payment_ports is None:
        return None
    make: Callable[..., PaymentFlow] = PaymentFlow
    ports, tracing = parts.payment_ports, parts.tracing
    if tracing is not None:
        make, ports = partial(TracedPaymentFlow, tracing.payments), traced_ports(ports)
        call_headers = tracing.payments.traced(call_headers)
    return make(
        ports=ports,
        policy=policy,
        tokens=parts.tokens,
        channel_health=ChannelHealth(),
        attempt_leases=AttemptLeases(parts.valkey),
        now=clock,
        monotonic=monotonic,
        call_headers=call_headers,
        forget=CacheInvalidation(parts.pipelines, parts.valkey).forget,
        metrics=parts.metrics,
        steps=steps,
    )
