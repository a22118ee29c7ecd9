"""What is not as it should be, the worst first, each with what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cashier.fanout.load_shedding import SheddingStep
from cashier.ops.advice import LEFT_FOR_S, LEFT_PAYMENT_ADVICE, NEEDS_A_PERSON_S
from cashier.ops.overview import (
    Attention,
    ConfigurationOverview,
    ConsultationsOverview,
    Health,
    PaymentsOverview,
    RuntimeOverview,
    SourceOverview,
)
from cashier.ops.percent import percent
from cashier.telemetry.worker_state import ReloadResult

_WARN_ANSWERED = 0.999
_WARN_IN_TIME = 0.999
_LAG_MS = 20.0
# Where the log has nothing to say about a worker that does not report.
_SILENT = "It may hang, or be starved of CPU: look at its process and at the log."


def attention(
    consultations: ConsultationsOverview,
    sources: Sequence[SourceOverview],
    payments: PaymentsOverview,
    runtime: RuntimeOverview,
    configuration: ConfigurationOverview | None,
) -> tuple[Attention, ...]:
    found = [
        *_of_consultations(consultations),
        *_of_sources(sources),
        *_of_payments(payments),
        *_of_left_payments(payments),
        *_of_runtime(runtime),
        *_of_configuration(configuration),
    ]
    return tuple(sorted(found, key=lambda each: list(Health).index(each.health)))


def _of_consultations(consultations: ConsultationsOverview) -> Iterator[Attention]:
    answered, in_time = consultations.answered, consultations.within_deadline
    if answered is not None and answered < _WARN_ANSWERED:
        yield Attention(
            Health.BAD,
            "Consultations",
            f"{percent(1 - answered)} end without an answer.",
            "See which required source fails below, and the failed consultations.",
            "/consultations",
        )
    if in_time is not None and in_time < _WARN_IN_TIME:
        yield Attention(
            Health.WARN,
            "Consultations",
            f"{percent(1 - in_time)} of consultations end after the deadline.",
            "This process is late, not a source: see loop lag and queue, and add workers.",
            "/runtime",
        )


def _of_sources(sources: Sequence[SourceOverview]) -> Iterator[Attention]:
    for source in sources:
        if source.finding:
            page = f"/#source-{source.name}"
            yield Attention(source.health, f"Source {source.name}", source.finding, source.action, page)


def _of_payments(payments: PaymentsOverview) -> Iterator[Attention]:
    oldest_s = payments.unknown_oldest_s
    if oldest_s is not None:
        needs_a_person = oldest_s >= NEEDS_A_PERSON_S
        yield Attention(
            Health.BAD if needs_a_person else Health.WARN,
            "Payments",
            f"{payments.unknown} with an unknown outcome, the oldest for {oldest_s:.0f} s.",
            "Money may have moved: see what to do about each." if needs_a_person else "They are being looked up.",
            "/payments",
        )


def _of_left_payments(payments: PaymentsOverview) -> Iterator[Attention]:
    recent = [each for each in payments.left if each.age_s < LEFT_FOR_S]
    if recent:
        finding = f"{len(recent)} without an end were left by a worker that has gone."
        yield Attention(Health.WARN, "Payments", finding, LEFT_PAYMENT_ADVICE, "/payments")


def _of_runtime(runtime: RuntimeOverview) -> Iterator[Attention]:
    silent = [str(worker.pid) for worker in runtime.workers if not worker.reports]
    if silent:
        yield Attention(Health.BAD, "Workers", f"No report from {', '.join(silent)}.", _SILENT, "/runtime")
    if runtime.step == SheddingStep.REFUSING:
        finding = "Callers are refused for overload."
        yield Attention(Health.BAD, "Load", finding, "Add workers or machines.", "/runtime")
    elif runtime.step != SheddingStep.CLEAR:
        finding = f"Optional work is left out for overload ({runtime.step.lower()})."
        yield Attention(Health.WARN, "Load", finding, "Add workers before callers are refused.", "/runtime")
    withheld_ms = max((worker.loop.withheld_ms for worker in runtime.workers if worker.loop), default=0.0)
    if withheld_ms >= _LAG_MS:
        yield Attention(
            Health.WARN,
            "Machine",
            f"The event loop gets its core {withheld_ms:.0f} ms late.",
            "Another program, a CPU quota or blocking code takes it: look at the machine.",
            "/runtime",
        )
    if runtime.traces_lost:
        yield Attention(
            Health.WARN,
            "Traces",
            f"{runtime.traces_lost} operations were not exported.",
            "Look at the collector of traces; the log names its answer.",
            "/runtime",
        )
    lost = [worker for worker in runtime.workers if worker.shared_cache and not worker.shared_cache.coherent]
    if lost:
        yield Attention(
            Health.WARN,
            "Valkey",
            f"{len(lost)} of {len(runtime.workers)} workers do not receive invalidations.",
            "Answers are cached for 2 s only meanwhile: look at Valkey and the network.",
            "/runtime",
        )


def _of_configuration(configuration: ConfigurationOverview | None) -> Iterator[Attention]:
    if configuration is None:
        yield Attention(
            Health.BAD,
            "Workers",
            "No worker reports.",
            "The service may just be starting. If this stays: look at its log.",
            "/runtime",
        )
        return
    last = configuration.state.reloads[0]
    if last.result is not ReloadResult.APPLIED:
        yield Attention(
            Health.WARN,
            "Configuration",
            "The last reload was refused; the last good configuration is in effect.",
            "See the faults, mend the file, and reload again (SIGHUP).",
            "/configuration",
        )
    elif last.takes_a_restart:
        yield Attention(
            Health.WARN,
            "Configuration",
            f"{len(last.takes_a_restart)} changes take a restart.",
            "Restart the service when it suits.",
            "/configuration",
        )
    if configuration.differs:
        pids = ", ".join(map(str, configuration.differs))
        yield Attention(
            Health.WARN,
            "Configuration",
            f"Workers {pids} have another one.",
            "A reload may be under way. If this stays: restart the service.",
            "/configuration",
        )
