"""Cost of taking a payment: a submit from checks to the acquirer's result, and a status query.

Upstreams answer at once, from memory. Read `min`. Upstreams on a wire add their latency: a submit
makes one call (look-up), one to each source at once, and three more in sequence (decision, submit,
result); a status query makes two at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from itertools import count
from typing import Any

import msgspec
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from cashier import Cashier, ConsultRequest, PaymentRequest, PaymentStatus
from cashier.payments.live_attempts import LiveAttempts
from cashier.sandbox import CASES, LocalUpstreams, World, weather_named
from cashier.wire.transport import Request, Response

REQUEST = msgspec.convert(CASES["chinese_shop"].request, ConsultRequest)
# The collector and type caches need more warm-up than two calls.
WARM_UP, ROUNDS = 20, 300


def remembered(name: str, upstreams: LocalUpstreams) -> Callable[..., Awaitable[Any]]:
    """Return an async function that computes the source's answer once."""
    answers: dict[str, Any] = {}

    async def answer(**asked: Any) -> Any:
        if name not in answers:
            answers[name] = await upstreams[name](**asked)
        return answers[name]

    return answer


async def paying(request: Request) -> Response:
    """Accept at risk, take each new payment in the engine, and report its order as paid."""
    body: dict[str, Any] = msgspec.json.decode(request.body) if request.body else {}
    match request.method, request.target.split("/")[1:]:
        case "GET", ["payments", payment_id]:
            payment: dict[str, Any] = {"payment_id": payment_id, "status": "SUCCEEDED"}
            return (
                Response(200, msgspec.json.encode(payment))
                if payment_id in TAKEN
                else Response(404, b'{"code":"PAYMENT_UNKNOWN"}')
            )
        case "POST", ["payments"]:
            TAKEN.append(body["payment_id"])
            return Response(200, msgspec.json.encode({"payment_id": body["payment_id"], "status": "SUCCEEDED"}))
        case "POST", ["risk", "decisions"]:
            return Response(200, b'{"decision":"ACCEPT","decision_id":"d_1"}')
    order_id = request.target.split("/")[2]
    return Response(200, msgspec.json.encode({"order_id": order_id, "status": "PAID", "payment_id": TAKEN[-1]}))


TAKEN: list[str] = []


class Shop:
    """A `Cashier` over upstreams in memory, on its own event loop."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        upstreams = LocalUpstreams(World(), weather_named("still"))
        sources = {name: remembered(name, upstreams) for name in upstreams}
        services = dict.fromkeys(("risk", "engine", "acquirer"), paying)
        self.cashier = Cashier(sources={**sources, **services})
        self.run(self.cashier.__aenter__())
        self.answer = self.run(self.cashier.consult(REQUEST))
        self.keys = count()
        TAKEN.clear()

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def request(self) -> PaymentRequest:
        method = self.answer.methods[0]
        fields = {
            name: getattr(REQUEST, name) for name in ("order_id", "user_id", "merchant_id", "product", "terminal")
        }
        return PaymentRequest(
            consult_token=self.answer.consult_token,
            method_id=method.method_id,
            expected_payable=method.amount.payable,
            **fields,
        )

    def submit(self) -> Any:
        assert self.cashier.payments is not None
        # The order of the answers in memory stays payable. Each submit is to be the first.
        self.cashier.payments._attempt_guard._live_attempts = LiveAttempts()
        return self.run(self.cashier.payments.submit(self.request(), f"k{next(self.keys)}"))

    def close(self) -> None:
        self.run(self.cashier.__aexit__(None, None, None))
        self.loop.close()


@pytest.fixture
def shop() -> Iterator[Shop]:
    shop = Shop()
    yield shop
    shop.close()


def rounds(benchmark: BenchmarkFixture, work: Callable[[], Any]) -> Any:
    # pytest-benchmark has no types
    return benchmark.pedantic(work, warmup_rounds=WARM_UP, rounds=ROUNDS)  # type: ignore[no-untyped-call]


def test_a_submit(benchmark: BenchmarkFixture, shop: Shop) -> None:
    payment = rounds(benchmark, shop.submit)
    assert payment.status is PaymentStatus.SUCCEEDED


def test_a_status_query(benchmark: BenchmarkFixture, shop: Shop) -> None:
    payments, paid = shop.cashier.payments, shop.submit()
    assert payments is not None
    look = rounds(benchmark, lambda: shop.run(payments.look(paid.payment_id, paid.payment_token)))
    assert look.status is PaymentStatus.SUCCEEDED


def test_a_consultation_for_comparison(benchmark: BenchmarkFixture, shop: Shop) -> None:
    answer = rounds(benchmark, lambda: shop.run(shop.cashier.consult(REQUEST)))
    assert answer.payable
