"""The settings of records, log lines and traces."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from msgspec import Meta, Struct

from cashier.logs import LogLevel
from cashier.telemetry.collector_url import CollectorUrl

Share = Annotated[int, Meta(ge=0, le=10_000)]


class TelemetrySettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[telemetry]`.

    `sample_bps`: consultations that are recorded although nothing is wrong, unless the caller's
    `traceparent` decides. `slow_bps`: the part of its deadline from which a consultation is slow.
    `records_per_second`, `lines_per_second`: per worker, of bad consultations, and as many of
    sampled ones; more are counted and dropped.

    `otlp_url`: of the collector that takes spans; empty: no tracing. `service_name`: the spans'.
    `payment_sample_bps`: payments that are traced, unless the caller's `traceparent` decides.

    `log_level`: events below it are left out. `access_log`: a line for each request.
    """

    sample_bps: Share = 10
    slow_bps: Annotated[int, Meta(ge=1, le=10_000)] = 9_000
    records_per_second: Annotated[int, Meta(ge=0, le=1_000)] = 20
    lines_per_second: Annotated[int, Meta(ge=0, le=1_000)] = 20
    otlp_url: str = ""
    service_name: Annotated[str, Meta(min_length=1, max_length=255)] = "cashier"
    payment_sample_bps: Share = 10_000
    log_level: LogLevel = "info"
    access_log: bool = False


def telemetry_faults(settings: TelemetrySettings) -> Iterator[str]:
    if settings.otlp_url:
        try:
            CollectorUrl.parse(settings.otlp_url)
        except ValueError as fault:
            yield f"[telemetry] otlp_url {fault}"
