"""SIGKILL, at every step of a payment: whoever asks again, with the same key or token, is told of the one payment that there is.

Of the eight reads of the checks, which change nothing anywhere, the first is met before it is made, and the last after it was.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import pytest

from .payer import CHALLENGED, UNCHALLENGED, Payer, Way
from .services import Fleet
from .upstreams import READS, Call, Moment, Upstreams

pytestmark = pytest.mark.processes

_CHECKS = (Call.LOOK_UP, *[Call.READ] * READS)
_SENDING = (Call.SUBMIT, Call.RESULT)
# Every call that a payment makes, in order; the eight reads of a check come in any.
MADE = {
    CHALLENGED: (*_CHECKS, Call.DECIDE, Call.LOOK_UP, Call.VERIFY, *[Call.READ] * READS, *_SENDING),
    UNCHALLENGED: (*_CHECKS, Call.DECIDE, *_SENDING),
}


class Death(NamedTuple):
    """When: at the nth call of a name."""

    way: Way
    name: Call
    nth: int
    moment: Moment

    @property
    def id(self) -> str:
        return f"{self.way.method_id}-{self.moment}-{self.name}-{self.nth}"


def _deaths() -> list[Death]:
    found = []
    for way, calls in MADE.items():
        for place, name in enumerate(calls):
            nth = calls[: place + 1].count(name)
            moments = (
                {Moment.BEFORE: nth % READS == 1, Moment.AFTER: nth % READS == 0}
                if name is Call.READ
                else dict.fromkeys(Moment, True)
            )
            found += [Death(way, name, nth, moment) for moment, meant in moments.items() if meant]
    return found


@pytest.mark.parametrize("way", MADE)
async def test_these_are_all_the_calls_that_a_payment_makes(
    way: Way, upstreams: Upstreams, fleet: Fleet, secrets: set[str]
) -> None:
    service = await fleet.take()
    async with Payer(service, secrets) as payer:
        body = await payer.consult(way)
        upstreams.calls.clear()
        payment = await payer.go_on((await payer.submit(body, "k1")).body)
    assert payment["status"] == "SUCCEEDED"
    assert tuple(upstreams.calls) == MADE[way]
    upstreams.assert_paid_once(way.order_id)
    fleet.give_back(service)


@pytest.mark.parametrize("death", [pytest.param(death, id=death.id) for death in _deaths()])
async def test_a_service_that_is_killed_at_any_step_is_followed_by_one_that_charges_once(
    death: Death, upstreams: Upstreams, fleet: Fleet, secrets: set[str]
) -> None:
    first, second = await fleet.take(), await fleet.take()
    async with Payer(first, secrets) as payer:
        body = await payer.consult(death.way)
        meeting = upstreams.meet(death.name, death.moment, death.nth)
        paying = asyncio.create_task(_to_the_end(payer, body))
        await meeting.reached()
        payer.service = second
        await first.kill()
        payment = await paying
    assert payer.lost == 1
    assert payment["status"] == "SUCCEEDED"
    upstreams.assert_paid_once(death.way.order_id)
    fleet.give_back(second)


async def test_a_submit_that_was_on_its_way_when_its_service_was_killed_and_arrives_late_is_the_same_payment(
    upstreams: Upstreams, fleet: Fleet, secrets: set[str]
) -> None:
    first, second = await fleet.take(), await fleet.take()
    async with Payer(first, secrets) as payer:
        body = await payer.consult(UNCHALLENGED)
        held, again = (upstreams.meet(Call.SUBMIT, Moment.BEFORE, nth) for nth in (1, 2))
        paying = asyncio.create_task(_to_the_end(payer, body))
        await held.reached()
        payer.service = second
        await first.kill()
        await again.reached()
        assert upstreams.arrives_late(held).status == 200
        again.let_go()
        payment = await paying
        assert upstreams.arrives_late(held).status == 200
    assert payment["status"] == "SUCCEEDED"
    upstreams.assert_paid_once(UNCHALLENGED.order_id)
    fleet.give_back(second)


async def _to_the_end(payer: Payer, body: dict[str, object]) -> dict[str, str]:
    payment: dict[str, str] = await payer.go_on((await payer.submit(body, "k1")).body)
    return payment
