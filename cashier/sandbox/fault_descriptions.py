"""What each fault does, in a line, for whoever wants to cause one."""

from __future__ import annotations

from collections.abc import Mapping

from cashier.sandbox.weather import CALLS, OF_THE_ENGINE, SOURCES, Fault, Mishap

MEANINGS: Mapping[Fault | Mishap, str] = {
    Fault.HANG: "done, and never answered",
    Fault.ERROR: "refused with 500, nothing done",
    Fault.OVERLOAD: "refused with 503, nothing done",
    Fault.GARBAGE: "done, and answered with what nobody agreed on",
    Fault.WRONG_IDENTITY: "done, and answered about somebody else",
    Fault.TRUNCATE: "done, and the answer broken off",
    Fault.SLOW_BODY: "done, and the answer a second on its way",
    Fault.RESET: "done, and the connection lost before the answer",
    Mishap.CUT: "the connection lost, nothing done",
    Mishap.SWALLOW: "never answered, nothing done",
    Mishap.ARRIVES_LATE: "the connection lost, and done some seconds later",
    Mishap.DUPLICATE: "done, and some seconds later done again",
    Mishap.DECLINE: "the bank says no",
    Mishap.STALL: "under way until it is settled or reversed",
    Mishap.CLOSE_FIRST: "the shop closes the order just before it is paid",
    Mishap.PAY_FIRST: "the payer pays just before the reverse arrives",
}


def faults_told() -> str:
    """Every source, every fault under those that it can befall, and the calls that one can wait for."""
    parts = [
        f"Sources: {', '.join(SOURCES)}.",
        _listed("Faults of all (wrong_identity: of those whose answer names somebody):", list(Fault)),
        _listed("Of risk and engine:", [one for one in Mishap if one not in OF_THE_ENGINE]),
        _listed("Of the engine, on a submit or a reverse:", [one for one in Mishap if one in OF_THE_ENGINE]),
        _calls(),
    ]
    return "\n\n".join(parts)


def _listed(heading: str, faults: list[Fault] | list[Mishap]) -> str:
    # The mark keeps the lines of a paragraph as they are (click).
    return "\n".join(["\b", heading, *(f"  {fault.value:<15} {MEANINGS[fault]}" for fault in faults)])


def _calls() -> str:
    several = "; ".join(f"{source} {', '.join(calls)}" for source, calls in CALLS.items() if len(calls) > 1)
    return f"Calls, for --on: {several}; of the others read."
