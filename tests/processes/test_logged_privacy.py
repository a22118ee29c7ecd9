"""Everything that a service logs in a whole run, at level debug, names no payer and no secret."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cashier.domain.pan import looks_issued
from cashier.sandbox import CASES, PaymentFault
from cashier.sandbox.weather import Fault, PlannedFault

from .payer import CHALLENGED, UNCHALLENGED, Payer, PaymentCase
from .services import SECRET, Service, write_configuration
from .upstreams import Upstreams

pytestmark = pytest.mark.processes

TELEMETRY = '[telemetry]\nlog_level = "debug"\naccess_log = true\nsample_bps = 10000\nlines_per_second = 1000\n'
PAN = "4111111111111111"
PHONE, EMAIL, ADDRESS, DEVICE = "+8613912345678", "payer@example.com", "203.0.113.77", "device-31415926"
AUTH_CODE = "285566778899001122"
SCANNED = PaymentCase("scan_to_pay", "CONSUMER_QR")
FAULTY = "configuration not reloaded: it has faults"
_DIGITS = re.compile(r"(?<![0-9a-f.])[0-9]{12,19}(?![0-9a-f])")


def personal_words() -> Iterator[str]:
    """What the sandbox's requests and answers say of a payer."""
    for case in CASES.values():
        for name in ("user_id", "merchant_id"):
            if case.request.get(name):
                yield str(case.request[name])
    yield from (PAN, PHONE, EMAIL, ADDRESS, DEVICE, AUTH_CODE, SECRET, "c_2", "acc_1", "1014", "000000")


def found_in(log: str, words: set[str]) -> list[str]:
    """The words of the list, and the runs of digits that could be card numbers."""
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    text = "\n".join(map(_values, lines))
    found = [word for word in words if re.search(rf"(?<![\w]){re.escape(word)}(?![\w])", text)]
    return found + [digits for digits in _DIGITS.findall(text) if looks_issued(digits)]


def _values(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(_values(part) for name, part in value.items() if name not in ("timestamp", "lineno", "pid"))
    if isinstance(value, list):
        return " ".join(map(_values, value))
    return value if isinstance(value, str) else ""


def test_the_search_finds_what_it_looks_for() -> None:
    words = {"u_1", "c_2"}
    assert found_in('{"a": ["x u_1"]}\n', words) == ["u_1"]
    assert found_in(json.dumps({"a": f"card {PAN}"}), words) == [PAN]
    assert found_in('{"a": "u_10 pay_c_2x"}', words) == []


async def test_a_whole_run_logs_nothing_of_its_payers(
    upstreams: Upstreams, port: int, secrets: set[str], tmp_path: Path
) -> None:
    path = write_configuration(tmp_path / "cashier.toml", port)
    path.write_text(path.read_text() + TELEMETRY + "[operations]\nenabled = false\n")
    tokens: set[str] = set()
    service = await Service(path, tokens).ready()
    try:
        async with Payer(service, tokens) as payer:
            for case in CASES.values():
                await payer.request("POST", "/v1/consult", {**case.request, "deadline_ms": 2_000})
            await _pay(payer, upstreams)
            await _attack(service)
            await _fail_each_source(payer, upstreams)
        good = path.read_text()
        path.write_text(good + f'[sources.nothing]\nurl = "http://user:{PHONE}@{ADDRESS}/"\n')
        service.expected_errors.add(FAULTY)
        service.reload()
        async with Payer(service, tokens) as payer:
            await payer.consult(UNCHALLENGED)
    finally:
        service.stop()
        await service.ended()
    log = service.output
    events = {json.loads(line)["event"] for line in log.splitlines() if line.startswith("{")}
    expected = {
        "request answered", "no answer from a source", "engine answered", "submit outcome unknown", "payment refused",
        "challenge answered", "payment ended", "challenge required by risk", "cancellation asked for",
        FAULTY,
    }  # fmt: skip
    assert expected <= events, expected - events
    assert [line for line in log.splitlines()[1:] if not line.startswith("{")] == []
    assert found_in(log, {*personal_words(), *tokens}) == []


async def _pay(payer: Payer, upstreams: Upstreams) -> None:
    device = {"ip": ADDRESS, "device_id": DEVICE, "user_agent": EMAIL}
    payment = (await payer.submit({**await payer.consult(CHALLENGED), "device": device}, "k1")).body
    payment = (await payer.answer(payment, "000000")).body
    await payer.pay_to_end(payment)
    profile = upstreams.weather.profile("engine")
    cut = PlannedFault(PaymentFault.CUT, "submit")
    upstreams.weather.change("engine", type(profile)(latency=profile.latency, next=(cut,)))
    body = {**await payer.consult(SCANNED), "auth_code": AUTH_CODE}
    payment = (await payer.submit(body, "k2")).body
    token = {"payment_token": payment["payment_token"]}
    await payer.request("POST", f"/v1/payments/{payment['payment_id']}/cancel", token)
    body = await payer.consult(UNCHALLENGED)
    body["expected_payable"] = {**body["expected_payable"], "value": 1}
    await payer.submit(body, "k3")


async def _attack(service: Service) -> None:
    hostile = {"X-Request-Id": PAN, "X-Payment-Token": PAN, "Authorization": f"Bearer {EMAIL}", "traceparent": PHONE}
    async with aiohttp.ClientSession() as session:
        for path in (f"/v1/payments/{PAN}", f"/v1/orders/{PHONE}/payment?user_id={EMAIL}", f"/{ADDRESS}?t={DEVICE}"):
            async with session.get(service.url + path, headers=hostile) as response:
                assert response.status >= 400
        for body in (PAN.encode(), f'{{"user_id": "{PHONE}", "order_id": [{PAN}]}}'.encode(), b"\xff"):
            async with session.post(f"{service.url}/v1/consult", data=body, headers=hostile) as response:
                assert response.status >= 400


async def _fail_each_source(payer: Payer, upstreams: Upstreams) -> None:
    request = {**CASES["chinese_shop"].request, "deadline_ms": 1_000}
    for fault in ("error", "garbage", "reset", "hang", "wrong_identity"):
        for source in ("card", "marketing", "quota", "member"):
            _spoil(upstreams, source, fault)
        await payer.request("POST", "/v1/consult", request)


def _spoil(upstreams: Upstreams, source: str, fault: str) -> None:
    profile = upstreams.weather.profile(source)
    upstreams.weather.change(source, type(profile)(latency=profile.latency, next=(PlannedFault(Fault(fault)),)))
