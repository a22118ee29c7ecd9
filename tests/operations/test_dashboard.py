"""The committed Grafana dashboard: it is what its generator writes, and shows what there is."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.operations.known_metrics import TARGET_LABELS, family_of, faults_of
from tests.operations.promql import parse
from tests.support.programs import required_program

FOLDER = Path(__file__).parents[2] / "config/operations"
COMMITTED = json.loads((FOLDER / "dashboard.json").read_text("utf-8"))
PANELS = [panel for panel in COMMITTED["panels"] if panel["type"] != "row"]
LABEL_VALUES = re.compile(r"label_values\((.*), (\w+)\)")


def targets() -> Iterator[tuple[str, str]]:
    """The expression and the legend of each query."""
    for panel in PANELS:
        for target in panel["targets"]:
            yield target["expr"], target["legendFormat"]
    for annotation in COMMITTED["annotations"]["list"]:
        yield annotation["expr"], annotation["titleFormat"] + annotation["textFormat"]


def test_the_committed_dashboard_is_what_the_generator_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    written = runpy.run_path(str(FOLDER / "dashboard.py"))
    text = (FOLDER / "dashboard.json").read_text("utf-8")
    assert written["encoded"](written["dashboard"]()) == text, "run `python config/operations/dashboard.py`"


@pytest.mark.parametrize("expression", sorted({expression for expression, _ in targets()}))
def test_each_query_names_metrics_labels_and_values_that_exist(expression: str) -> None:
    assert faults_of(parse(expression)) == []


@pytest.mark.parametrize("expression", sorted({expression for expression, _ in targets()}))
def test_each_query_follows_the_chosen_jobs_and_instances(expression: str) -> None:
    for selector in parse(expression).selectors:
        chosen = {matcher.label: matcher.value for matcher in selector.matchers}
        assert (chosen["job"], chosen["instance"]) == ("$job", "$instance")


@pytest.mark.parametrize(("expression", "legend"), sorted(targets()))
def test_a_legend_names_labels_that_its_query_keeps(expression: str, legend: str) -> None:
    assert set(re.findall(r"{{(\w+)}}", legend)) <= parse(expression).grouping


def test_the_variables_choose_from_labels_that_exist() -> None:
    queries = [v["query"]["query"] for v in COMMITTED["templating"]["list"] if v["type"] == "query"]
    found = [LABEL_VALUES.fullmatch(query) for query in queries]
    for match in found:
        assert match is not None
        (selector,) = parse(match[1]).selectors
        family = family_of(selector.metric)
        assert family is not None
        assert match[2] in (*family.labels, *TARGET_LABELS)
    assert len(found) == 3


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_each_panel_says_what_it_shows_and_what_to_do(panel: dict[str, Any]) -> None:
    shows, separator, advice = panel["description"].partition("\n\n**What to do:** ")
    assert separator
    assert shows.endswith(".")
    assert advice.endswith(".")


def test_no_two_panels_overlap() -> None:
    places = [panel["gridPos"] for panel in COMMITTED["panels"]]
    assert len({panel["id"] for panel in COMMITTED["panels"]}) == len(places)
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, (one, other)


@pytest.mark.peers
def test_promtool_reads_every_query(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    promtool = required_program(request, "promtool")
    queries = [expression.replace("$__rate_interval", "1m") for expression, _ in targets()]
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries)]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = subprocess.run([promtool, "check", "rules", file], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(queries)} rules found" in done.stdout
