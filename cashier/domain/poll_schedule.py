"""When to look at a payment again.

The time since the submit decides, so every worker and every caller keeps the same schedule. Each
schedule ends in a steady step, and polling has an end, so that a page left open does not poll
forever. After that end, a caller that still presents the token polls once a minute.
"""

from __future__ import annotations

from msgspec import Struct

# Attended payments: WeChat and Alipay reverse after 45 s at the latest, because no notification
# comes and people stand at the counter.
ATTENDED_S = 45
# A submit with an unknown outcome that the engine does not know may still arrive: for this long at
# least, and for twice the time that its answer was waited for.
LEAST_ARRIVAL_S = 30
# After the payer's last possible action, money may still be on its way to the acquirer.
AFTERMATH_S = 600


def arrival_s(submit_ms: int) -> int:
    """How long after its start a submit may still arrive. `submit_ms`: its time for an answer."""
    return max(LEAST_ARRIVAL_S, 2 * submit_ms // 1_000)


class PollSchedule(Struct, frozen=True):
    """`first_ms`: the first steps.

    Then `steady`: pairs of an end in seconds since the start, and a step in ms. Then `last_ms`.
    """

    first_ms: tuple[int, ...] = ()
    steady: tuple[tuple[int, int], ...] = ()
    last_ms: int = 60_000


# Only machines are at work: the result takes seconds, or something is broken.
PROMPT = PollSchedule((1_000, 2_000, 3_000), ((120, 5_000), (600, 15_000)))
# The engine has the money and the acquirer has to confirm. The start is unknown; it does not last
# long.
CONFIRMING = PollSchedule(last_ms=5_000)
# Past the end of polling.
LATE = PollSchedule()
ATTENDED = PollSchedule((1_000, 2_000, 3_000), last_ms=5_000)
REDIRECTED = PollSchedule(steady=((60, 2_000), (300, 5_000), (1_800, 10_000)))
QR_DISPLAYED = PollSchedule(steady=((120, 2_000),), last_ms=5_000)
# The payer goes to a bank or a shop: the result takes minutes at least.
OFFLINE = PollSchedule(steady=((1_800, 60_000),), last_ms=180_000)


def poll_after_ms(schedule: PollSchedule, elapsed_s: float) -> int:
    """The next step, this long after the start. At a counter: 1, 2, 3, 5, 5 … s."""
    elapsed_ms = max(0, int(elapsed_s * 1_000))
    mark_ms = 0
    for step_ms in schedule.first_ms:
        mark_ms += step_ms
        if elapsed_ms < mark_ms:
            return step_ms
    return next((step_ms for until_s, step_ms in schedule.steady if elapsed_ms < until_s * 1_000), schedule.last_ms)
