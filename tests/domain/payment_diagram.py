"""The state diagram of a payment, generated from the transition table.

`cashier/payments/README.md` has it between two marks. To print the block with its marks:
`python -c "from tests.domain.payment_diagram import block; print(block())"`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cashier.domain.payment_state import FINAL, NEXT, START, PaymentEvent, PaymentStatus

BEGIN = "<!-- payment states, generated from cashier/domain/payment_state.py -->"
END = "<!-- /payment states -->"
_START, _LIVE = "START", "LIVE"


def block() -> str:
    """The block with its marks."""
    return f"{BEGIN}\n```mermaid\n{diagram()}```\n{END}"


def diagram() -> str:
    """A mermaid flowchart: final statuses have round ends, an arrow lists all its events.

    Transitions that all live statuses share start once, at the frame around them.
    """
    live = [status for status in PaymentStatus if status not in FINAL]
    endings = {
        event: to
        for event, to in NEXT[live[0]].items()
        if to in FINAL and all(event in NEXT[status] for status in live)
    }
    lines = ["flowchart LR", f"    {_START}((submit))", f'    subgraph {_LIVE}["live"]']
    lines += [f"    {status}[{status}]" for status in live]
    lines += ["    end", *(f"    {status}([{status}])" for status in PaymentStatus if status in FINAL)]
    lines += [*_arrows(_START, START), *_arrows(_LIVE, endings)]
    for status in live:
        lines += _arrows(
            status, {event: to for event, to in NEXT[status].items() if to is not status and event not in endings}
        )
    return "\n".join(lines) + "\n"


def _arrows(status: str, moves: Mapping[PaymentEvent, PaymentStatus]) -> Iterator[str]:
    for to in PaymentStatus:
        events = [event.value for event, target in moves.items() if target is to]
        if events:
            yield f'    {status} -->|"{"<br/>".join(events)}"| {to}'
