"""Plans as lines for a terminal: the worst case of each source, of a request and of a payment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.text import Text

from cashier.cli.layout import Column, paragraph, table
from cashier.consultation.amplification import Amplification, service_amplification, source_amplification
from cashier.consultation.plan_report import MOST_EXTRA_BPS, PlanReport, plan_report
from cashier.consultation.sizing import CPU_US, sizing
from cashier.core import Cashier
from cashier.fanout.cache_lifetime import CacheSettings
from cashier.payments.budgets import (
    LOOK_UPS,
    Step,
    longest_look_ms,
    longest_poll_ms,
    longest_run_ms,
    longest_submit_ms,
    look_steps,
    submit_steps,
    usual_submit_ms,
)
from cashier.settings.schema import Settings
from cashier.sources.idempotent_retry import MOST_ATTEMPTS, RetrySettings

_COLUMNS = (
    Column("source"),
    Column("class"),
    Column("needs", least=20, detail=True, label="needs: "),
    Column("timeout", right=True),
    Column("ends by", right=True),
    Column("ends by,\norder first", right=True),
    Column("calls", right=True),
    Column("in flight\nper worker", right=True),
    Column("cached", least=20, detail=True, label="cached: "),
)
_LOAD_COLUMNS = (
    Column("source"),
    Column("calls/s,\nnothing cached", right=True),
    Column("calls/s, with\nhedges, retries", right=True),
    Column("at once,\nat most", right=True),
    Column("a cache\nsaves calls", right=True),
)
_STEP_COLUMNS = (
    Column("payments", least=28),
    Column("asks", least=16),
    Column("[accept]"),
    Column("at most", right=True),
)


def plan_lines(cashier: Cashier, width: int) -> Iterator[Text]:
    report = plan_report(cashier.plan, cashier.config.settings)
    rows = []
    for line in report.lines:
        calls = f"1 per ≤ {line.batch}" if line.batch else f"1 to {line.calls}" if line.calls > 1 else "1"
        most = "any" if line.max_in_flight is None else f"≤ {line.max_in_flight}"
        cells = (
            line.name,
            line.importance.value,
            ", ".join(line.needs),
            f"{line.timeout_ms} ms",
            f"{line.ends_ms} ms",
            f"{line.ends_without_claims_ms} ms",
            calls,
            most,
            _cache_ages(line.cache),
        )
        rows.append(tuple(map(Text, cells)))
    yield from table(_COLUMNS, rows, width, indent=0)
    sentences = (
        f"The fan-out of a consultation ends after {report.worst_ms} ms at the latest, whatever the sources do."
        f" Every call is cut off at {report.deadline_ms - report.reserve_ms} ms, the deadline ({report.deadline_ms} ms)"
        f" less the reserve for our own work ({report.reserve_ms} ms), even where the table shows a later end."
        " The order comes first unless the request claims amount and country.",
        f"It makes {report.usual_calls} calls, and at most {report.worst_calls} with a hedge or a retry of each."
        f" Over ten seconds hedges and retries add at most {report.extra_bps / 100:g} % to a source's calls,"
        " or one call a second.",
        *_amplification_sentences(report),
    )
    yield from _paragraphs(sentences, width)
    yield Text()
    if cashier.payments is None:
        yield from paragraph(Text("Payments are off: they need risk, engine and acquirer under [sources]."), width)
    else:
        yield from _payment_lines(cashier.config.settings, report.usual_calls, width)


def _amplification_sentences(report: PlanReport) -> Iterator[str]:
    most = max(source_amplification(report), key=lambda each: (each.at_once, each.sustained_bps))
    yield (
        f"Worst amplification by a consultation: {_amplified(most, 'call of a source')}. The bound, which `cashier"
        f" check` holds, is × {1 + MOST_EXTRA_BPS / 10_000:g}. A batch counts as its keys. A connection that dies after"
        " earlier answers and before this one costs one request more, once for each call."
    )


def _amplified(most: Amplification, unit: str) -> str:
    if most.at_once == 1:
        return f"none, × 1 for each {unit}"
    return (
        f"× {most.at_once} for one {unit}, and × {most.sustained:g} over any ten seconds,"
        f" or {most.least_per_s} more a second of each worker"
    )


def sizing_lines(cashier: Cashier, rate: int, cpu_us: int, width: int) -> Iterator[Text]:
    """What `rate` consultations per second need over all workers."""
    settings = cashier.config.settings
    needed = sizing(plan_report(cashier.plan, settings), rate, cpu_us)
    rows = [
        (load.name, f"{load.usual:,}", f"{load.most:,}", f"{load.in_flight:,}", "yes" if load.is_cached else "no")
        for load in needed.sources
    ]
    yield Text()
    yield Text(f"{rate:,} consultations per second, over all workers", style="bold")
    yield Text()
    yield from table(_LOAD_COLUMNS, [tuple(map(Text, row)) for row in rows], width, indent=0)
    most = sum(load.most for load in needed.sources)
    sentences = [
        f"CPU: {needed.cores:.1f} cores at {cpu_us} µs per consultation, so {needed.workers} workers that are busy for"
        " 55 % of the time, a core each. Payments and pages come on top."
        + (" `python -m benchmarks cost` measures the µs on your machine." if cpu_us == CPU_US else ""),
        f"Upstream: at most {most:,} calls per second, {most / rate:.2f} per consultation. Each source must take the"
        " rate of its first column when caches are cold, as after a restart; those with a cache see less later.",
        "Connections: one per request at once; the most is reached when a source takes its whole timeout.",
    ]
    if settings.cache.shared:
        sentences.append(
            f"Shared cache: at most {needed.cache_operations:,} reads and writes per second, when nothing is cached."
        )
    yield from _paragraphs(sentences, width)


def _payment_lines(settings: Settings, source_calls: int, width: int) -> Iterator[Text]:
    accept = settings.accept_in_effect
    rows: list[tuple[Text, ...]] = []
    for heading, steps in (("A submit", submit_steps(accept)), ("A look, a cancellation", look_steps(accept))):
        rows.append((Text(heading, style="bold"), Text(), Text(), Text()))
        rows += [tuple(map(Text, _step_cells(step))) for step in steps]
    yield from table(_STEP_COLUMNS, rows, width, indent=0)
    yield from _paragraphs(_payment_sentences(settings, source_calls), width)


def _step_cells(step: Step) -> tuple[str, ...]:
    name = f"{step.name}, if {step.condition}" if step.condition else step.name
    asks = "all sources at once" if step.asks == "sources" else step.asks
    return name, asks, step.key, f"{step.ms} ms" if step.times == 1 else f"{step.times} × {step.ms} ms"


def _payment_sentences(settings: Settings, source_calls: int) -> Iterator[str]:
    accept, drain_s = settings.accept_in_effect, settings.server.drain_s
    usual_ms, longest_ms = usual_submit_ms(accept), longest_submit_ms(accept)
    yield (
        f"A submit ends after {_seconds(usual_ms)} at the latest where nothing has changed since the consultation,"
        f" and after {_seconds(longest_ms)} whatever happens. It makes {source_calls + 3} calls, and one to the"
        " acquirer where the engine's answer is final. An answer to a challenge takes up to"
        f" {_seconds(accept.decide_ms)} more. A submit that runs already, here or in another worker, is waited for"
        f" as long as it may take: up to {_seconds(longest_ms)}."
    )
    look_ms = longest_look_ms(accept)
    yield (
        f"A look and a cancellation end after {_seconds(look_ms)} at the latest, a long poll after"
        f" {_seconds(longest_poll_ms(accept))}: a look before the wait of wait_ms = {accept.wait_ms}, and one after it."
        f" Engine and acquirer have the whole of look_ms = {accept.look_ms} for a status:"
        f" {'; '.join(_tries(name, settings) for name in ('engine', 'acquirer'))}."
    )
    engine, acquirer = service_amplification(settings)
    yield (
        f"Worst amplification by a look: {_amplified(engine, 'look-up at the engine')};"
        f" {_amplified(acquirer, 'look-up at the acquirer')}. The bound is × {MOST_ATTEMPTS} for one look-up. A look"
        f" that reverses makes {LOOK_UPS['engine']} look-ups at the engine and {LOOK_UPS['acquirer']} at the acquirer,"
        f" so at most {LOOK_UPS['engine'] * engine.at_once} and {LOOK_UPS['acquirer'] * acquirer.at_once} calls."
        " Callers of one payment share them."
    )
    gateway_ms = max(longest_run_ms(accept), longest_poll_ms(accept))
    yield (
        f"A gateway must wait {_seconds(gateway_ms)} for an answer; a stream of payment events lasts up to follow_s ="
        f" {accept.follow_s}. A stop waits drain_s = {drain_s} for answers, then"
        f" {_seconds(longest_run_ms(accept))} at most for payments that are still under way."
    )


def _tries(name: str, settings: Settings) -> str:
    service = settings.sources.service(name)
    tries = RetrySettings() if service is None else service.tries
    if tries.attempts == 1:
        return f"one attempt at the {name}"
    after_ms = tries.next_after_ms(settings.accept.look_ms)
    return f"at the {name} up to {tries.attempts} attempts, the next beside one that is silent for {after_ms} ms"


def _seconds(ms: int) -> str:
    return f"{ms / 1_000:g} s"


def _paragraphs(sentences: Iterable[str], width: int) -> Iterator[Text]:
    for sentence in sentences:
        yield Text()
        yield from paragraph(Text(sentence), width)


def _cache_ages(cache: CacheSettings) -> str:
    if not cache.on:
        return "never"
    return f"{_duration(cache.fresh_s)} fresh, {_duration(cache.stale_s)} stale, {_duration(cache.error_s)} on error"


def _duration(seconds: float) -> str:
    if seconds >= 60 and seconds % 60 == 0:
        return f"{seconds / 60:g} min" if seconds < 3600 or seconds % 3600 else f"{seconds / 3600:g} h"
    return f"{seconds:g} s"
