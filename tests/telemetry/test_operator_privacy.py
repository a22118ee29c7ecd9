"""Whatever upstreams answer, nothing that operators see has a payer's data or a secret.

Each fault is one of an upstream that repeats what it knows of the payer wherever it can: in pages,
headers, addresses, fields of the wrong type, names of fields, codes.
"""

from __future__ import annotations

import io
import json
import re
import sys
import zlib
from asyncio import Event
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec
import pytest
import structlog
from aiohttp import web
from starlette.testclient import TestClient

from cashier.consultation.answer import ConsultError
from cashier.consultation.source_table import SOURCE_NAMES
from cashier.core import Cashier
from cashier.logs import configure_logs, set_log_level
from cashier.ops.application import OperationsState, application
from cashier.ops.console.rendering import PAGES
from cashier.ops.live_state import LiveState
from cashier.ops.record_store import record_key
from cashier.payments.errors import AcceptError
from cashier.payments.step_feed import PaymentStep
from cashier.sandbox import CASES
from cashier.settings.schema import SERVICES
from cashier.source_errors import Garbled, Overloaded, TimedOut, Unreachable, WrongIdentity
from cashier.telemetry.replay import CannotReplay, replayed, unpacked
from tests.telemetry.rig import OTP, Rig, rig

Answer = Callable[[web.Request, web.StreamResponse], web.StreamResponse]
# What the upstreams know of the payer.
PAN, PHONE, MAIL, NAME, TOKEN = "4111111111111111", "13912345678", "payer@example.com", "王小明", "tok-9f8e7d6c5b4a"
TOLD = f"{NAME} {PHONE} {MAIL} {PAN} {TOKEN}"
# What the requests and right answers have of payers: users, cards, accounts, digits, the device.
OF_REQUESTS = {"203.0.113.77", "device-of-the-payer", "Browser/1", OTP, "c_2", "acc_1", "1014", "138****", "s" * 32}
IDS = {str(CASES[case].request.get(name)) for case in CASES for name in ("user_id", "merchant_id")} - {"None"}
PERSONAL = {PAN, PHONE, MAIL, NAME, TOKEN, *OF_REQUESTS, *IDS}
PAID = [
    ("chinese_shop", "QUICK_PAY:c_2"),
    ("balance_is_enough", "BALANCE:acc_1"),
    ("listed_by_risk", "WALLET:ALIPAY"),
]


def page(status: int, **headers: str) -> Answer:
    """A page in the place of an answer, with `TOLD` in it."""
    latin = TOLD.replace(NAME, "")

    def answer(_request: web.Request, _response: web.StreamResponse) -> web.StreamResponse:
        named = {name.replace("_", "-"): value.format(told=latin) for name, value in headers.items()}
        text = f"<html><title>{TOLD}</title></html>"
        return web.Response(status=status, reason=latin, text=text, headers=named, content_type="text/html")

    return answer


