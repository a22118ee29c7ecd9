"""Applies a fault to the work of a call: done, not done, done later or twice. No transport."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from cashier.sandbox.upstream_answer import UpstreamAnswer
from cashier.sandbox.weather import ENGINE_FAULTS, CallConditions, Fault, PaymentFault
from cashier.sandbox.world import World

# Delay of a late or repeated request. Longer than clients usually wait.
REDELIVERY_DELAY = timedelta(seconds=5)

Work = Callable[[PaymentFault | None], UpstreamAnswer]

_NOT_DONE = frozenset({Fault.ERROR, Fault.OVERLOAD, PaymentFault.CUT, PaymentFault.SWALLOW})
# What the client sees of a fault; for a fault that is not here, the answer.
CLIENT_VIEW: dict[Fault | PaymentFault | None, Fault] = {
    **{fault: fault for fault in Fault},
    PaymentFault.CUT: Fault.RESET,
    PaymentFault.SWALLOW: Fault.HANG,
    PaymentFault.ARRIVES_LATE: Fault.RESET,
}


def perform(world: World, conditions: CallConditions, work: Work) -> UpstreamAnswer | None:
    """Do the work under the drawn fault and return its answer; None if there is none, or none yet.

    `work` receives the fault if it is one that the engine simulates itself.
    """
    world.catch_up()
    if conditions.fault in _NOT_DONE:
        return None
    if conditions.fault is PaymentFault.ARRIVES_LATE:
        world.deliver_later(REDELIVERY_DELAY, lambda: work(None))
        return None
    if conditions.fault is PaymentFault.DUPLICATE:
        world.deliver_later(REDELIVERY_DELAY, lambda: work(None))
    return work(
        conditions.fault if isinstance(conditions.fault, PaymentFault) and conditions.fault in ENGINE_FAULTS else None
    )
