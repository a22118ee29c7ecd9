"""The kit finds each seeded fault, and nothing in a service without faults."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import cashier.sources
from cashier.conformance import rules
from cashier.conformance.examination import ConformSettings, endpoint, examine
from cashier.conformance.exchange import Endpoint
from cashier.conformance.money_checks import TrialPayment
from cashier.conformance.report import ServiceReport, Verdict, conforms
from cashier.conformance.rules import Rule
from cashier.contract.operations import SOURCES
from cashier.domain.legs import EngineLeg, EngineLegType
from cashier.domain.money import Money
from cashier.domain.pay_method import Kind
from cashier.sandbox import World

from .seeded_faults import SEEDED_FAULTS, SeededFault
from .spoiled_service import Answer, Received, spoiled_sandbox

CNY_128 = Money("CNY", 12_800)
INPUTS = {
    "order_id": "o_1001",
    "user_id": "u_1",
    "merchant_id": "m_1",
    "amount": CNY_128,
    "currency": "CNY",
    "country": "CN",
}
BATCHES = {"card": "/batch/cards", "order": "/batch/orders", "quota": "/batch/quotas"}
WALLET = EngineLeg(
    type=EngineLegType.CHANNEL, id="ch_wallet_alipay", channel_id="ch_wallet_alipay", amount=CNY_128
)  # fmt: skip


def trial_payment(source: str) -> TrialPayment:
    return TrialPayment(
        order_id="o_1001",
        user_id="u_1",
        merchant_id="m_1",
        amount=CNY_128,
        legs=(WALLET,),
        # Risk accepts a wallet, and challenges a card.
        kind=Kind.QUICK_PAY if source == "risk" else Kind.WALLET,
    )


async def report_on(url: str, source: str, **changed: Any) -> ServiceReport:
    at: Endpoint = endpoint(url, patience_s=0.15 if changed.pop("hasty", False) else 30.0)
    settings: dict[str, Any] = {
        "inputs": INPUTS,
        "timeout_ms": 30_000,
        "calls": 4,
        "concurrency": 4,
        "idle_s": 0.06,
        "batch_path": BATCHES.get(source),
        "closed_order_id": "o_1004",
        "test": trial_payment(source) if source in ("engine", "risk") else None,
        "risk": at,
    }
    return await examine(source, at, ConformSettings(**(settings | changed)))


shared_world = cache(World)


def unchanged(received: Received, answer: Answer) -> Answer:
    return answer


@pytest.mark.parametrize("source", SOURCES)
async def test_the_sandbox_conforms(source: str) -> None:
    async with spoiled_sandbox(unchanged) as url:
        report = await report_on(url, source)
    assert conforms([report])
    assert [finding for result in report.results for finding in result.findings] == []


async def test_chunks_and_unknown_fields_and_a_charset_are_no_faults() -> None:
    def chunked(received: Received, answer: Answer) -> Answer:
        if answer.status == 200:
            answer.put({**answer.json, "conform_new": [1]})
        del answer.headers["Content-Length"]
        answer.headers |= {"Transfer-Encoding": "chunked", "Content-Type": "application/json; charset=utf-8"}
        half = len(answer.body) // 2
        parts = [part for part in (answer.body[:half], answer.body[half:]) if part]
        answer.body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
        return answer

    async with spoiled_sandbox(chunked) as url:
        report = await report_on(url, "card")
    assert [finding for result in report.results for finding in result.findings] == []


@pytest.mark.parametrize("fault", SEEDED_FAULTS, ids=lambda fault: fault.name.replace(" ", "-"))
async def test_each_seeded_fault_is_found_by_its_rule(fault: SeededFault) -> None:
    hasty = fault.rule == "answers" and fault.says in ("given up", "no complete answer")
    changed = {"calls": fault.calls} | ({"timeout_ms": fault.timeout_ms} if fault.timeout_ms else {})
    # Only payments change a world, which takes a while to make.
    world = World() if fault.source in ("engine", "risk") else shared_world()
    async with spoiled_sandbox(fault.spoil, world) as url:
        report = await report_on(url, fault.source, idle_s=fault.idle_s, hasty=hasty, **changed)
    [result] = [result for result in report.results if result.rule == fault.rule]
    assert any(fault.says in finding.what for finding in result.findings), report.results
    assert result.verdict is (Verdict.WARNING if fault.advice else Verdict.FAILED)
    assert conforms([report]) is fault.advice
    assert all(finding.sent and finding.came for finding in result.findings)


async def test_answers_that_are_no_http_pass_no_rule() -> None:
    [fault] = [fault for fault in SEEDED_FAULTS if fault.name == "compressed"]
    async with spoiled_sandbox(fault.spoil, shared_world()) as url:
        report = await report_on(url, "card")
    assert {result.rule: result.verdict for result in report.results if result.verdict is not Verdict.SKIPPED} == {
        "framing": Verdict.FAILED,
        "batch": Verdict.FAILED,
    }


def test_the_page_of_the_contract_lists_every_rule() -> None:
    page = (Path(cashier.sources.__file__).parent / "README.md").read_text("utf-8")
    table = page.partition("\n| rule | holds if |\n")[2].partition("\n\n")[0]
    listed = [name for line in table.splitlines()[1:] for name in re.findall(r"`([^`]+)`", line.split("|")[1])]
    assert sorted(listed) == sorted(rule.name for rule in vars(rules).values() if isinstance(rule, Rule))


def test_every_rule_of_the_contract_has_a_seeded_fault() -> None:
    assert {fault.rule for fault in SEEDED_FAULTS} == {
        rule.name for rule in vars(rules).values() if isinstance(rule, Rule)
    }
