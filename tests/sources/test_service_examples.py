"""The examples of payment services on the contract page: an engine's adapter, and port objects."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

import pytest

from cashier.core import Cashier
from cashier.domain.engine_contract import EngineAnswered, NeverArrived, OrderHasLiveAttempt
from cashier.domain.payment_state import PaymentStatus
from cashier.sources.adapter_settings import AdapterSettings
from cashier.sources.engine import EngineClient
from cashier.sources.service_adapter import AdapterTransport, ServiceAdapter
from cashier.wire.transport import Response
from tests.payments.checkout import cached_configuration, checkout

from .adapter_rig import AnsweringTransport, responding
from .test_payment_services import CALL_HEADERS, SUBMISSION
from .test_readme import EXAMPLES

pytestmark = pytest.mark.looptime

CASE, METHOD = "balance_is_enough", "BALANCE:acc_1"


def module_of(example: str) -> dict[str, Any]:
    module: dict[str, Any] = {}
    exec(example, module)  # noqa: S102 — the example of the page
    return module


async def test_the_engine_of_another_shape_pays_with_a_cached_token_and_signed_requests() -> None:
    settings = AdapterSettings("engine", {"key": "secret"}, "/gateway")
    adapter = ServiceAdapter("engine", "adapters:Engine", module_of(EXAMPLES[1])["Engine"](settings))
    charge = {"ref": "pay_1", "order": "o_1", "yuan": 1.0, "state": "DONE"}
    busy = responding(409, b'{"ref": "pay_2"}')
    transport = AnsweringTransport(
        responding(200, b'{"access_token": "t"}'),
        responding(202, json.dumps(charge).encode()),
        busy,
        Response(404, b""),
    )
    client = EngineClient(AdapterTransport(adapter, transport))
    assert isinstance(await client.submit(SUBMISSION, CALL_HEADERS, 1000), EngineAnswered)
    assert await client.submit(SUBMISSION, CALL_HEADERS, 1000) == OrderHasLiveAttempt("pay_2")
    assert await client.look_up("pay_1", "o_1", CALL_HEADERS, 1000) == NeverArrived()
    paid = transport.requests[1]
    assert [request.target for request in transport.requests] == [
        "/oauth/token", "/charges", "/charges", "/charges/pay_1",
    ]  # fmt: skip
    assert json.loads(paid.body) == {"ref": "pay_1", "order": "o_1", "yuan": 1.0}
    expected = hmac.new(b"secret", b"POST /gateway/charges\n" + paid.body, hashlib.sha256).hexdigest()
    assert dict(paid.headers) == {"Authorization": "Bearer t", "X-Signature": expected}


async def test_the_objects_of_the_page_take_a_payment() -> None:
    module = module_of(EXAMPLES[2])
    bank = module["Bank"]()
    async with checkout() as shop:
        sources = {name: shop._source(name) for name in shop._sources}
        services = {"risk": module["Risk"](), "engine": bank, "acquirer": bank}
        async with Cashier(
            sources={**sources, **services}, config=cached_configuration(), clock=shop.world.clock
        ) as cashier:
            shop.workers.append(cashier)
            request = await shop.new_request(CASE, METHOD)
            payment = await shop.submit(request, "k1", worker=1)
            assert payment.status is PaymentStatus.SUCCEEDED
            assert (await shop.submit(request, "k1", worker=1)).payment_id == payment.payment_id
            assert (shop.count("submit"), cashier.failures) == (0, ())
