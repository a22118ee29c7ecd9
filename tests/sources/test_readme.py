"""The contract page lists exactly the fields of the structs, and its example adapter works."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import cashier.sources
from cashier.domain.engine_contract import EnginePayment, Submission
from cashier.domain.facts import Cards
from cashier.domain.money import Money
from cashier.domain.next_action import Action
from cashier.domain.order_result import OrderResult
from cashier.domain.payment_request import Device
from cashier.domain.risk_contract import Inquiry
from cashier.source_errors import WrongIdentity
from cashier.sources import risk
from cashier.sources.adapter_settings import AdapterSettings
from cashier.sources.balance import BALANCE
from cashier.sources.batch_call import BatchSettings, BatchWireUpstream
from cashier.sources.source import Source
from cashier.wire.http1 import Http1Client
from cashier.wire.transport import Request, Response

from .adapter_rig import AnsweringTransport, outcome_of
from .test_sources import SOURCES

PAGE = (Path(cashier.sources.__file__).parent / "README.md").read_text("utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
LEAVES = (Money, Device, *Action.__args__)


def tables(section: str, column: str) -> list[dict[str, bool]]:
    """The tables of a section with this first column: field names, and whether required."""
    text = PAGE.partition(f"\n### {section}\n")[2].partition("\n##")[0]
    found = []
    for table in re.findall(rf"^\| {column} \|.*\n\|[-|]+\n((?:\|.*\n?)*)", text, re.MULTILINE):
        rows = [row.split(" | ") for row in table.splitlines()]
        fields = {name: row[2] == "yes" for row in rows for name in names(row[0])}
        assert {row[2] for row in rows} <= {"yes", "no"}
        found.append(fields)
    return found


def names(cell: str) -> list[str]:
    """Field paths of a cell. Further ones without a path share the path of the first."""
    first, *others = re.findall(r"`([^`]+)`", cell)
    path = first.rpartition(".")[0]
    return [first, *(f"{path}.{other}" if path else other for other in others)]


def fields(struct: Any, path: str = "") -> Iterator[tuple[str, bool]]:
    for field in msgspec.inspect.type_info(struct).fields:  # type: ignore[attr-defined]  # of a struct
        name = path + field.encode_name
        nested, is_list = struct_in(field.type)
        if nested is not None and is_list:
            name += "[]"
        yield name, field.required
        if nested is not None:
            yield from fields(nested, f"{name}.")


def struct_in(kind: Any) -> tuple[Any, bool]:
    """The struct that is worth a table of its own fields, and whether there is a list of them."""
    if isinstance(kind, msgspec.inspect.UnionType):
        return next((found for found in map(struct_in, kind.types) if found[0] is not None), (None, False))
    if isinstance(kind, msgspec.inspect.VarTupleType):
        return struct_in(kind.item_type)[0], True
    if isinstance(kind, msgspec.inspect.Metadata):
        return struct_in(kind.type)
    if isinstance(kind, msgspec.inspect.StructType) and kind.cls not in LEAVES:
        return kind.cls, False
    return None, False


ANSWERS = {name: source.answer_type for name, source in SOURCES.items()} | {"acquirer": OrderResult}


@pytest.mark.parametrize("name", ANSWERS)
def test_every_field_of_a_source_is_on_the_page(name: str) -> None:
    (table,) = tables(name, "field")
    assert table == dict(fields(ANSWERS[name]))


def test_every_field_of_risk_and_engine_is_on_the_page() -> None:
    assert tables("risk", "answer") == [
        dict(fields(answer)) for answer in (risk.Decision, risk.Verification, risk.ResendAnswer)
    ]
    assert tables("risk", "sent") == [dict(fields(Inquiry))]
    assert tables("engine", "answer") == [dict(fields(EnginePayment))]
    assert tables("engine", "sent") == [dict(fields(Submission))]


async def test_the_example_adapter_reads_another_shape() -> None:
    example = EXAMPLES[0]
    module: dict[str, Any] = {}
    exec(example, module)  # noqa: S102 — the example of the page
    adapter = module["Wallet"](AdapterSettings("card", {"key": "k"}, ""))
    item = b'{"no":"c_1","bank":"ICBC","bankName":"ICBC","tail":"1234","validThru":"2031-05"}'
    transport = AnsweringTransport(Response(200, b'{"uid":"u_1","items":[%s]}' % item))
    cards, _, _ = await outcome_of(adapter, transport)
    assert [card.last4 for card in cards.cards] == ["1234"]
    assert transport.requests == [Request("/wallet?uid=u_1", headers=(("Authorization", "Bearer k"),))]
    assert (await outcome_of(adapter, AnsweringTransport(Response(410, b""))))[:2] == (Cards("u_1", (), ()), True)
    other, _, _ = await outcome_of(adapter, AnsweringTransport(Response(200, b'{"uid":"u_2","items":[]}')))
    assert isinstance(other, WrongIdentity)


async def test_the_example_batch_is_a_batch() -> None:
    (example,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    request, answer = map(str.encode, example.splitlines())
    batch = BatchWireUpstream(BALANCE, Http1Client(["http://127.0.0.1:1"]), BatchSettings(path="/batch").path)
    many = msgspec.json.decode(request)["requests"]
    outcomes = batch._outcomes(Response(200, answer), many)
    assert isinstance(outcomes, list)
    assert [not_found for _, not_found, _ in outcomes] == [False, True]


def test_every_source_has_a_module_that_the_page_names() -> None:
    rows = re.findall(r"^\| \[`(\w+)`\]\(#\w+\) .* \| `(\w+)` \|$", PAGE, re.MULTILINE)
    assert {name for name, _ in rows} == {*SOURCES, "risk", "engine", "acquirer"}
    for name, module in rows:
        __import__(f"cashier.sources.{module}")
        found = getattr(sys.modules[f"cashier.sources.{module}"], name.upper(), None)
        assert name == "risk" or isinstance(found, Source)
