"""Time budgets and bounds of acceptance."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

# Proxies commonly drop a request that was silent for a minute.
LONGEST_WAIT_MS = 30_000
Ms = Annotated[int, Meta(ge=1, le=60_000)]
Count = Annotated[int, Meta(ge=1)]


class AcceptSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[accept]`.

    `check_ms`: budget of each source in the checks before the submit. `decide_ms`: of the risk
    service. `submit_ms`: of the engine's answer to a submit; after it the payment is PROCESSING.
    `look_ms`: of one status query at engine and acquirer. `every_gating_source`: require an answer
    from all of them; else only from those that could refuse the chosen method. `wait_ms`: the
    longest long poll. `follow_s`: the longest event stream, and how long a worker looks on after a
    payment that it sent, also without a caller. `most_challenges`: of one payer for one order
    within an hour, over all keys. `most_under_way`, `most_waiting`, `most_in_background`: per
    worker.
    """

    check_ms: Ms = 1_000
    decide_ms: Ms = 2_000
    submit_ms: Ms = 8_000
    look_ms: Ms = 2_000
    every_gating_source: bool = True
    wait_ms: Annotated[int, Meta(ge=1, le=LONGEST_WAIT_MS)] = LONGEST_WAIT_MS
    follow_s: Count = 900
    most_challenges: Count = 10
    most_under_way: Count = 10_000
    most_waiting: Count = 20_000
    most_in_background: Annotated[int, Meta(ge=0)] = 10_000
