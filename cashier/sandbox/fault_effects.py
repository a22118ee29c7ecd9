"""What the weather does to the work itself, before anything is answered: done, not done, done later, done twice. No transport."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from cashier.sandbox.upstream_answer import UpstreamAnswer
from cashier.sandbox.weather import ENGINE_FAULTS, Fault, PaymentFault, CallConditions
from cashier.sandbox.world import World

# A request that was held up somewhere, or is delivered again. Longer than clients usually wait.
REDELIVERY_DELAY = timedelta(seconds=5)

Work = Callable[[PaymentFault | None], UpstreamAnswer]

_NOT_DONE = frozenset({Fault.ERROR, Fault.OVERLOAD, PaymentFault.CUT, PaymentFault.SWALLOW})
# What the client sees of a mishap. Where nothing is written here, the answer.
CLIENT_VIEW: dict[Fault | PaymentFault | None, Fault] = {
    **{fault: fault for fault in Fault},
    PaymentFault.CUT: Fault.RESET,
    PaymentFault.SWALLOW: Fault.HANG,
    PaymentFault.ARRIVES_LATE: Fault.RESET,
}


def perform(world: World, conditions: CallConditions, work: Work) -> UpstreamAnswer | None:
    """The answer of the work, done as the conditions lets it be; None where there is none yet, or never. `work` is given what it has to bear."""
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
