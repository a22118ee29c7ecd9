"""What the weather does to the work itself, before anything is answered: done, not done, done later, done twice. No transport."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from cashier.sandbox.upstream_answer import Answer
from cashier.sandbox.weather import OF_THE_ENGINE, Fault, Mishap, Spell
from cashier.sandbox.world import World

# A request that was held up somewhere, or is delivered again. Longer than clients usually wait.
HELD_UP = timedelta(seconds=5)

Work = Callable[[Mishap | None], Answer]

_NOT_DONE = frozenset({Fault.ERROR, Fault.OVERLOAD, Mishap.CUT, Mishap.SWALLOW})
# What the client sees of a mishap. Where nothing is written here, the answer.
SEEN_AS: dict[Fault | Mishap | None, Fault] = {
    **{fault: fault for fault in Fault},
    Mishap.CUT: Fault.RESET,
    Mishap.SWALLOW: Fault.HANG,
    Mishap.ARRIVES_LATE: Fault.RESET,
}


def carried_out(world: World, spell: Spell, work: Work) -> Answer | None:
    """The answer of the work, done as the spell lets it be; None where there is none yet, or never. `work` is given what it has to bear."""
    world.catch_up()
    if spell.fault in _NOT_DONE:
        return None
    if spell.fault is Mishap.ARRIVES_LATE:
        world.later(HELD_UP, lambda: work(None))
        return None
    if spell.fault is Mishap.DUPLICATE:
        world.later(HELD_UP, lambda: work(None))
    return work(spell.fault if isinstance(spell.fault, Mishap) and spell.fault in OF_THE_ENGINE else None)
