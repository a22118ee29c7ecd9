"""The transition table of a payment: illegal transitions, final statuses, the diagram."""

from __future__ import annotations

import re
from itertools import product

import pytest

from cashier.domain.payment_state import (
    FINAL,
    NEXT,
    START,
    STATUS_AFTER,
    IllegalTransition,
    PaymentEvent,
    PaymentStatus,
    next_status,
)
from tests.domain.payment_diagram import BEGIN, END, block, diagram

LIVE = frozenset(PaymentStatus) - FINAL


def test_a_final_status_has_no_successor() -> None:
    assert {status for status in PaymentStatus if not NEXT[status]} == FINAL
    for status, event in product(FINAL, PaymentEvent):
        with pytest.raises(IllegalTransition):
            next_status(status, event)


def test_every_transition_of_the_table_is_made_and_every_other_raises() -> None:
    for status, event in product((None, *PaymentStatus), PaymentEvent):
        transitions = START if status is None else NEXT[status]
        if event in transitions:
            assert next_status(status, event) is transitions[event]
        else:
            with pytest.raises(IllegalTransition, match=event.name) as refused:
                next_status(status, event)
            assert (refused.value.status, refused.value.event) == (status, event)


def test_an_event_leads_to_the_same_status_from_everywhere() -> None:
    for transitions in (START, *NEXT.values()):
        assert all(STATUS_AFTER[event] is status for event, status in transitions.items())
    assert set(STATUS_AFTER) == set(PaymentEvent)


def test_every_live_status_can_end_by_every_final_report_of_engine_and_acquirer() -> None:
    for status in LIVE:
        assert set(NEXT[status].values()) >= FINAL


@pytest.mark.parametrize(
    "event",
    [
        PaymentEvent.ENGINE_SILENT,
        PaymentEvent.ACQUIRER_SILENT,
        PaymentEvent.EXPIRED,
        PaymentEvent.CHALLENGE_OVER,
        PaymentEvent.CANCELLED,
        PaymentEvent.ENGINE_NEVER_ARRIVED,
        PaymentEvent.ENGINE_SUCCEEDED,
        PaymentEvent.ORDER_OVER,
    ],
)
def test_silence_time_cancellation_and_the_engine_alone_end_nothing(event: PaymentEvent) -> None:
    assert STATUS_AFTER[event] is PaymentStatus.PROCESSING


def test_success_and_refund_come_from_the_acquirer_or_a_double_payment() -> None:
    assert {event for event, status in STATUS_AFTER.items() if status is PaymentStatus.SUCCEEDED} == {
        PaymentEvent.ORDER_PAID,
        PaymentEvent.ORDER_REFUNDED,
    }
    refunding = {PaymentEvent.ORDER_CLOSED_REFUNDING, PaymentEvent.ORDER_CLOSED_REFUNDED, PaymentEvent.PAID_TWICE}
    assert {event for event, status in STATUS_AFTER.items() if status is PaymentStatus.CLOSED_REFUNDING} == refunding


def test_nothing_leads_back_to_a_challenge_after_an_action_was_required() -> None:
    assert PaymentStatus.CHALLENGE not in NEXT[PaymentStatus.ACTION_REQUIRED].values()
    assert PaymentEvent.ENGINE_SEALED not in NEXT[PaymentStatus.ACTION_REQUIRED]


def test_the_diagram_has_every_transition_of_the_table_and_no_other() -> None:
    drawn: dict[tuple[str, str], set[str]] = {}
    for begin, labels, end in re.findall(r'^    (\w+) -->\|"(.*)"\| (\w+)$', diagram(), re.MULTILINE):
        for source in LIVE if begin == "LIVE" else (begin,):
            drawn.setdefault((str(source), end), set()).update(labels.split("<br/>"))
    table: dict[tuple[str, str], set[str]] = {}
    for begin, transitions in (("START", START), *NEXT.items()):
        for event, end in transitions.items():
            if begin != end:
                table.setdefault((str(begin), str(end)), set()).add(event.value)
    assert drawn == table


def test_the_diagram_shows_which_statuses_are_final() -> None:
    assert set(re.findall(r"^    (\w+)\(\[\1\]\)$", diagram(), re.MULTILINE)) == FINAL
    assert set(re.findall(r"^    (\w+)\[\1\]$", diagram(), re.MULTILINE)) == LIVE


def test_the_block_for_the_readme_is_a_mermaid_block_between_its_marks() -> None:
    assert block() == f"{BEGIN}\n```mermaid\n{diagram()}```\n{END}"
