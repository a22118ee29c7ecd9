"""The reader of PromQL that the other tests use."""

from __future__ import annotations

import pytest

from tests.operations.promql import Matcher, Selector, parse


def test_selectors_and_grouping_labels_are_found() -> None:
    found = parse(
        'sum by (job, kind) (rate(a_total{x="1", y!~"p|q"}[5m])) / on (job) group_left () b and c:d offset 1h > 0.5'
    )
    first = Selector("a_total", (Matcher("x", "=", "1"), Matcher("y", "!~", "p|q")), ranged=True)
    assert found.selectors == (first, Selector("b", (), ranged=False), Selector("c:d", (), ranged=False))
    assert found.grouping == {"job", "kind"}


def test_a_matcher_names_its_values() -> None:
    assert Matcher("x", "=~", "p|q").values == ("p", "q")
    assert Matcher("x", "=", "p|q").values == ("p|q",)
    assert Matcher("x", "=~", "$x").values == ()


def test_braces_without_a_metric_are_refused() -> None:
    with pytest.raises(ValueError, match="without a metric"):
        parse('sum({x="1"})')
