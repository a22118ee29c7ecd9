"""An optional field of an upstream's answer may be absent or null: some serializers write each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from msgspec import inspect

from cashier.consultation.source_table import SOURCE_SPECS
from cashier.domain.engine_contract import EnginePayment
from cashier.domain.facts import Channels
from cashier.domain.order_result import OrderResult
from cashier.sources import engine, risk
from cashier.sources.channel import CHANNEL

DECODERS = (engine, "_decode_order_busy"), (engine, "_decode_never_arrived"), (risk, "_decode_decision")
ANSWERS = [spec.source.answer_type for spec in SOURCE_SPECS] + [EnginePayment, OrderResult]
ANSWERS += [getattr(module, name).__self__.type for module, name in DECODERS]


def parts(found: inspect.Type) -> Iterator[inspect.Type]:
    """The types that may stand in this one's place."""
    if isinstance(found, inspect.Metadata):
        yield from parts(found.type)
    elif isinstance(found, inspect.UnionType):
        for each in found.types:
            yield from parts(each)
    else:
        yield found


def optional_fields(found: inspect.Type, path: str = "") -> Iterator[tuple[str, inspect.Type]]:
    for part in parts(found):
        if isinstance(part, inspect.StructType):
            for field in part.fields:
                name = f"{path}.{field.encode_name}"
                if not field.required:
                    yield name, field.type
                yield from optional_fields(field.type, name)
        for inner in ("item_type", "value_type"):
            if hasattr(part, inner):
                yield from optional_fields(getattr(part, inner), f"{path}[]")


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer.__name__)
def test_every_optional_field_of_an_answer_may_be_null(answer: Any) -> None:
    for path, found in optional_fields(inspect.type_info(answer), answer.__name__):
        assert any(isinstance(part, inspect.NoneType | inspect.AnyType) for part in parts(found)), path


def test_a_channel_whose_step_is_null_has_none() -> None:
    names = {"channel_id": "ch", "kind": "WALLET", "provider": "W", "provider_name": "W", "status": "OPEN"}
    bounds = {"min": {"currency": "CNY", "value": 1}, "max": {"currency": "CNY", "value": 9}, "currencies": ["CNY"]}
    row: dict[str, Any] = {**names, **bounds, "cost_bps": 1, "success_bps": 1, "terminals": []}
    for step, expected in ((None, 1), (1, 1), (7, 7)):
        body = msgspec.json.encode({"channels": [row | {"step": step}]})
        fact = CHANNEL.parse(200, body, {"currency": "CNY", "country": "CN"})
        assert isinstance(fact, Channels)
        assert fact.by_id["ch"].step == expected
