"""Time budgets of the payment path: its steps in order and their worst cases. Pure.

Whatever waits for a submit of its own accord (claims in Valkey, other workers, a stop) takes its
time from here, so that no setting cuts another.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from cashier.payments.settings import AcceptSettings


class Step(Struct, frozen=True):
    """`asks`: a service, or `sources` for all of them at once. `key`: its budget in `[accept]`.

    `condition`: when the step is made; empty: always. `times`: at most, one after the other.
    """

    name: str
    asks: str
    key: str
    ms: int
    condition: str = ""
    times: int = 1

    @property
    def total_ms(self) -> int:
        return self.ms * self.times


def submit_steps(accept: AcceptSettings) -> tuple[Step, ...]:
    """From the request to the answer, if the payment is sent."""
    look_ms, check_ms = accept.look_ms, accept.check_ms
    return (
        Step("look the payment up", "engine", "look_ms", look_ms),
        Step("verify another attempt", "engine, acquirer", "look_ms", look_ms, "one on the order is known", times=4),
        Step("check without a cache", "sources", "check_ms", check_ms),
        Step("check what waits for the order", "sources", "check_ms", check_ms, "the submit names no country"),
        Step("check a changed order", "sources", "check_ms", check_ms, "its amount or country is another"),
        Step("decide", "risk", "decide_ms", accept.decide_ms),
        Step("send", "engine", "submit_ms", accept.submit_ms),
        Step("confirm", "acquirer", "look_ms", look_ms, "the engine's answer is final"),
        *_reversal_steps(accept),
    )


def look_steps(accept: AcceptSettings) -> tuple[Step, ...]:
    """Of one status, and of a cancellation. Engine and acquirer are asked at once."""
    return (
        Step("ask for the status", "engine, acquirer", "look_ms", accept.look_ms),
        *_reversal_steps(accept),
    )


# The look-ups of one status with a reversal. The engine is asked, told to reverse, and, if it had
# no such payment, asked again; the acquirer is asked beside the first and the last of these.
LOOK_UPS = {"engine": 3, "acquirer": 2}


def _reversal_steps(accept: AcceptSettings) -> tuple[Step, ...]:
    condition = "time is up or the payer cancels"
    return (
        Step("reverse", "engine", "look_ms", accept.look_ms, condition),
        Step("confirm the reversal", "acquirer", "look_ms", accept.look_ms, condition),
    )


def total_ms(steps: Iterable[Step]) -> int:
    return sum(step.total_ms for step in steps)


def usual_submit_ms(accept: AcceptSettings) -> int:
    """The longest submit that finds nothing odd: every step without a condition, and `confirm`."""
    return total_ms(step for step in submit_steps(accept) if not step.condition or step.name == "confirm")


def longest_submit_ms(accept: AcceptSettings) -> int:
    """From the first look-up to the answer, whatever the upstreams do.

    A submit that is refused asks once more which attempt has the order and whether another worker
    has sent this very payment, and reports that one: five looks in place of risk, engine and the
    looks after them.
    """
    steps = submit_steps(accept)
    before_risk = total_ms(steps[: [step.key for step in steps].index("decide_ms")])
    return max(total_ms(steps), before_risk + 5 * accept.look_ms)


def longest_run_ms(accept: AcceptSettings) -> int:
    """A submit, or an answer to a challenge: it verifies first and may then decide again."""
    return longest_submit_ms(accept) + accept.decide_ms


def longest_look_ms(accept: AcceptSettings) -> int:
    return total_ms(look_steps(accept))


def longest_poll_ms(accept: AcceptSettings) -> int:
    """One look before the wait, and one at its end."""
    return accept.wait_ms + 2 * longest_look_ms(accept)
