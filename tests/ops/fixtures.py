"""Numbers, worker states and records as the operations port would have them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.testclient import TestClient

from cashier.consultation.end import ConsultationOutcome
from cashier.domain.pay_method import Availability, Kind, ReasonCode
from cashier.fanout.ask import Importance, SourceStatus
from cashier.fanout.breaker import BreakerState
from cashier.fanout.load_shedding import SheddingStep
from cashier.fanout.timeline import CallKind, CallOutcome, Flag
from cashier.metrics.store import Store
from cashier.ops.application import OperationsState, application
from cashier.ops.live_state import LiveState
from cashier.settings.loader import configuration
from cashier.telemetry.records import CallRecord, ConsultationRecord, MethodRecord, SourceRecord, Verdict
from cashier.telemetry.worker_state import (
    ConfigurationState,
    EndpointState,
    FailureState,
    LivePayment,
    LoopState,
    PaymentsState,
    Reload,
    ReloadResult,
    SharedCacheState,
    SourceState,
    WorkerState,
)
from cashier.web.auth import BearerAuth

AT = 1_800_000_000.0
URL = "http://10.0.0.7:9100"
SECRET = "s" * 40
NAMES = ("order", "merchant", "member", "card", "balance", "channel", "quota")
IMPORTANCE = {"order": "REQUIRED", "merchant": "REQUIRED", "member": "REQUIRED", "marketing": "ENRICHING"}


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def source(name: str, **changes: Any) -> SourceState:
    state = SourceState(
        name=name,
        importance=IMPORTANCE.get(name, "GATING"),
        urls=(URL,),
        timeout_ms=90,
        ceiling_ms=120,
        hedge_after_ms=12.5,
        extra_calls=2,
        extra_calls_allowed=10.0,
        endpoints=(EndpointState(URL, BreakerState.CLOSED, 3, 320, 7.5),),
    )
    return msgspec.structs.replace(state, **changes)


def configuration_state(**changes: Any) -> ConfigurationState:
    state = ConfigurationState(
        file="config/cashier.toml",
        digest="0123456789ab",
        loaded_at=AT - 600,
        settings={"consult.deadline_ms": "150", "sources.order.url": f'"{URL}"', "auth.secret": "hidden"},
        reloads=(Reload(AT - 600, ReloadResult.APPLIED, "0123456789ab"),),
    )
    return msgspec.structs.replace(state, **changes)


def worker(pid: int = 11, **changes: Any) -> WorkerState:
    state = WorkerState(
        pid=pid,
        started_at=AT - 3_600,
        at=AT - 1,
        sources=tuple(source(name) for name in (*NAMES, "marketing")),
        loop=LoopState(0.4, 0.1, 0.0, SheddingStep.CLEAR, 0.0, (0, 0, 0, 0)),
        configuration=configuration_state(),
        payments=PaymentsState(0, 0),
        shared_cache=SharedCacheState("redis://valkey:6379/0", True, True, 10, 2, 0, 0),
    )
    return msgspec.structs.replace(state, **changes)


def failure(detail: str = "HTTP status 500", reason: str = "STATUS_5XX", age_s: float = 2.0) -> FailureState:
    return FailureState(URL, reason, detail, 41, age_s)


def live_payment(payment_id: str = "pay_1", *, unknown: bool = True, sent_ago_s: float = 300.0) -> LivePayment:
    event = "engine silent" if unknown else "engine: user paying"
    return LivePayment(payment_id, "o_1001", "WALLET", "PROCESSING", event, unknown, AT - sent_ago_s)


def record(**changes: Any) -> ConsultationRecord:
    """A consultation whose quota was silent, and whose member needed a hedge."""
    calls = (
        CallRecord(URL, CallKind.FIRST, 0.4, None, CallOutcome.UNFINISHED),
        CallRecord(URL, CallKind.HEDGE, 12.5, 19.9, CallOutcome.ANSWERED),
    )
    quota = (CallRecord(URL, CallKind.FIRST, 0.5, 120.5, CallOutcome.FAILED, "TIMEOUT", "no answer in time"),)
    sources = (
        SourceRecord("order", Importance.REQUIRED, SourceStatus.FRESH, 0.3, 4.2, 120.0),
        SourceRecord(
            "member",
            Importance.REQUIRED,
            SourceStatus.FRESH,
            0.4,
            19.5,
            100.0,
            flags=(Flag.HEDGE_SENT, Flag.HEDGE_WON),
            calls=calls,
        ),
        SourceRecord(
            "quota",
            Importance.GATING,
            SourceStatus.TIMEOUT,
            0.5,
            120.0,
            120.0,
            reason="TIMEOUT",
            detail="no answer within the timeout",
            flags=(Flag.TIMEOUT,),
            calls=quota,
        ),
    )
    made = ConsultationRecord(
        started_at=datetime.fromtimestamp(AT - 5, UTC),
        request_id="req-1",
        worker=11,
        order_id="o_1001",
        product="STANDARD_CASHIER",
        terminal="APP",
        deadline_ms=150.0,
        elapsed_ms=121.3,
        outcome=ConsultationOutcome.COMPLETE,
        verdicts=(Verdict.DEGRADED, Verdict.UNDETERMINED),
        currency="CNY",
        country="CN",
        sources=sources,
        methods=(
            MethodRecord(Kind.WALLET, Availability.AVAILABLE, 1),
            MethodRecord(Kind.QUICK_PAY, Availability.UNDETERMINED, 2, ReasonCode.SOURCE_TIMEOUT, "quota"),
        ),
    )
    return msgspec.structs.replace(made, **changes)


class Port:
    """An operations port with what a test puts into it. No worker counts or reports by itself."""

    def __init__(self, **operations: Any) -> None:
        auth = operations.pop("auth", None)
        config = configuration({"operations": operations, "auth": auth or {}}, "test")
        bearer = BearerAuth(config.settings.auth) if auth else None
        self.clock = Clock()
        self.metrics = Store()
        self.workers: list[WorkerState] = [worker()]
        self.records: list[ConsultationRecord] = []
        self.stopping = asyncio.Event()
        self.state = OperationsState(config, None, bearer, self.stopping)
        self.live = LiveState(
            self.metrics.snapshot,
            lambda: self.workers,
            self._find,
            self.stopping,
            steps=self.state.records.steps.steps,
            now=lambda: AT,
        )
        self.live.history._clock_s = self.clock
        self.state.live = self.live
        self.app: Starlette = application(self.state)

    def _find(self, *, request_id: str | None = None, bad: bool | None = None) -> Iterator[ConsultationRecord]:
        found = (each for each in self.records if request_id in (None, each.request_id))
        return (each for each in found if bad in (None, each.verdicts != (Verdict.SAMPLED,)))

    def client(self, base_url: str = "http://127.0.0.1:9464", **others: Any) -> TestClient:
        return TestClient(self.app, base_url=base_url, follow_redirects=False, **others)

    def pass_seconds(self, seconds: float) -> None:
        """Time passes, and the port keeps a sample."""
        self.clock.seconds += seconds
        self.live.history.sample()


AUTH = {"mode": "jwt", "issuer": "i", "audience": "a", "secret": SECRET}
