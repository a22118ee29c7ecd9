"""How soon to look at a payment again. Pure: the time since it was sent decides, so that every worker and every caller keeps one pace.

Each pace ends in a steady step, and waiting has an end of its own: a page that nobody closes does not ask for ever. What has no answer by
then is looked at by whoever still presents its token, once a minute.
"""

from __future__ import annotations

from msgspec import Struct

from cashier.domain.pay_method import Kind

# Attended payments: WeChat and Alipay reverse after 45 s at the latest, because no notice comes and people stand and wait.
ATTENDED_S = 45
# A submit whose fate is unknown and that the engine does not know: it may still be on its way. Twice any timeout on it.
ARRIVAL_S = 30
# After the end of what the payer could do, money may still be on its way to the acquirer.
AFTERMATH_S = 600


class PollSchedule(Struct, frozen=True):
    """`first_ms`: the first steps. Then each of `steady`: until so many seconds after the start, in steps of so many milliseconds. Then
    `last_ms`."""

    first_ms: tuple[int, ...] = ()
    steady: tuple[tuple[int, int], ...] = ()
    last_ms: int = 60_000


# Where machines are at work: the result is seconds away, or something is broken.
PROMPT = PollSchedule((1_000, 2_000, 3_000), ((120, 5_000), (600, 15_000)))
# The engine has the money, and only the acquirer has yet to say so. When that began is not known, only that it does not last.
CONFIRMING = PollSchedule(last_ms=5_000)
# Past `until`, for whoever still asks.
LATE = PollSchedule()
_ATTENDED = PollSchedule((1_000, 2_000, 3_000), last_ms=5_000)
_AWAY = PollSchedule(steady=((60, 2_000), (300, 5_000), (1_800, 10_000)))
_SHOWN = PollSchedule(steady=((120, 2_000),), last_ms=5_000)
# A person goes to a bank or a shop: nothing will happen for minutes, and not much sooner be wanted.
_ERRAND = PollSchedule(steady=((1_800, 60_000),), last_ms=180_000)

# Where the payer has to act elsewhere.
_BY_KIND = {
    Kind.CONSUMER_QR: _ATTENDED,
    Kind.CARD: _AWAY,
    Kind.NET_BANKING: _AWAY,
    Kind.WALLET: _AWAY,
    Kind.MERCHANT_QR: _SHOWN,
    Kind.VA: _ERRAND,
    Kind.OTC: _ERRAND,
}


def of_kind(kind: Kind) -> PollSchedule:
    """How fast to look while the payer acts elsewhere."""
    return _BY_KIND.get(kind, PROMPT)


def poll_after_ms(pace: PollSchedule, elapsed_s: float) -> int:
    """The step to take, so long after the start: 1, 2, 3, 5, 5 … s for one at a counter."""
    elapsed_ms = max(0, int(elapsed_s * 1_000))
    mark_ms = 0
    for step_ms in pace.first_ms:
        mark_ms += step_ms
        if elapsed_ms < mark_ms:
            return step_ms
    return next((step_ms for until_s, step_ms in pace.steady if elapsed_ms < until_s * 1_000), pace.last_ms)
