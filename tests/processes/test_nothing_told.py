"""What a service prints has no card number in it, no code that a payer proves themselves by, and no token.

Every other service that was started here is held to the same when it ends: see `Service`.
"""

from __future__ import annotations

from typing import Any

import pytest

from cashier.sandbox import PaymentFault
from cashier.sandbox.weather import PlannedFault

from .payer import CHALLENGED, UNCHALLENGED, Payer, Way
from .services import Fleet, Service
from .upstreams import Call, Upstreams

pytestmark = pytest.mark.processes

PAN = "4111111111111111"
CARD = Way(UNCHALLENGED.case, "CARD")
SCANNED = Way("scan_to_pay", "CONSUMER_QR")
# Signed by us: what is wrong with it is told, but not that it looks like a card's number. (A wallet's code may look like one and be none.)
OWN_DIGITS = {"consult_token"}


@pytest.fixture
async def service(fleet: Fleet, secrets: set[str]) -> Service:
    secrets.add(PAN)
    return await fleet.take()


async def test_a_card_number_in_whatever_field_is_refused_and_nobody_is_asked_or_told(
    upstreams: Upstreams, service: Service, secrets: set[str]
) -> None:
    async with Payer(service, secrets) as payer:
        body = await payer.consult(UNCHALLENGED)
        payment = (await payer.submit(await payer.consult(CHALLENGED), "k1")).body
        one = f"/v1/payments/{payment['payment_id']}"
        upstreams.calls.clear()
        for field in (*body, "option_id", "card_token", "return_url", "a_note"):
            for value in _written(field, body.get(field)):
                told = await payer.submit({**body, field: value}, "k2")
                assert told.status == 422 or field in OWN_DIGITS, (field, told)
                assert told.status in (401, 403, 409, 422), (field, told)
                assert PAN not in str(told.body)
        for field in ("ip", "device_id", "user_agent", "a_note"):
            assert (await payer.submit({**body, "device": {field: PAN}}, "k2")).status == 422
        assert (await payer.submit(body, PAN)).status == 422
        assert (await payer.answer(payment, PAN)).status == 422
        for path, headers in (
            (f"{one}?wait_ms={PAN}", {}),
            (f"{one}?card={PAN}", {"X-Payment-Token": PAN}),
            (f"/v1/payments/{PAN}", {}),
        ):
            assert 400 <= (await payer.ask("GET", path, None, {"X-Request-Id": PAN, **headers})).status < 500
        assert Call.SUBMIT not in upstreams.calls
        assert Call.DECIDE not in upstreams.calls
        assert Call.VERIFY not in upstreams.calls
    service.stop()
    await service.ended()
    assert PAN not in service.said


async def test_a_payment_that_goes_wrong_is_logged_without_what_it_was_paid_with(
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
        told = await payer.submit(body, "k1")
        assert (told.status, told.body["status"]) == (202, "PROCESSING")
        _cut_next_submit(upstreams)
        told = await payer.submit({**await payer.consult(SCANNED), "auth_code": "285566778899001122"}, "k1")
        assert told.body["status"] == "PROCESSING"
        payment = (await payer.submit(await payer.consult(CHALLENGED), "k1")).body
        payment = (await payer.answer(payment, "135791")).body
        assert payment["challenge"]["attempts_left"] == 2
        _cut_next_submit(upstreams)
        assert (await payer.answer(payment)).body["status"] == "PROCESSING"
    service.stop()
    await service.ended()
    assert service.said.count("what became of a submit is not known") == 3
    assert [secret for secret in secrets if secret in service.said] == []


def _cut_next_submit(upstreams: Upstreams) -> None:
    forecast = upstreams.weather.profile("engine")
    upstreams.weather.change(
        "engine", type(forecast)(latency=forecast.latency, next=(PlannedFault(PaymentFault.CUT, "submit"),))
    )


def _written(field: str, told: Any) -> list[Any]:
    """The number in the place of what belongs there, and within it."""
    if isinstance(told, list):
        return [[PAN]]
    if isinstance(told, dict):
        return [{**told, "value": int(PAN)}, {**told, "currency": PAN}]
    return [PAN, f"{PAN[:4]} {PAN[4:8]} {PAN[8:12]} {PAN[12:]}"]
