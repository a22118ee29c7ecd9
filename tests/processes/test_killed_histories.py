"""Random histories: several payers pay at once, and their service is killed at a random call.

Another service goes on. A submit of the dead one may still arrive. At the end every payment is
final and says what the ledger says, and the ledger passes its audit.
"""

from __future__ import annotations

import asyncio
import random
import socket
from typing import Any

import pytest
from msgspec import Struct, field

from cashier.sandbox import CASES
from tests.support.seeds import draws_fresh_cases

from .payer import FINAL, Payer, Reply
from .services import Fleet
from .upstreams import Call, HeldCall, Moment, Upstreams, served

pytestmark = [pytest.mark.proof, pytest.mark.processes]

# Of a run, times `--proof`. A history is a checkout that lost its service.
HISTORIES = 20
# Orders of several payers. Some share a balance and coupons.
ORDERS = (
    "chinese_shop",
    "balance_is_enough",
    "discounted_to_zero",
    "guest_order",
    "nothing_to_pay",
    "in_instalments",
    "indonesian_shop",
    "japanese_shop",
    "kuwaiti_shop",
)
# Until the kill, of the call that it waits for.
MOST_CALLS = {Call.READ: 150, Call.LOOK_UP: 12, Call.DECIDE: 6, Call.SUBMIT: 6, Call.RESULT: 12, Call.REVERSE: 2}
MOST_ATTEMPTS, MOST_STEPS = 3, 60
_ATTEMPT_FIELDS = ("order_id", "user_id", "merchant_id", "product", "terminal")
_FIELDS = (*_ATTEMPT_FIELDS, "country", "locale")
_KINDS_WITH_MEANS: dict[str, dict[str, Any]] = {
    "CARD": {"card_token": "tok_1"},
    "CONSUMER_QR": {"auth_code": "130000000000000088"},
}


class Checkout(Struct):
    """One payer with one order. `payments`: the last report of each attempt."""

    case: str
    payer: Payer
    upstreams: Upstreams
    random: random.Random
    payments: dict[str, Any] = field(default_factory=dict)

    @property
    def order_id(self) -> str:
        return str(CASES[self.case].request["order_id"])

    async def run(self) -> None:
        """Pay the order, in at most a few attempts."""
        for attempt in range(MOST_ATTEMPTS):
            body = await self._choose()
            if body is None:
                return
            reply = await self.payer.submit(body, f"{self.case}-{attempt}")
            if reply.status not in (200, 202):
                assert reply.status in (402, 409), reply
                continue
            await self._pay(reply)
            if any(payment["status"] == "SUCCEEDED" for payment in self.payments.values()):
                return

    async def _choose(self) -> dict[str, Any] | None:
        request = CASES[self.case].request
        reply = await self.payer.request_until_answered("POST", "/v1/consult", {**request, "deadline_ms": 4_000})
        assert reply.status == 200, reply
        available = [method for method in reply.body["methods"] if method["availability"] == "AVAILABLE"]
        if not available:
            return None
        method = self.random.choice(available)
        option = self.random.choice(method["options"]) if method.get("options") else None
        amount = (option or {}).get("amount") or method["amount"]
        return (
            {name: request[name] for name in _FIELDS if name in request}
            | {
                "consult_token": reply.body["consult_token"],
                "method_id": method["method_id"],
                "promotion_ids": [discount["promotion_id"] for discount in amount["discounts"]],
                "expected_payable": amount["payable"],
            }
            | ({"option_id": option["option_id"]} if option else {})
            | _KINDS_WITH_MEANS.get(method["kind"], {})
        )

    async def _pay(self, reply: Reply) -> None:
        payment: Any = None
        for _ in range(MOST_STEPS):
            if reply.status == 409 and payment["status"] == "CHALLENGE":
                return  # answered too late for the offer: nothing was sent
            assert reply.status in (200, 202), reply
            payment = self.payments[reply.body["payment_id"]] = reply.body
            if payment["status"] in FINAL:
                return
            reply = await self._act(payment)
        raise AssertionError(f"the payment never ends: {payment}")

    async def _act(self, payment: Any) -> Reply:
        path, act = f"/v1/payments/{payment['payment_id']}", self.random.random()
        if payment["status"] == "CHALLENGE":
            return await (self.payer.answer(payment) if act < 0.8 else self.payer.answer(payment, "000000"))
        if act < 0.15:
            token = {"X-Payment-Token": payment["payment_token"]}
            return await self.payer.request_until_answered("POST", f"{path}/cancel", {}, token)
        if payment["status"] == "ACTION_REQUIRED" and act < 0.6:
            self.upstreams.world.engine.settle(payment["payment_id"], self.random.choice(["SUCCEEDED", "FAILED"]))
        elif act < 0.75 and CASES[self.case].request.get("user_id"):
            request = CASES[self.case].request
            own = {name: request[name] for name in _ATTEMPT_FIELDS}
            resumed = await self.payer.request_until_answered("POST", f"{path}/resume", own)
            if resumed.status in (200, 202):
                return resumed
        return await self.payer.look(payment, 300)


