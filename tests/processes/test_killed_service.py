"""SIGKILL at every step of a payment: a retry with the same key or token meets the same payment.

Of the source reads, which change nothing, the first is held before it and the last after it.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import pytest

from .conftest import Start
from .payer import CHALLENGED, UNCHALLENGED, Payer, PaymentCase
from .services import Fleet
from .upstreams import SOURCE_READS, Call, Moment, Upstreams

pytestmark = pytest.mark.processes

_LOOK_UP_AND_RECHECK = (Call.LOOK_UP, *[Call.READ] * SOURCE_READS)
_SENDING = (Call.SUBMIT, Call.RESULT)
# All calls of a payment in order.
CALLS = {
    CHALLENGED: (*_LOOK_UP_AND_RECHECK, Call.DECIDE, Call.LOOK_UP, Call.VERIFY, *[Call.READ] * SOURCE_READS, *_SENDING),
    UNCHALLENGED: (*_LOOK_UP_AND_RECHECK, Call.DECIDE, *_SENDING),
}


class Death(NamedTuple):
    """A kill at the nth call of a name."""

    case: PaymentCase
    name: Call
    nth: int
    moment: Moment

    @property
    def id(self) -> str:
        return f"{self.case.method_id}-{self.moment}-{self.name}-{self.nth}"


def _deaths() -> list[Death]:
    deaths = []
    for case, calls in CALLS.items():
        for index, name in enumerate(calls):
            nth = calls[: index + 1].count(name)
            moments = (
                {Moment.BEFORE: nth % SOURCE_READS == 1, Moment.AFTER: nth % SOURCE_READS == 0}
                if name is Call.READ
                else dict.fromkeys(Moment, True)
            )
            deaths += [Death(case, name, nth, moment) for moment, included in moments.items() if included]
    return deaths


@pytest.mark.parametrize("case", CALLS)
async def test_the_table_has_all_calls_of_a_payment(
    case: PaymentCase, upstreams: Upstreams, fleet: Fleet, secrets: set[str]
) -> None:
    service = await fleet.take()
    async with Payer(service, secrets) as payer:
        body = await payer.consult(case)
        upstreams.calls.clear()
        payment = await payer.pay_to_end((await payer.submit(body, "k1")).body)
    assert payment["status"] == "SUCCEEDED"
    assert tuple(upstreams.calls) == CALLS[case]
    upstreams.assert_paid_once(case.order_id)
    fleet.retire(service)


@pytest.mark.parametrize("death", [pytest.param(death, id=death.id) for death in _deaths()])
async def test_after_a_kill_at_any_step_another_service_charges_once(
    death: Death, upstreams: Upstreams, fleet: Fleet, secrets: set[str]
) -> None:
    first, second = await fleet.take(), await fleet.take()
    async with Payer(first, secrets) as payer:
        body = await payer.consult(death.case)
        held_call = upstreams.hold(death.name, death.moment, death.nth)
        paying = asyncio.create_task(_submit_and_pay(payer, body))
        await held_call.reached()
        payer.service = second
        await first.kill()
        payment = await paying
    assert payer.lost == 1
    assert payment["status"] == "SUCCEEDED"
    upstreams.assert_paid_once(death.case.order_id)
    fleet.retire(second)


async def test_a_submit_of_a_killed_service_that_arrives_late_is_the_same_payment(
    upstreams: Upstreams, fleet: Fleet, secrets: set[str]
) -> None:
    first, second = await fleet.take(), await fleet.take()
    async with Payer(first, secrets) as payer:
        body = await payer.consult(UNCHALLENGED)
        held, again = (upstreams.hold(Call.SUBMIT, Moment.BEFORE, nth) for nth in (1, 2))
        paying = asyncio.create_task(_submit_and_pay(payer, body))
        await held.reached()
        payer.service = second
        await first.kill()
        await again.reached()
        assert upstreams.arrives_late(held).status == 200
        again.release()
        payment = await paying
        assert upstreams.arrives_late(held).status == 200
    assert payment["status"] == "SUCCEEDED"
    upstreams.assert_paid_once(UNCHALLENGED.order_id)
    fleet.retire(second)


async def _submit_and_pay(payer: Payer, body: dict[str, object]) -> dict[str, str]:
    payment: dict[str, str] = await payer.pay_to_end((await payer.submit(body, "k1")).body)
    return payment


OLD, NEW = "o" * 32, "n" * 32


async def test_tokens_of_a_retired_key_are_refused_and_those_of_a_rotated_key_continue(
    upstreams: Upstreams, start: Start, secrets: set[str]
) -> None:
    before, retired, rotated = await asyncio.gather(
        *(start(secrets=keys).ready() for keys in ((OLD,), (NEW,), (NEW, OLD)))
    )
    async with Payer(before, secrets) as payer:
        body = await payer.consult(CHALLENGED)
        payment = (await payer.submit(body, "k1")).body
        assert payment["status"] == "CHALLENGE"

        payer.service = retired
        upstreams.calls.clear()
        path, token = f"/v1/payments/{payment['payment_id']}", {"X-Payment-Token": payment["payment_token"]}
        for reply in (
            await payer.submit(body, "k1"),
            await payer.answer(payment),
            await payer.look(payment),
            await payer.request("POST", f"{path}/cancel", {}, token),
            await payer.request("GET", f"{path}/events", None, token),
        ):
            assert reply.code == "TOKEN_UNKNOWN_KEY", reply
            assert reply.status in (401, 403, 409, 422), reply
        assert upstreams.calls == []

        payer.service = rotated
        assert (await payer.submit(body, "k1")).body["payment_id"] == payment["payment_id"]
        paid = (await payer.answer(payment)).body
        assert paid["status"] == "SUCCEEDED"
        payer.service = retired
        assert (await payer.look(paid)).body["status"] == "SUCCEEDED"
        payer.service = before
        assert (await payer.look(paid)).code == "TOKEN_UNKNOWN_KEY"
    assert upstreams.calls.count(Call.SUBMIT) == 1
    upstreams.assert_paid_once(CHALLENGED.order_id)
