"""The settings of records, log lines and traces."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

Share = Annotated[int, Meta(ge=0, le=10_000)]


class TelemetrySettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[telemetry]`.

    `sample_bps`: consultations that are recorded although nothing is wrong, unless the caller's
    `traceparent` decides. `slow_bps`: the part of its deadline from which a consultation is slow.
    `records_per_second`, `lines_per_second`: per worker; more are counted and dropped.
    """

    sample_bps: Share = 10
    slow_bps: Annotated[int, Meta(ge=1, le=10_000)] = 9_000
    records_per_second: Annotated[int, Meta(ge=0, le=1_000)] = 20
    lines_per_second: Annotated[int, Meta(ge=0, le=1_000)] = 20
