"""Overviews of the operations port, as `cashier top` receives them."""

from __future__ import annotations

from cashier.fanout.breaker import BreakerState
from cashier.fanout.load_shedding import SheddingStep
from cashier.ops.history import Quantiles
from cashier.ops.overview import (
    AnswerCount,
    Attention,
    ConfigurationOverview,
    ConsultationsOverview,
    EndpointOverview,
    Health,
    ListedPayment,
    MethodCount,
    Overview,
    PaymentCount,
    PaymentsOverview,
    RefusedCount,
    RuntimeOverview,
    SourceOverview,
    UrlOverview,
    WorkerOverview,
)
from cashier.telemetry.worker_state import (
    ConfigurationState,
    FailureState,
    LivePayment,
    LoopState,
    Reload,
    ReloadResult,
)

AT = 1_777_636_800.0  # 2026-05-01 12:00:00 UTC


def source(name: str, importance: str = "GATING", health: Health = Health.GOOD, bad: float = 0.0) -> SourceOverview:
    answers = [AnswerCount("FRESH", "", 40.0, 1 - bad)]
    failures: tuple[FailureState, ...] = ()
    endpoint = EndpointOverview(f"http://{name}:8080", Health.GOOD, BreakerState.CLOSED, 0, 2, 1, 40, 7.5)
    if bad:
        answers.insert(0, AnswerCount("ERROR", "DNS", 40.0 * bad, bad))
        failures = (FailureState(endpoint.address, "DNS", "the name is not known", 17, 3.2),)
        endpoint = EndpointOverview(endpoint.address, Health.BAD, BreakerState.OPEN, 2, 2, 0, 40, None, 1.5)
    return SourceOverview(
        name=name,
        importance=importance,
        health=health,
        finding="",
        action="",
        rate=41.5,
        bad=bad,
        quantiles=Quantiles(7.1, 11.0, 18.5),
        answers=tuple(answers),
        calls={"first": 40.0, "hedge": 1.2},
        hedges_won=0.4,
        cache_hit_ratio=0.25,
        breaker=endpoint.breaker,
        in_flight=1,
        limit=40,
        extra_calls=12,
        extra_calls_allowed=20.0,
        timeout_ms=90,
        ceiling_ms=130,
        hedge_after_ms=20.0,
        urls=(UrlOverview(endpoint.address, 40.0, Quantiles()),),
        endpoints=(endpoint,),
        failures=failures,
        trend=(),
    )


def listed(number: int) -> ListedPayment:
    payment = LivePayment(f"pay_{number:026d}", f"o_{number}", "QUICK_PAY", "PROCESSING", "", True, AT - 300)
    return ListedPayment(payment, 71, 300.0, "Ask the engine's team what became of it.")


def sick_overview() -> Overview:
    """A silent source, unknown payments, a worker that does not report, a refused reload."""
    names = ("order", "merchant", "member", "card", "balance", "channel", "marketing")
    sources = (source("quota", health=Health.BAD, bad=0.4), *(source(name) for name in names))
    loop = LoopState(2.5, 0.0, 0.0, SheddingStep.DIMMING, 0.5, (0, 3, 0, 0))
    finding = "Not called: the breaker is open on every address; methods are undetermined."
    reload = Reload(
        AT - 600, ReloadResult.REFUSED, "0123456789ab", ("cashier.toml: [shed] dim_lag_ms is not a number",)
    )
    return Overview(
        at=AT,
        window_s=30.0,
        attention=(
            Attention(Health.BAD, "Source quota", finding, "Look up its name as the service does.", "/#source-quota"),
            Attention(Health.WARN, "Payments", "7 with an unknown outcome.", "They are being looked up.", "/payments"),
        ),
        consultations=ConsultationsOverview(
            rate=41.5,
            quantiles=Quantiles(12.2, 30.0, 48.0),
            outcomes={"complete": 24.9, "degraded": 16.6},
            answered=1.0,
            within_deadline=0.99996,
            degraded={"quota": 16.6},
            trend=(),
        ),
        sources=sources,
        methods=(
            MethodCount("QUICK_PAY", "AVAILABLE", "", 80.0, 4000),
            MethodCount("QUICK_PAY", "UNDETERMINED", "SOURCE_ERROR", 33.2, 900),
            MethodCount("WALLET", "AVAILABLE", "", 120.0, 6000),
            MethodCount("WALLET", "UNAVAILABLE", "BELOW_MIN", 3.0, 90),
        ),
        payments=PaymentsOverview(
            configured=True,
            live=9,
            unknown=7,
            unknown_oldest_s=300.0,
            listed=tuple(listed(number) for number in range(7)),
            counts=(PaymentCount("WALLET", "SUCCEEDED", 3.5, 900), PaymentCount("QUICK_PAY", "SUCCEEDED", 1.0, 90)),
        ),
        runtime=RuntimeOverview(
            workers=(
                WorkerOverview(71, 900.0, 0.4, True, loop, None),
                WorkerOverview(72, 900.0, 9.0, False, None, None),
            ),
            restarts=1,
            loop_lag=Quantiles(0.6, 1.1, 2.5),
            step=SheddingStep.DIMMING,
            queue_wait=Quantiles(0.4, 1.0, 2.2),
            refused=(RefusedCount("low", "refused", 0.5, 3),),
            trace_exports={},
            traces_lost=0,
            version="0.1.0",
        ),
        configuration=ConfigurationOverview(
            ConfigurationState("cashier.toml", "0123456789ab", AT - 900, {}, reloads=(reload,)), ()
        ),
    )
