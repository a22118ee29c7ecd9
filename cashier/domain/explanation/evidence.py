"""Evidence: what one consultation had before it, and the configuration that judged it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from msgspec import Struct

from cashier.domain.catalog import Catalog
from cashier.domain.channel_record import ChannelRecord
from cashier.domain.explanation.schema import Fact, SourceEvidence
from cashier.domain.order import ConsultRequest
from cashier.domain.ranking import Weights
from cashier.domain.routing_rules import Routing
from cashier.source_errors import Missing

REQUEST, CONFIGURATION, CLOCK = "request", "configuration", "clock"


class Evidence(Struct, frozen=True):
    """`answers`: by source, the answer, None for "there is none", or a `Missing`."""

    request: ConsultRequest
    answers: Mapping[str, Any]
    now: datetime
    sources: tuple[SourceEvidence, ...] = ()

    @property
    def silent(self) -> tuple[str, ...]:
        return tuple(name for name, answer in self.answers.items() if isinstance(answer, Missing))

    def fact(self, name: str, value: Any, source: str) -> Fact:
        report = next((report for report in self.sources if report.name == source), None)
        return Fact(name, value, source) if report is None else Fact(name, value, source, report.status, report.age_ms)


class Judgement(Struct, frozen=True):
    """The configuration, and what this process has learned about channels.

    `records`, `now_s`: as for `routing.route`.
    """

    catalog: Catalog
    weights: Weights
    routing: Routing
    records: Mapping[str, ChannelRecord] = {}
    now_s: int = 0
