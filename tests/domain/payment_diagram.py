"""The diagram of a payment's life for people, drawn from the table, so that it cannot say anything else.

The README has it between two marks: `python -c "from tests.domain.payment_diagram import block; print(block())"` prints what goes there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cashier.domain.payment_state import FINAL, NEXT, START, PaymentEvent, PaymentStatus

BEGIN = "<!-- the life of a payment, drawn from cashier/domain/payment_state.py -->"
END = "<!-- /the life of a payment -->"
_START, _LIVE = "START", "LIVE"


def block() -> str:
    """The whole block, marks included."""
    return f"{BEGIN}\n```mermaid\n{diagram()}```\n{END}"


def diagram() -> str:
    """A mermaid flowchart: final statuses with round ends, an arrow a pair of statuses, and on it every event that leads there.

    How all that is not over may end is drawn once, from the frame around it.
    """
    live = [status for status in PaymentStatus if status not in FINAL]
    endings = {
        event: to
        for event, to in NEXT[live[0]].items()
        if to in FINAL and all(event in NEXT[status] for status in live)
    }
    lines = ["flowchart LR", f"    {_START}((submit))", f'    subgraph {_LIVE}["not over"]']
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
        told = [event.value for event, there in moves.items() if there is to]
        if told:
            yield f'    {status} -->|"{"<br/>".join(told)}"| {to}'
