"""The text is read by prometheus-client's parser, and equals a model of what was counted."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from cashier.metrics.exposition import render
from cashier.metrics.families import BUCKET_BOUNDS_NS, FAMILIES, MetricKind
from cashier.metrics.snapshot import merged
from cashier.metrics.store import Store

SHED = "cashier_shed_total"
WAIT = "cashier_queue_wait_seconds"

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def parsed(text: str) -> Samples:
    """The samples by name and labels. The name of a sample and its labels occur once."""
    samples: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in samples
            samples[key] = sample.value
    return samples


def test_a_histogram_is_cumulative_with_sum_and_count() -> None:
    store = Store()
    for ns in (500_000, 1_000_000, 4_000_000, 9_000_000_000):
        store.histogram(WAIT).record(ns)
    lines = [line for line in render(store.snapshot()).splitlines() if line.startswith(WAIT)]
    assert lines[:3] == [
        f'{WAIT}_bucket{{le="0.001"}} 2',
        f'{WAIT}_bucket{{le="0.002"}} 2',
        f'{WAIT}_bucket{{le="0.005"}} 3',
    ]
    assert lines[-4:] == [
        f'{WAIT}_bucket{{le="1"}} 3',
        f'{WAIT}_bucket{{le="+Inf"}} 4',
        f"{WAIT}_sum 9.0055",
        f"{WAIT}_count 4",
    ]


def test_every_family_is_there_with_help_and_type_before_anything_happened() -> None:
    families = {family.name: family for family in text_string_to_metric_families(Store().render())}
    for row in FAMILIES.values():
        read = families[row.name.removesuffix("_total")]
        assert (read.type, read.documentation) == (row.kind, row.help)


HOSTILE = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20) | st.sampled_from(
    ['"', "\\", "\n", '\\"', "\\n", '"} 1\n# TYPE x counter\nx{y="', "\r\n", "%s", "%", "\u2028", ",", "{}", " ", ""]
)


@given(HOSTILE, HOSTILE)
def test_hostile_label_values_come_back_as_they_were(priority: str, step: str) -> None:
    store = Store()
    store.counter(SHED, priority, step).add(3)
    samples = parsed(store.render())
    assert samples[SHED, (("priority", priority), ("step", step))] == 3


MERGED: dict[str, Callable[[Iterable[float]], float]] = {"sum": sum, "max": max, "min": min}
_LABELED = sorted(FAMILIES.values(), key=lambda family: family.name)
EVENTS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(_LABELED),
        st.tuples(*[st.sampled_from(("a", "b\n", '"'))] * 3),
        st.integers(0, 2_000_000_000),
    ),
    max_size=60,
)


@given(EVENTS)
def test_what_several_stores_counted_is_rendered_as_their_total(events: Any) -> None:
    stores = [Store() for _ in range(3)]
    expected: Counter[tuple[str, tuple[tuple[str, str], ...]]] = Counter()
    gauges: dict[tuple[str, tuple[tuple[str, str], ...]], dict[int, float]] = {}
    for index, family, values, number in events:
        labels = values[: len(family.labels)]
        pairs = tuple(zip(family.labels, labels, strict=True))
        key = (family.name, tuple(sorted(pairs)))
        match family.kind:
            case MetricKind.COUNTER:
                stores[index].counter(family.name, *labels).add(number)
                expected[key] += number
            case MetricKind.GAUGE:
                stores[index].gauge(family.name, *labels).set(number)
                gauges.setdefault(key, {})[index] = number
            case MetricKind.HISTOGRAM:
                stores[index].histogram(family.name, *labels).record(number)
                expected[f"{family.name}_sum", key[1]] += number
                expected[f"{family.name}_count", key[1]] += 1
                for bound in (*BUCKET_BOUNDS_NS, None):
                    text = "+Inf" if bound is None else format(bound / 1e9, "g")
                    expected[f"{family.name}_bucket", tuple(sorted((*pairs, ("le", text))))] += (
                        bound is None or number <= bound
                    )
    model = {key: count / 1e9 if key[0].endswith("_sum") else float(count) for key, count in expected.items()}
    for key, by_store in gauges.items():
        model[key] = float(MERGED[FAMILIES[key[0]].merge](by_store.values()))
    assert parsed(render(merged(store.snapshot() for store in stores))) == model


PROMTOOL = shutil.which("promtool")


@pytest.mark.skipif(PROMTOOL is None, reason="promtool (Debian's package prometheus) is not installed")
def test_promtool_finds_no_fault() -> None:
    store = Store()
    for family in FAMILIES.values():
        getattr(store, family.kind)(family.name, *family.labels)
    checked = subprocess.run(
        [str(PROMTOOL), "check", "metrics"],
        input=store.render(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
