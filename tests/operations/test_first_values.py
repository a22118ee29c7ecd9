"""Series that a query reads exist before their first event, which Prometheus would miss else.

To `rate` and `increase` a counter that appears with 1 has not grown.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator

import pytest

from cashier import asgi
from cashier.asgi import configured_app
from cashier.consultation.source_table import SOURCE_NAMES
from cashier.metrics.families import FAMILIES, Family, MetricKind
from cashier.metrics.snapshot import HistogramValue, Snapshot, merged
from cashier.ops.aggregation import WorkerStores
from cashier.settings.schema import SERVICES
from cashier.version import __version__
from tests.operations.known_metrics import VALUES, family_of
from tests.operations.promql import Selector, parse
from tests.operations.test_alerts import RULES
from tests.operations.test_dashboard import targets

# With a label whose values come from the configuration, or are too many: such a series may appear
# late. Of methods and of sources' answers the good ones are there.
OPEN = {
    "cashier_methods_total": "reason",
    "cashier_source_answers_total": "reason",
    "cashier_source_duration_seconds": "endpoint",
    "cashier_route_total": "rule, channel",
}


def selectors() -> Iterator[tuple[Selector, Family]]:
    """Of counters and histograms."""
    expressions = [*(rule["expr"] for rule in RULES), *(expression for expression, _ in targets())]
    for selector in [found for expression in expressions for found in parse(expression).selectors]:
        family = family_of(selector.metric)
        if family is not None and family.kind is not MetricKind.GAUGE:
            yield selector, family


READ = {family.name for _, family in selectors()}


@pytest.fixture(scope="module")
def at_start(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """What a scrape finds of a service that has just started."""
    file = tmp_path_factory.mktemp("configuration") / "cashier.toml"
    sections = "".join(f'[sources.{name}]\nurl = "http://127.0.0.1:1"\n' for name in (*SOURCE_NAMES, *SERVICES))
    file.write_text(sections + f'[tokens]\nsecrets = ["{"c" * 32}"]\n', "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        for configure in ("configure_logs", "set_log_level"):
            patch.setattr(asgi, configure, lambda *_: None)
        application = configured_app(str(file))
    return merged((application.metrics.snapshot(), WorkerStores(None).snapshot()))


@pytest.mark.parametrize("name", sorted(READ - OPEN.keys()))
def test_each_counter_that_a_query_reads_is_there_at_zero(at_start: Snapshot, name: str) -> None:
    counts = [value.count if isinstance(value, HistogramValue) else value for value in at_start[name].values()]
    assert counts
    assert not any(counts)


@pytest.mark.parametrize("name", sorted(READ))
def test_each_value_of_a_closed_label_is_there(at_start: Snapshot, name: str) -> None:
    labels = FAMILIES[name].labels
    for place, label in enumerate(labels):
        values = SOURCE_NAMES if label == "source" else VALUES.get(f"{name}.{label}", ())
        if OPEN.get(name) is None or label == "source":
            assert set(values) <= {child[place] for child in at_start[name]}


def test_each_value_that_a_query_names_is_there(at_start: Snapshot) -> None:
    for selector, family in selectors():
        for matcher in selector.matchers:
            if matcher.label in family.labels and family.name not in OPEN:
                exposed = {child[family.labels.index(matcher.label)] for child in at_start[family.name]}
                assert set(matcher.values) <= exposed, selector


@pytest.mark.moves("cashier_build_info")
def test_what_runs_is_named_once(at_start: Snapshot) -> None:
    assert at_start["cashier_build_info"] == {(__version__, platform.python_version()): 1}


def test_the_exceptions_are_read_and_have_those_labels() -> None:
    assert OPEN.keys() <= READ
    for name, labels in OPEN.items():
        assert set(labels.split(", ")) <= set(FAMILIES[name].labels)


def test_no_family_is_full_from_the_start(at_start: Snapshot) -> None:
    for name, children in at_start.items():
        assert len(children) < FAMILIES[name].most_children
