"""Every wrong field is named, exactly where the decoder refuses the answer."""

from __future__ import annotations

import copy
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cashier.conformance.redaction import redacted
from cashier.conformance.schema import field_faults
from cashier.contract.examples import examples
from cashier.contract.operations import OPERATIONS

ANSWERS = [(operation.answer, examples()[operation.operation_id]["200"]) for operation in OPERATIONS]
WRONG_VALUES: tuple[Any, ...] = (None, True, -1, 1.5, "", "x" * 70, [], [1], {}, {"currency": "XXX", "value": 1})


@pytest.mark.parametrize(("struct", "example"), ANSWERS)
def test_an_example_of_the_contract_has_no_fault(struct: Any, example: Any) -> None:
    assert list(field_faults(example, struct)) == []


@st.composite
def broken_answers(draw: st.DrawFn) -> tuple[Any, Any]:
    """An example with up to three of its fields replaced or taken away."""
    struct, example = draw(st.sampled_from(ANSWERS))
    example = copy.deepcopy(example)
    for _ in range(draw(st.integers(1, 3))):
        place = example
        while True:
            key = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
            if not isinstance(place[key], dict | list) or not place[key] or draw(st.booleans()):
                break
            place = place[key]
        if isinstance(place, dict) and len(place) > 1 and draw(st.booleans()):
            del place[key]
        else:
            place[key] = copy.deepcopy(draw(st.sampled_from(WRONG_VALUES)))
    return struct, example


@given(broken_answers())
def test_there_is_a_fault_exactly_if_the_decoder_refuses_the_answer(broken: tuple[Any, Any]) -> None:
    struct, answer = broken
    try:
        msgspec.json.decode(orjson.dumps(answer), type=struct)
    except msgspec.ValidationError:
        refused = True
    else:
        refused = False
    assert bool(list(field_faults(answer, struct))) is refused


def test_all_wrong_fields_of_all_rows_are_named() -> None:
    struct, answer = copy.deepcopy(next(each for each in ANSWERS if "cards" in each[1]))
    answer["cards"].append(dict(answer["cards"][0], last4=1014, type="GOLD"))
    del answer["cards"][0]["expiry"], answer["user_id"]
    faults = dict(field_faults(answer, struct))
    assert sorted(faults) == ["cards[0].expiry", "cards[1].last4", "cards[1].type", "user_id"]
    assert "it has DEBIT, CREDIT" in faults["cards[1].type"]
    assert not any("GOLD" in fault or "1014" in fault for fault in faults.values())


def test_a_redacted_body_has_words_of_the_contract_and_nothing_of_a_payer() -> None:
    body = {"code": "KEY_REUSED", "status": "ACTIVE", "name": "ZHANG SAN", "last4": "1014", "user 7": 13812345678}
    text = redacted(orjson.dumps(body))
    assert text == '{"code":"KEY_REUSED","status":"ACTIVE","name":"text","last4":"text","…":"integer"}'
    assert redacted(b"<html>Zhang San</html>") == "22 bytes that are no JSON, HTML or XML"
    assert redacted(orjson.dumps({"status": "ZHANG SAN"})) == '{"status":"text"}'