async def test_whatever_dies_each_order_is_paid_once_and_its_payer_knows(
    listener: socket.socket, fleet: Fleet, secrets: set[str], pytestconfig: pytest.Config
) -> None:
    times: int = pytestconfig.getoption("proof")
    wanted = HISTORIES * max(1, times)
    histories = 0
    for seed in _seeds(wanted, fixed=not draws_fresh_cases(pytestconfig)):
        async with served(listener) as upstreams:
            try:
                histories += await _one_world(upstreams, fleet, secrets, random.Random(seed))
            except BaseException as error:
                error.add_note(f"the world {seed}")
                raise
        if histories >= wanted:
            return
    raise AssertionError(f"only {histories} histories lost their service")


def _seeds(count: int, *, fixed: bool) -> range:
    first = 0 if fixed else random.randrange(10**9)
    return range(first, first + count)


async def _one_world(upstreams: Upstreams, fleet: Fleet, secrets: set[str], randomness: random.Random) -> int:
    """Return how many checkouts lost their service."""
    service, *successors = [await fleet.take() for _ in range(randomness.choice([2, 2, 3]))]
    cases = randomness.sample(ORDERS, 7)
    checkouts = [
        Checkout(case, Payer(service, secrets), upstreams, random.Random(randomness.random())) for case in cases
    ]
    paying = [asyncio.create_task(checkout.run()) for checkout in checkouts]
    try:
        for successor in successors:
            held = _hold_a_call(upstreams, randomness)
            if not await _is_reached(held, paying):
                break
            for checkout in checkouts:
                checkout.payer.service = successor
            await service.kill()
            service = successor
            if held.name is Call.SUBMIT and held.moment is Moment.BEFORE and randomness.random() < 0.5:
                await asyncio.sleep(randomness.choice([0, 0.05, 0.3]))
                upstreams.arrives_late(held)
        await asyncio.gather(*paying)
        _check(upstreams, checkouts)
    finally:
        for task in paying:
            task.cancel()
        for checkout in checkouts:
            await checkout.payer.__aexit__(None, None, None)
    for survivor in {service, *successors}:
        if survivor.running:
            await survivor.kill()
    return sum(checkout.payer.lost > 0 for checkout in checkouts)


def _hold_a_call(upstreams: Upstreams, randomness: random.Random) -> HeldCall:
    name = randomness.choice(list(MOST_CALLS))
    return upstreams.hold(name, randomness.choice(list(Moment)), randomness.randint(1, MOST_CALLS[name]))


async def _is_reached(held: HeldCall, paying: list[asyncio.Task[None]]) -> bool:
    """False if every payer ended before."""
    reached = asyncio.create_task(held.reached())
    ended = asyncio.create_task(asyncio.wait(paying))
    await asyncio.wait({reached, ended}, return_when=asyncio.FIRST_COMPLETED)
    ended.cancel()
    if reached.done():
        return reached.exception() is None
    reached.cancel()
    held.release()
    return False


def _check(upstreams: Upstreams, checkouts: list[Checkout]) -> None:
    upstreams.world.catch_up()
    assert upstreams.world.audit() == []
    assert upstreams.world.engine.live == frozenset()
    paid = {
        (entry.order_id, entry.payment_id) for entry in upstreams.world.ledger.entries if entry.what == "ORDER_PAID"
    }
    for checkout in checkouts:
        said = {
            (checkout.order_id, payment_id)
            for payment_id, payment in checkout.payments.items()
            if payment["status"] == "SUCCEEDED"
        }
        assert said == {pair for pair in paid if pair[0] == checkout.order_id}, checkout.payments
