"""The Prometheus rules: they read what there is, say what to do, and fire when they should."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from cashier.consultation.source_table import SOURCE_SPECS
from cashier.fanout.ask import Importance
from tests.operations.known_metrics import TARGET_LABELS, faults_of
from tests.operations.promql import parse
from tests.support.programs import required_program

FOLDER = Path(__file__).parents[2] / "config/operations"
RULES = [
    rule for group in yaml.safe_load((FOLDER / "alerts.yml").read_text("utf-8"))["groups"] for rule in group["rules"]
]
ALERTS = [rule for rule in RULES if "alert" in rule]
RECORDED = frozenset(rule["record"] for rule in RULES if "record" in rule)
CASES = yaml.safe_load((FOLDER / "alerts_test.yml").read_text("utf-8"))["tests"]
NAME = re.compile(r"\bCashier[A-Z]\w+")


def name_of(rule: dict[str, Any]) -> str:
    return str(rule.get("alert") or rule["record"])


@pytest.mark.parametrize("rule", RULES, ids=name_of)
def test_each_rule_names_metrics_labels_and_values_that_exist(rule: dict[str, Any]) -> None:
    assert faults_of(parse(rule["expr"]), RECORDED) == []


@pytest.mark.parametrize("series", sorted({s["series"] for case in CASES for s in case["input_series"]}))
def test_the_test_series_are_of_metrics_that_exist(series: str) -> None:
    # A series is an instant selector, so its counters have no range: add one.
    name = parse(series).selectors[0].metric
    gauges = ("cashier_breaker_state", "cashier_payment_unknown_oldest_seconds", "cashier_discovery_age_seconds")
    assert faults_of(parse(series if name in gauges else f"rate({series}[1m])")) == []


def test_each_recorded_series_is_used() -> None:
    used = {selector.metric for rule in ALERTS for selector in parse(rule["expr"]).selectors}
    assert used >= RECORDED


@pytest.mark.parametrize("rule", ALERTS, ids=name_of)
def test_each_alert_has_a_severity_a_summary_and_numbered_steps(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert set(rule["annotations"]) == {"summary", "runbook"}
    steps = re.findall(r"^(\d)\. ", rule["annotations"]["runbook"], re.MULTILINE)
    assert steps == [str(number + 1) for number in range(len(steps))]
    assert len(steps) >= 2


@pytest.mark.parametrize("rule", ALERTS, ids=name_of)
def test_the_text_of_an_alert_names_labels_that_it_has(rule: dict[str, Any]) -> None:
    named = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
    assert named <= parse(rule["expr"]).grouping | set(rule["labels"]) | TARGET_LABELS | {"kind"}


def test_the_gating_sources_are_those_of_the_table() -> None:
    (rule,) = (rule for rule in ALERTS if rule["alert"] == "CashierGatingSourceSilent")
    named = {m.value for s in parse(rule["expr"]).selectors for m in s.matchers if m.label == "source"}
    assert named == {"|".join(s.source.name for s in SOURCE_SPECS if s.importance is Importance.GATING)}


def test_each_alert_that_is_mentioned_exists_and_is_in_the_readme() -> None:
    names = {rule["alert"] for rule in ALERTS}
    readme = (FOLDER / "README.md").read_text("utf-8")
    assert set(re.findall(r"^\| `(Cashier\w+)`", readme, re.MULTILINE)) == names
    for file in ("alerts.yml", "panels.py", "README.md"):
        assert set(NAME.findall((FOLDER / file).read_text("utf-8"))) <= names


def test_each_alert_is_expected_to_fire_in_a_case_and_to_be_silent_in_one() -> None:
    expected = " ".join(str(check["exp_samples"]) for case in CASES for check in case["promql_expr_test"])
    assert {rule["alert"] for rule in ALERTS} == set(NAME.findall(expected))
    assert all(any(not check["exp_samples"] for check in case["promql_expr_test"]) for case in CASES)


@pytest.mark.peers
@pytest.mark.parametrize("command", ["check rules alerts.yml", "test rules alerts_test.yml"])
def test_promtool_accepts_the_rules_and_they_fire_as_expected(request: pytest.FixtureRequest, command: str) -> None:
    promtool = required_program(request, "promtool")
    done = subprocess.run(
        [promtool, *command.split()], check=False, cwd=FOLDER, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
