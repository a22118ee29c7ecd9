"""What a query may ask for: the families, their labels, and the values of closed labels."""

from __future__ import annotations

import re

from cashier.asgi import RELOAD_RESULTS
from cashier.consultation.end import ConsultationOutcome
from cashier.consultation.source_table import SOURCE_NAMES
from cashier.domain.order import Product
from cashier.domain.pay_method import Availability, Kind
from cashier.domain.payment_state import FINAL
from cashier.fanout.ask import SourceStatus
from cashier.metrics.families import FAMILIES, Family, MetricKind
from cashier.settings.schema import SERVICES
from cashier.web.endpoint_path import ENDPOINT_PATHS
from cashier.web.overload_response import PRIORITIES
from cashier.web.problem import ProblemCode
from tests.operations.promql import Expression, Selector

# Prometheus adds them to each sample that it scrapes.
TARGET_LABELS = frozenset({"job", "instance"})
# Their values come from configurations, or from lists too long to repeat.
_OPEN_LABELS = frozenset({"endpoint", "reason", "le"})
VALUES: dict[str, frozenset[str]] = {
    "cashier_consultation_duration_seconds.outcome": frozenset(
        outcome.value.lower() for outcome in ConsultationOutcome
    ),
    "cashier_consultation_duration_seconds.product": frozenset(Product),
    "cashier_methods_total.kind": frozenset(Kind),
    "cashier_shed_total.priority": frozenset({"any", *(name.decode() for name in PRIORITIES)}),
    "cashier_http_requests_total.path": frozenset(ENDPOINT_PATHS),
    "cashier_http_requests_total.status": frozenset({"2xx", "4xx", "5xx", "none"}),
    "cashier_http_problems_total.code": frozenset(ProblemCode),
    "cashier_source_answers_total.status": frozenset(SourceStatus),
    "cashier_methods_total.availability": frozenset(Availability),
    "cashier_payments_total.kind": frozenset(Kind),
    "cashier_payments_total.status": FINAL,
    "cashier_config_reload_total.result": frozenset(RELOAD_RESULTS),
}


def faults_of(expression: Expression, recorded: frozenset[str] = frozenset()) -> list[str]:
    """What the expression names and nothing gives. `recorded`: names of recording rules."""
    faults, labels = [], set(TARGET_LABELS)
    for selector in expression.selectors:
        name = selector.metric
        if name == "up":
            continue
        if name in recorded:
            labels |= {"kind"}
            continue
        family = family_of(name)
        if family is None:
            faults.append(f"no metric is called {name}")
            continue
        own = set(family.labels) | ({"le"} if name.endswith("_bucket") else set())
        labels |= own
        faults += _faults_of_selector(selector, family, own)
    return faults + [f"no metric here has the label {label}" for label in sorted(expression.grouping - labels)]


def family_of(name: str) -> Family | None:
    """Of a sample's name: that of a histogram has a suffix."""
    family = FAMILIES.get(name)
    if family is None:
        histogram = FAMILIES.get(re.sub(r"_(bucket|sum|count)$", "", name))
        return histogram if histogram is not None and histogram.kind is MetricKind.HISTOGRAM else None
    return None if family.kind is MetricKind.HISTOGRAM else family


def _faults_of_selector(selector: Selector, family: Family, labels: set[str]) -> list[str]:
    faults = []
    for matcher in selector.matchers:
        if matcher.label not in labels | TARGET_LABELS:
            faults.append(f"{selector.metric} has no label {matcher.label}")
        faults += [
            f"{selector.metric}: {matcher.label} is never {value}"
            for value in matcher.values
            if not _may_be(family, matcher.label, value)
        ]
    if family.kind is not MetricKind.GAUGE and not selector.ranged:
        faults.append(f"{selector.metric} only grows: take its rate or increase")
    if family.kind is MetricKind.GAUGE and selector.ranged:
        faults.append(f"{selector.metric} is a gauge: it has no rate")
    return faults


def _may_be(family: Family, label: str, value: str) -> bool:
    """Lower-case values are explained in the help of their family."""
    if label in TARGET_LABELS | _OPEN_LABELS:
        return True
    if label == "source":
        return value in SOURCE_NAMES or value in SERVICES
    known = VALUES.get(f"{family.name}.{label}")
    return value in known if known is not None else re.search(rf"\b{value}\b", family.help) is not None
