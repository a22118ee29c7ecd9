"""What each fault does, in a line, for whoever wants to cause one."""

from __future__ import annotations

from collections.abc import Mapping

from cashier.sandbox.weather import CALL_NAMES, ENGINE_FAULTS, SOURCES, Fault, PaymentFault

DESCRIPTIONS: Mapping[Fault | PaymentFault, str] = {
    Fault.HANG: "done, and never answered",
    Fault.ERROR: "refused with 500, nothing done",
    Fault.OVERLOAD: "refused with 503, nothing done",
    Fault.GARBAGE: "done, and answered with what nobody agreed on",
    Fault.WRONG_IDENTITY: "done, and answered about somebody else",
    Fault.TRUNCATE: "done, and the answer broken off",
    Fault.SLOW_BODY: "done, and the answer a second on its way",
    Fault.RESET: "done, and the connection lost before the answer",
    PaymentFault.CUT: "the connection lost, nothing done",
    PaymentFault.SWALLOW: "never answered, nothing done",
    PaymentFault.ARRIVES_LATE: "the connection lost, and done some seconds later",
    PaymentFault.DUPLICATE: "done, and some seconds later done again",
    PaymentFault.DECLINE: "the bank says no",
    PaymentFault.STALL: "under way until it is settled or reversed",
    PaymentFault.CLOSE_FIRST: "the shop closes the order just before it is paid",
    PaymentFault.PAY_FIRST: "the payer pays just before the reverse arrives",
}


def describe_faults() -> str:
    """Every source, every fault under those that it can befall, and the calls that one can wait for."""
    parts = [
        f"Sources: {', '.join(SOURCES)}.",
        _listed("Faults of all (wrong_identity: of those whose answer names somebody):", list(Fault)),
        _listed("Of risk and engine:", [one for one in PaymentFault if one not in ENGINE_FAULTS]),
        _listed("Of the engine, on a submit or a reverse:", [one for one in PaymentFault if one in ENGINE_FAULTS]),
        _calls(),
    ]
    return "\n\n".join(parts)


def _listed(heading: str, faults: list[Fault] | list[PaymentFault]) -> str:
    # The mark keeps the lines of a paragraph as they are (click).
    return "\n".join(["\b", heading, *(f"  {fault.value:<15} {DESCRIPTIONS[fault]}" for fault in faults)])


def _calls() -> str:
    several = "; ".join(f"{source} {', '.join(calls)}" for source, calls in CALL_NAMES.items() if len(calls) > 1)
    return f"Calls, for --on: {several}; of the others read."
