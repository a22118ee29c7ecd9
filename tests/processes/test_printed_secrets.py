"""A service prints no card number, no proof of a payer and no token.

`Service` checks the output of every other service in these tests too.
"""

from __future__ import annotations

from typing import Any

import pytest

from cashier.sandbox import PaymentFault
from cashier.sandbox.weather import PlannedFault

from .payer import CHALLENGED, UNCHALLENGED, Payer, PaymentCase
from .services import Fleet, Service
from .upstreams import Call, Upstreams

pytestmark = pytest.mark.processes

PAN = "4111111111111111"
CARD = PaymentCase(UNCHALLENGED.name, "CARD")
SCANNED = PaymentCase("scan_to_pay", "CONSUMER_QR")
# Not checked for card numbers: our own token, which fails its signature instead.
UNCHECKED_FIELDS = {"consult_token"}


@pytest.fixture
async def service(fleet: Fleet, secrets: set[str]) -> Service:
    secrets.add(PAN)
    return await fleet.take()


async def test_a_card_number_in_any_field_is_refused_and_neither_sent_nor_printed(
    upstreams: Upstreams, service: Service, secrets: set[str]
) -> None:
    async with Payer(service, secrets) as payer:
        body = await payer.consult(UNCHALLENGED)
        payment = (await payer.submit(await payer.consult(CHALLENGED), "k1")).body
        path_of_payment = f"/v1/payments/{payment['payment_id']}"
        upstreams.calls.clear()
        for field in (*body, "option_id", "card_token", "return_url", "a_note"):
            for value in _values_with_pan(field, body.get(field)):
                reply = await payer.submit({**body, field: value}, "k2")
                assert reply.status == 422 or field in UNCHECKED_FIELDS, (field, reply)
                assert reply.status in (401, 403, 409, 422), (field, reply)
                assert PAN not in str(reply.body)
        for field in ("ip", "device_id", "user_agent", "a_note"):
            assert (await payer.submit({**body, "device": {field: PAN}}, "k2")).status == 422
        assert (await payer.submit(body, PAN)).status == 422
        assert (await payer.answer(payment, PAN)).status == 422
        for path, headers in (
            (f"{path_of_payment}?wait_ms={PAN}", {}),
            (f"{path_of_payment}?card={PAN}", {"X-Payment-Token": PAN}),
            (f"/v1/payments/{PAN}", {}),
        ):
            assert 400 <= (await payer.request("GET", path, None, {"X-Request-Id": PAN, **headers})).status < 500
        assert Call.SUBMIT not in upstreams.calls
        assert Call.DECIDE not in upstreams.calls
        assert Call.VERIFY not in upstreams.calls
    service.stop()
    await service.ended()
    assert PAN not in service.output


async def test_a_payment_with_an_unknown_outcome_is_logged_without_its_secrets(
    upstreams: Upstreams, service: Service, secrets: set[str]
) -> None:
    secrets.update({"tok_of_the_vault_31415926", "285566778899001122", "135791", "sessionof-the-shop-27182818"})
    async with Payer(service, secrets) as payer:
        _cut_next_submit(upstreams)
        body = {
            **await payer.consult(CARD),
            "card_token": "tok_of_the_vault_31415926",
            "return_url": "https://shop.example/?s=sessionof-the-shop-27182818",
        }
        reply = await payer.submit(body, "k1")
        assert (reply.status, reply.body["status"]) == (202, "PROCESSING")
        _cut_next_submit(upstreams)
        reply = await payer.submit({**await payer.consult(SCANNED), "auth_code": "285566778899001122"}, "k1")
        assert reply.body["status"] == "PROCESSING"
        payment = (await payer.submit(await payer.consult(CHALLENGED), "k1")).body
        payment = (await payer.answer(payment, "135791")).body
        assert payment["challenge"]["attempts_left"] == 2
        _cut_next_submit(upstreams)
        assert (await payer.answer(payment)).body["status"] == "PROCESSING"
    service.stop()
    await service.ended()
    assert service.output.count("submit outcome unknown") == 3
    assert [secret for secret in secrets if secret in service.output] == []


def _cut_next_submit(upstreams: Upstreams) -> None:
    profile = upstreams.weather.profile("engine")
    upstreams.weather.change(
        "engine", type(profile)(latency=profile.latency, next=(PlannedFault(PaymentFault.CUT, "submit"),))
    )


def _values_with_pan(field: str, value: Any) -> list[Any]:
    """The card number in place of the value, and within it."""
    if isinstance(value, list):
        return [[PAN]]
    if isinstance(value, dict):
        return [{**value, "value": int(PAN)}, {**value, "currency": PAN}]
    return [PAN, f"{PAN[:4]} {PAN[4:8]} {PAN[8:12]} {PAN[12:]}"]