def body(change: Callable[[Any], Any]) -> Answer:
    """The right answer, changed."""

    def answer(_request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
        if not isinstance(response, web.Response) or not isinstance(response.body, bytes) or not response.body:
            return response
        return web.Response(status=response.status, body=json.dumps(change(json.loads(response.body))).encode())

    return answer


def everywhere(value: Any, leaf: Any, *, of: type | tuple[type, ...]) -> Any:
    """`value` with `leaf` in the place of all its values of these types."""
    if isinstance(value, dict):
        return {name: everywhere(part, leaf, of=of) for name, part in value.items()}
    if isinstance(value, list):
        return [everywhere(part, leaf, of=of) for part in value]
    return leaf if isinstance(value, of) else value


def one_field(name: str, value: Any, leaf: Any) -> Any:
    if isinstance(value, dict):
        return {key: leaf if key == name else one_field(name, part, leaf) for key, part in value.items()}
    return [one_field(name, part, leaf) for part in value] if isinstance(value, list) else value


def renamed(value: Any) -> Any:
    if isinstance(value, dict):
        return {TOLD: TOLD, PAN: {PHONE: [TOLD]}} | {name: renamed(part) for name, part in value.items()}
    return [renamed(part) for part in value] if isinstance(value, list) else value


FAULTS: dict[str, Answer] = {
    **{f"a page with {status}": page(status) for status in (200, 400, 401, 403, 404, 409, 422, 429, 500, 502, 503)},
    "a redirect to a URL with a token": page(302, Location="http://127.0.0.1:1/?token={told}"),
    "headers": page(503, Retry_After="{told}", X_User="{told}", Set_Cookie="user={told}", Server="{told}"),
    "a coding": page(200, Content_Encoding="{told}"),
    "no JSON": body(lambda _: {}),
    "texts for numbers": body(lambda value: everywhere(value, TOLD, of=(int, float))),
    "numbers for texts": body(lambda value: everywhere(value, int(PAN), of=str)),
    "texts for all": body(lambda value: everywhere(value, TOLD, of=(int, float, str, bool, type(None)))),
    "objects for texts": body(lambda value: everywhere(value, {TOLD: TOLD}, of=str)),
    "lists for the answer": body(lambda value: [TOLD, value]),
    "a text for the answer": body(lambda _: TOLD),
    "unknown fields": body(renamed),
    **{
        f"{name} of {kind}": body(partial(one_field, name, leaf=leaf))
        for name in ("status", "code", "reason", "type", "decision", "user_id", "order_id", "last4", "expires_at")
        for kind, leaf in (("a person", NAME), ("a number", PHONE), ("a card", PAN), ("a text", TOLD))
    },
}


GROUPS = 6


class Seen:
    """Everything that operators see of one cashier."""

    def __init__(self, shop: Rig, log: io.StringIO) -> None:
        self._shop = shop
        self._log = log
        self._steps: list[bytes] = []
        shop.cashier.payment_steps.send = self._steps.append

    def texts(self) -> Iterator[tuple[str, str]]:
        cashier = self._shop.cashier
        yield "metrics", cashier.metrics.render()
        yield "state", msgspec.json.encode(cashier.state()).decode()
        for record in cashier.recorder.records():
            yield "record", msgspec.json.encode(msgspec.structs.replace(record, facts=None)).decode()
            if record.facts is not None:
                yield "facts", zlib.decompress(record.facts).decode()
        yield from self._pages(cashier)
        yield from self._replays(cashier)

    def _pages(self, cashier: Cashier) -> Iterator[tuple[str, str]]:
        state = OperationsState(cashier.config, None, None, Event())
        state.records.put_state(cashier.state())
        records = cashier.recorder.records()
        for record in reversed(records):
            state.records.put_record(record, msgspec.json.encode(record))
        steps = [msgspec.json.decode(body, type=PaymentStep) for body in self._steps]
        for step, body in zip(steps, self._steps, strict=True):
            state.records.steps.put(step.payment_id, body)
        state.live = LiveState(
            cashier.metrics.snapshot, state.records.states.values, state.records.records, state.stopping,
            state.records.payments, state.records.steps.steps,
        )  # fmt: skip
        state.live.history.sample()
        paths = [*(page.path for page in PAGES), "/metrics", "/api/overview", "/api/records", "/api/payments"]
        paths += [f"/consultations/{record_key(record)}" for record in records[:5]]
        paths += [f"/payments/steps?payment_id={step.payment_id}" for step in steps]
        paths += [f"/api/payments/{step.payment_id}/steps" for step in steps]
        with TestClient(application(state), base_url="http://127.0.0.1:9464") as client:
            for path in paths:
                response = client.get(path)
                assert response.status_code == 200, path
                yield path, response.text

    def _replays(self, cashier: Cashier) -> Iterator[tuple[str, str]]:
        for record in cashier.recorder.records()[:5]:
            with suppress(CannotReplay):
                replay = replayed(unpacked(record.facts), cashier.config.catalog, cashier.config.weights)
                yield "why --from", msgspec.json.encode(replay.explanation).decode()

    async def found(self) -> set[tuple[str, str]]:
        """Personal words, and where they stand. Closes the cashier, which exports its spans."""
        texts = list(self.texts())
        await self._shop.close()
        texts += [("trace", body.decode("utf-8", "replace")) for body in self._shop.collector.exported()]
        texts += [("log", self._log.getvalue())]
        return {(place, word) for place, text in texts for word in words_in(text)}


def words_in(text: str) -> set[str]:
    """As whole words: the four digits of a card are no part of a duration. A name also as JSON
    writes it."""
    found = {word for word in PERSONAL if word in text}
    found = {word for word in found if word == NAME or re.search(rf"(?<![\w.-]){re.escape(word)}(?![\w-]|\.\d)", text)}
    return found | ({NAME} if json.dumps(NAME).strip('"') in text else set())


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    before = structlog.get_config()
    monkeypatch.setattr(sys, "stderr", stream := io.StringIO())
    configure_logs()
    set_log_level("debug")
    yield stream
    structlog.configure(**before)


CALM: dict[str, Any] = {"cache": False, "breaker": False, "retry": False, "hedge": False, "limiter": False}


def spoiled(name: str, fault: Answer) -> Callable[[str, web.Request, web.StreamResponse], web.StreamResponse]:
    """Of one upstream."""
    return lambda asked, request, right: fault(request, right) if asked == name else right


async def pay(shop: Rig, case: str, method_id: str, name: str, fault: Answer) -> None:
    """Submit, answer a challenge wrong and right, look and cancel, whatever comes of it."""
    request = await shop.payment_request(case, method_id)
    shop.spoil = spoiled(name, fault)
    payments = shop.payments()
    with suppress(AcceptError, ConsultError):
        payment = await payments.submit(request, f"key-{case}")
        for answer in ("000001", OTP):
            if payment.challenge is not None:
                payment = await payments.answer(payment.payment_id, payment.payment_token, answer)
        payment = await payments.look(payment.payment_id, payment.payment_token)
        await payments.cancel(payment.payment_id, payment.payment_token)
    shop.spoil = lambda _name, _, right: right


def test_the_search_finds_what_it_looks_for() -> None:
    assert words_in(f'"a {NAME}", c_2') == {NAME, "c_2"}
    assert words_in(f"pay_c_2 0{PHONE}") == set()
    assert words_in('"digits":"1014","elapsed_ms":1014.31') == words_in("The card 1014.") == {"1014"}
    assert words_in('"elapsed_ms":1014.31') == set()
    assert words_in(json.dumps(NAME)) == {NAME}
    assert words_in(TOLD) == {PAN, PHONE, MAIL, NAME, TOKEN}


@pytest.mark.parametrize("first", range(GROUPS))
async def test_a_source_that_tells_all_is_not_quoted(log: io.StringIO, first: int) -> None:
    async with rig(sources=dict.fromkeys(SOURCE_NAMES, CALM), records_per_second=1000, lines_per_second=1000) as shop:
        for fault in list(FAULTS)[first::GROUPS]:
            for name in SOURCE_NAMES:
                shop.spoil = spoiled(name, FAULTS[fault])
                with suppress(ConsultError):
                    await shop.consult("chinese_shop")
        reasons = {source.reason for record in shop.cashier.recorder.records() for source in record.sources}
        assert {"FIELD", "NOT_JSON"} & reasons
        assert await Seen(shop, log).found() == set()


@pytest.mark.parametrize("name", SERVICES)
@pytest.mark.parametrize("fault", ["a page with 500", "unknown fields", "code of a person"])
async def test_a_payment_service_that_tells_all_is_not_quoted(log: io.StringIO, name: str, fault: str) -> None:
    async with rig(records_per_second=1000, lines_per_second=1000, payment_sample_bps=10_000) as shop:
        seen = Seen(shop, log)
        for case, method_id in PAID:
            await pay(shop, case, method_id, name, FAULTS[fault])
        assert "/payments/steps?" in " ".join(place for place, _ in seen.texts())
        assert await seen.found() == set()
        assert len(shop.collector.spans) > 5
        assert "payment" in log.getvalue()


@pytest.mark.parametrize("code", [NAME, PHONE, PAN, "4111-1111-1111-1111", MAIL, f"u {TOKEN}", "R_1042", "x" * 65])
async def test_of_a_code_only_what_can_be_one_is_shown(log: io.StringIO, code: str) -> None:
    """Of risk's refusal, and of the engine's failure."""
    decision = {"decision": "REJECT", "decision_id": "d_1", "code": code, "text": TOLD}
    failure = {"code": code, "text": TOLD}
    async with rig(payment_sample_bps=10_000) as shop:
        seen = Seen(shop, log)
        await pay(shop, *PAID[1], "risk", body(lambda _: decision))
        await pay(
            shop, *PAID[1], "engine",
            body(lambda value: {**value, "status": "FAILED", "failure": failure} if "status" in value else value),
        )  # fmt: skip
        assert await seen.found() == set()
        shown = {value for span in shop.collector.spans for value in span.attributes.values()}
    expected = code if code == "R_1042" else "malformed"
    assert f'"code":"{expected}"' in log.getvalue()
    assert expected in shown
    assert code == expected or code not in shown


@pytest.mark.parametrize("kind", [ValueError, KeyError, Garbled, Unreachable, TimedOut, Overloaded, WrongIdentity])
async def test_a_function_that_raises_what_it_knows_is_not_quoted(log: io.StringIO, kind: type[Exception]) -> None:
    told = f"{PHONE} {MAIL} {PAN}"

    async def cards(**_inputs: Any) -> Any:
        raise kind(told)

    # With the deadline of the rig: on a busy machine that of a service leaves no answer.
    async with rig() as shop, Cashier(config=shop.cashier.config, sources={"card": cards}) as embedding:
        shop.cashiers.insert(0, embedding)
        await shop.consult("chinese_shop")
        assert await Seen(shop, log).found() == set()
        shop.cashiers.remove(embedding)
    assert "no answer from a source" in log.getvalue()
