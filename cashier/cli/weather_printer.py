"""Weather of a sandbox as lines for a terminal, and the refusal of a change.

Reads the JSON of the sandbox's responses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cashier.sandbox.weather import BPS, Fault, PaymentFault

# With a call as the subject.
EFFECTS: Mapping[str, str] = {
    Fault.HANG: "hangs",
    Fault.ERROR: "fails with 500",
    Fault.OVERLOAD: "is refused with 503",
    Fault.GARBAGE: "gets an answer that breaks the contract",
    Fault.WRONG_IDENTITY: "gets an answer about another entity",
    Fault.TRUNCATE: "gets an answer that breaks off",
    Fault.SLOW_BODY: "gets its answer over 1 s",
    Fault.RESET: "is carried out and then reset",
    PaymentFault.CUT: "is reset and not carried out",
    PaymentFault.SWALLOW: "hangs and is not carried out",
    PaymentFault.ARRIVES_LATE: "is reset and carried out 5 s later",
    PaymentFault.DUPLICATE: "is carried out, and again 5 s later",
    PaymentFault.DECLINE: "is declined by the bank",
    PaymentFault.STALL: "leaves its payment under way",
    PaymentFault.CLOSE_FIRST: "finds the order just closed by the shop",
    PaymentFault.PAY_FIRST: "finds the payment just paid",
    PaymentFault.FORGET: "is not kept if it is refused",
    PaymentFault.NO_SEAL: "does not refuse a payment that is unknown",
}
# The fields of a refusal as the command line names them.
_OPTIONS = {"preset": "--weather", "next.fault": "fault", "next.on": "--on"}


def change_line(source: str, profile: Mapping[str, Any], *, slow: bool) -> str:
    """`quota: every call hangs`. `slow`: the latency was changed, and not the faults."""
    parts = [*([_latency(profile["latency"])] if slow else ()), *_faults(profile)]
    return f"{source}: {'; '.join(parts) or 'no faults'}"


def profile_line(source: str, profile: Mapping[str, Any]) -> str:
    """All that calls of the source can meet."""
    stragglers = profile["stragglers"]
    slow = f"{_percent(stragglers['share_bps'])} of them take {stragglers['factor']:g} times as long"
    parts = [_latency(profile["latency"]), *([slow] if stragglers["share_bps"] else ())]
    return f"{source}: {'; '.join([*parts, *(list(_faults(profile)) or ['no faults'])])}"


def refusal_text(field: str, detail: str, nearest: str | float | None) -> str:
    """A refused profile in the terms of the command line: `--on 'raed' is not one of read`."""
    subject = "fault" if field.startswith("faults.") else _OPTIONS.get(field, field)
    return f"{subject} {detail}" + ("" if nearest is None else f"; did you mean {nearest!r}?")


def _faults(profile: Mapping[str, Any]) -> Iterator[str]:
    for planned in profile["next"]:
        yield f"the next {planned.get('on') or 'call'} {EFFECTS[planned['fault']]}"
    for fault, share_bps in profile["faults"].items():
        effect = EFFECTS[fault]
        yield f"every call {effect}" if share_bps == BPS else f"in {_percent(share_bps)} of the cases a call {effect}"


def _latency(latency: Mapping[str, Any]) -> str:
    match latency["shape"]:
        case "constant":
            return f"calls take {latency['ms']:g} ms"
        case "uniform":
            return f"calls take {latency['low_ms']:g} to {latency['high_ms']:g} ms"
        case _:
            return f"calls take {latency['median_ms']:g} ms (median), {latency['p99_ms']:g} ms (99th percentile)"


def _percent(share_bps: int) -> str:
    return f"{share_bps / 100:g} %"
