"""One line per fault about its effect, for the help of `cashier weather`."""

from __future__ import annotations

from collections.abc import Mapping

from cashier.sandbox.source_table import SOURCES
from cashier.sandbox.weather import ENGINE_FAULTS, Fault, PaymentFault

DESCRIPTIONS: Mapping[Fault | PaymentFault, str] = {
    Fault.HANG: "the work is done, no answer comes",
    Fault.ERROR: "500, nothing is done",
    Fault.OVERLOAD: "503, nothing is done",
    Fault.GARBAGE: "the work is done, the answer breaks the contract",
    Fault.WRONG_IDENTITY: "the work is done, the answer names another entity",
    Fault.TRUNCATE: "the work is done, the answer breaks off",
    Fault.SLOW_BODY: "the work is done, the body takes 1 s",
    Fault.RESET: "the work is done, the connection is reset before the answer",
    PaymentFault.CUT: "the connection is reset, nothing is done",
    PaymentFault.SWALLOW: "no answer comes, nothing is done",
    PaymentFault.ARRIVES_LATE: "the connection is reset, the work is done 5 s later",
    PaymentFault.DUPLICATE: "the work is done, and the request is repeated 5 s later",
    PaymentFault.DECLINE: "the bank declines",
    PaymentFault.STALL: "the payment stays under way until settled or reversed",
    PaymentFault.CLOSE_FIRST: "the shop closes the order just before it is paid",
    PaymentFault.PAY_FIRST: "the payer pays just before the reverse arrives",
    PaymentFault.FORGET: "a submit that is refused is answered, and not kept",
    PaymentFault.NO_SEAL: "a reverse of an unknown payment does not refuse it",
}


def describe_faults() -> str:
    """The sources, the faults that each can have, and the calls for `--on`."""
    anonymous = " and ".join(name for name, source in SOURCES.items() if source.identity is None)
    parts = [
        f"Sources: {', '.join(SOURCES)}.",
        _section(f"Faults of all sources (wrong_identity: all but {anonymous}):", list(Fault)),
        _section("Faults of risk and engine:", [fault for fault in PaymentFault if fault not in ENGINE_FAULTS]),
        _section(
            "Faults of the engine, on submit or reverse:", [fault for fault in PaymentFault if fault in ENGINE_FAULTS]
        ),
        _calls(),
    ]
    return "\n\n".join(parts)


def _section(heading: str, faults: list[Fault] | list[PaymentFault]) -> str:
    # \b makes click keep the line breaks of the paragraph.
    return "\n".join(["\b", heading, *(f"  {fault.value:<15} {DESCRIPTIONS[fault]}" for fault in faults)])


def _calls() -> str:
    several = [f"{name} {', '.join(source.calls)}" for name, source in SOURCES.items() if len(source.calls) > 1]
    return f"Calls for --on: {'; '.join(several)}; all other sources: read."
