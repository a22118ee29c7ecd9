"""What an examination found: a row per rule, findings with both sides of the exchange, times."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from cashier.conformance.exchange import Exchange
from cashier.conformance.rules import Rule
from cashier.conformance.schema import without_indexes

# Enough to see what all of a kind have in common; the others are counted.
_FINDINGS_OF_RULE = 20


class Verdict(StrEnum):
    PASSED = "PASSED"
    FAILED = "FAILED"
    WARNING = "WARNING"
    SKIPPED = "SKIPPED"


class Finding(Struct, frozen=True, kw_only=True):
    """One kind of breach. `sent`, `came`: of its first exchange, redacted. `times`: how often."""

    what: str
    sent: str
    came: str
    times: int = 1


class RuleResult(Struct, frozen=True, kw_only=True):
    """`tried`: exchanges that could have broken the rule. `note`: why it was skipped, and what
    was measured.
    """

    rule: str
    verdict: Verdict
    title: str
    contract: str
    cost: str
    tried: int
    note: str = ""
    findings: tuple[Finding, ...] = ()


class Latency(Struct, frozen=True):
    """Of answers one after another on kept connections, in ms. `connect_ms`: TCP and TLS."""

    calls: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    connect_ms: float
    timeout_ms: int


class ServiceReport(Struct, frozen=True, kw_only=True):
    """`address`: empty for a source without an address. `not_examined`: why there are no rows."""

    source: str
    address: str
    results: tuple[RuleResult, ...] = ()
    latency: Latency | None = None
    not_examined: str | None = None


def conforms(reports: Iterable[ServiceReport]) -> bool:
    """True if something was tried and no rule of the contract is broken."""
    results = [result for report in reports for result in report.results]
    verdicts = {result.verdict for result in results}
    return Verdict.PASSED in verdicts and Verdict.FAILED not in verdicts


class Ledger:
    """Collects what the checks of one service find. `silence`: what its silence means."""

    def __init__(self, silence: str) -> None:
        self._silence = silence
        self._tried: dict[Rule, int] = {}
        self._notes: dict[Rule, str] = {}
        self._findings: dict[Rule, dict[str, Finding]] = {}

    def tried(self, *rules: Rule) -> None:
        for rule in rules:
            self._tried[rule] = self._tried.get(rule, 0) + 1

    def find(self, rule: Rule, what: str, exchange: Exchange) -> None:
        """A breach. Those that differ only in the place within a list or a number are counted."""
        found = self._findings.setdefault(rule, {})
        key = without_indexes(what)
        if key in found:
            found[key] = replace(found[key], times=found[key].times + 1)
        elif len(found) < _FINDINGS_OF_RULE:
            found[key] = Finding(what=what, sent=exchange.sent, came=exchange.came)

    def note(self, rule: Rule, text: str) -> None:
        """What was measured, or why the rule was not tried."""
        self._notes[rule] = text

    def results(self, rules: Sequence[Rule]) -> tuple[RuleResult, ...]:
        return tuple(self._result(rule) for rule in rules)

    def _result(self, rule: Rule) -> RuleResult:
        findings = tuple(self._findings.get(rule, {}).values())
        tried = self._tried.get(rule, 0)
        if findings:
            verdict = Verdict.WARNING if rule.advice else Verdict.FAILED
        else:
            verdict = Verdict.PASSED if tried else Verdict.SKIPPED
        return RuleResult(
            rule=rule.name,
            verdict=verdict,
            title=rule.title,
            contract=rule.contract,
            cost=rule.cost.replace("{silence}", self._silence),
            tried=tried,
            note=self._notes.get(rule, "" if tried or findings else "nothing to try it with"),
            findings=findings,
        )


def as_json(reports: Sequence[ServiceReport]) -> dict[str, Any]:
    return {"conforms": conforms(reports), "services": msgspec.to_builtins(reports)}


def as_junit(reports: Sequence[ServiceReport]) -> bytes:
    """JUnit XML: a suite per service, a test per rule. Warnings are output of tests that pass."""
    root = ET.Element("testsuites", name="cashier conform")
    for report in reports:
        suite = ET.SubElement(root, "testsuite", name=f"{report.source} {report.address}".strip())
        verdicts = [result.verdict for result in report.results]
        skipped = verdicts.count(Verdict.SKIPPED) + (report.not_examined is not None)
        suite.set("tests", str(len(verdicts) + (report.not_examined is not None)))
        suite.set("failures", str(verdicts.count(Verdict.FAILED)))
        suite.set("errors", "0")
        suite.set("skipped", str(skipped))
        for result in report.results:
            _test_case(suite, report.source, result)
        if report.not_examined is not None:
            case = ET.SubElement(suite, "testcase", classname=f"conform.{report.source}", name="examined")
            ET.SubElement(case, "skipped", message=_for_xml(report.not_examined))
    ET.indent(root)
    document: bytes = ET.tostring(root, "utf-8", xml_declaration=True)
    return document + b"\n"


def _test_case(suite: ET.Element, source: str, result: RuleResult) -> None:
    case = ET.SubElement(suite, "testcase", classname=f"conform.{source}", name=result.rule)
    text = "\n\n".join(
        f"{finding.what}{f' ({finding.times} times)' if finding.times > 1 else ''}\n"
        f"sent: {finding.sent}\ncame: {finding.came}\ncontract: {result.contract}\ncost: {result.cost}"
        for finding in result.findings
    )
    if result.verdict is Verdict.SKIPPED:
        ET.SubElement(case, "skipped", message=_for_xml(result.note))
    elif result.verdict is Verdict.FAILED:
        message = "; ".join(finding.what for finding in result.findings)
        ET.SubElement(case, "failure", message=_for_xml(message), type=result.rule).text = _for_xml(text)
    elif text or result.note:
        ET.SubElement(case, "system-out").text = _for_xml(text or result.note)


def _for_xml(text: str) -> str:
    """Control characters, which an upstream may send, are no XML."""
    return "".join(each if each.isprintable() or each == "\n" else "\N{REPLACEMENT CHARACTER}" for each in text)
