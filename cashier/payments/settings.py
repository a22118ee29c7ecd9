"""How long an acceptance waits for whom, and how many may wait for it."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

# Proxies commonly give up a request that has been silent for a minute.
LONGEST_WAIT_MS = 30_000
Ms = Annotated[int, Meta(ge=1, le=60_000)]
Count = Annotated[int, Meta(ge=1)]


class AcceptSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[accept]`. `check_ms`: for all checks before anything is sent, and for each source in them. `decide_ms`: for the risk service.
    `submit_ms`: for the engine's answer to a submit; after it the payment is PROCESSING. `look_ms`: for one look at engine and acquirer.

    `every_gating_source`: all of them must answer, or nothing is sent; else only those that could refuse the chosen way. `wait_ms`: the
    longest long poll. `follow_s`: the longest event stream. `most_under_way`, `most_waiting`: in each worker.
    """

    check_ms: Ms = 1_000
    decide_ms: Ms = 2_000
    submit_ms: Ms = 8_000
    look_ms: Ms = 2_000
    every_gating_source: bool = True
    wait_ms: Annotated[int, Meta(ge=1, le=LONGEST_WAIT_MS)] = LONGEST_WAIT_MS
    follow_s: Count = 900
    most_under_way: Count = 10_000
    most_waiting: Count = 20_000
