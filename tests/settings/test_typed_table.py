"""Conversion of TOML tables: variables in any place, and faults in the terms of the file."""

from __future__ import annotations

import re
from enum import Enum
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, Struct

from cashier.settings.typed_table import typed


class Colour(Enum):
    RED = "RED"
    GREEN = "GREEN"


class Inner(Struct, frozen=True, forbid_unknown_fields=True):
    count: Annotated[int, Meta(ge=1, le=9)] = 1
    share: float = 0.5
    on: bool = True
    name: str = ""
    either: int | str = 0
    perhaps: int | None = None
    mode: Literal["fast", "slow"] = "fast"
    colour: Colour = Colour.RED
    items: tuple[int, ...] = ()
    switch: bool | Annotated[int, Meta(ge=0)] = False


class Outer(Struct, frozen=True, forbid_unknown_fields=True):
    inner: Inner = Inner()
    by_name: dict[str, Inner] = {}
    listed: tuple[Inner, ...] = ()


def convert(inner: dict[str, object], environ: dict[str, str] | None = None) -> tuple[Inner | None, list[str]]:
    faults: list[str] = []
    outer = typed({"inner": inner}, Outer, "file.toml", faults, environ or {})
    return (outer.inner if outer else None), faults


@given(st.integers(1, 9))
def test_a_variable_fills_a_number(value: int) -> None:
    for text in (str(value), f" {value}\n", f"+{value}"):
        inner, faults = convert({"count": "${N}", "perhaps": "${N}", "items": ["${N}", 3]}, {"N": text})
        assert inner is not None, faults
        assert (inner.count, inner.perhaps, inner.items) == (value, value, (value, 3))


@given(st.floats(-1e6, 1e6).map(lambda value: round(value, 3)))
def test_a_variable_fills_a_fraction(value: float) -> None:
    inner, _ = convert({"share": "${N}"}, {"N": f"{value:.3f}"})
    assert inner is not None
    assert inner.share == pytest.approx(value)


@pytest.mark.parametrize(("text", "value"), [("true", True), ("false", False)])
def test_a_variable_fills_a_truth_value(text: str, value: bool) -> None:
    inner, _ = convert({"on": "${FLAG}", "switch": "${FLAG}"}, {"FLAG": text})
    assert inner is not None
    assert (inner.on, inner.switch) == (value, value)


@given(st.text(st.characters(codec="ascii", exclude_characters="${}"), max_size=8))
def test_a_text_stays_a_text(text: str) -> None:
    inner, _ = convert({"name": "${T}", "either": "${T}"}, {"T": text})
    assert inner is not None
    assert (inner.name, inner.either) == (text, text)
    inner, _ = convert({"name": "a${T}b${T}"}, {"T": text})
    assert inner is not None
    assert inner.name == f"a{text}b{text}"


@given(
    st.sampled_from(["count", "share", "on", "perhaps"]),
    st.text(max_size=8).filter(lambda text: re.fullmatch(r"\s*([+-]?\d+(\.\d+)?|true|false)\s*", text) is None),
)
def test_a_variable_that_is_no_number_is_named_without_its_value(key: str, text: str) -> None:
    inner, faults = convert({key: "${SECRET_THING}"}, {"SECRET_THING": f"zq{text}"})
    assert inner is None
    (fault,) = faults
    assert fault.startswith(f"file.toml: [inner] {key}: ${{SECRET_THING}} in the environment is not ")
    assert "zq" not in fault


def test_every_unset_variable_is_reported_with_its_place() -> None:
    _, faults = convert({"name": "${A}${B}", "items": ["${C}"]})
    assert faults == [
        f"file.toml: [inner] {key} refers to ${{{name}}}, which is not set in the environment; set it"
        for key, name in (("name", "A"), ("name", "B"), ("items[0]", "C"))
    ]


def test_variables_are_left_alone_without_an_environment() -> None:
    faults: list[str] = []
    outer = typed({"inner": {"name": "${A}"}}, Outer, "file.toml", faults)
    assert (outer and outer.inner.name, faults) == ("${A}", [])


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("count", "1", "[inner] count: expected an integer, got a text"),
        ("count", 0, "[inner] count: expected an integer ≥ 1"),
        ("count", 10, "[inner] count: expected an integer ≤ 9"),
        ("perhaps", 1.5, "[inner] perhaps: expected an integer, got a number"),
        ("share", [], "[inner] share: expected a number, got a list"),
        ("on", 1, "[inner] on: expected true or false, got an integer"),
        ("switch", "no", "[inner] switch: expected true or false or an integer, got a text"),
        ("mode", "fas", "[inner] mode: 'fas' is not one of fast, slow; did you mean 'fast'?"),
        ("mode", "", "[inner] mode: '' is not one of fast, slow"),
        ("mode", 3, "[inner] mode: expected a text, got an integer"),
        ("colour", "REDD", "[inner] colour: 'REDD' is not one of RED, GREEN; did you mean 'RED'?"),
        ("items", [1, "2"], "[inner] items[1]: expected an integer, got a text"),
        ("items", 1, "[inner] items: expected a list, got an integer"),
        ("nmae", "x", "[inner] unknown key 'nmae'; did you mean 'name'?"),
    ],
)
def test_a_fault_is_in_the_words_of_the_file(key: str, value: object, fault: str) -> None:
    assert convert({key: value})[1] == [f"file.toml: {fault}"]


# By key: a value that does not convert, and how its fault begins.
BROKEN = {
    "count": ("1", "count: expected an integer"),
    "share": ("half", "share: expected a number"),
    "on": (3, "on: expected true or false"),
    "mode": ("fats", "mode: 'fats' is not one of"),
    "items": ([1, "2", 3, True], "items[1]: expected an integer"),
    "nmae": ("x", "unknown key 'nmae'"),
    "perhaps": ("${N}", "perhaps: ${N} in the environment is not"),
    "name": ("${UNSET}", "name refers to ${UNSET}"),
}


@given(st.lists(st.sets(st.sampled_from(sorted(BROKEN))), min_size=3, max_size=3))
def test_all_faults_of_all_tables_are_named_at_once(broken: list[set[str]]) -> None:
    inner, named, listed = ({key: BROKEN[key][0] for key in keys} for keys in broken)
    faults: list[str] = []
    environ = {"N": "many"}
    typed({"inner": inner, "by_name": {"x": named}, "listed": [{}, listed]}, Outer, "f", faults, environ)
    expected = [
        f"f: [{place}] {BROKEN[key][1]}"
        for place, keys in zip(("inner", "by_name.x", "listed[1]"), broken, strict=True)
        for key in keys
    ]
    # Of a list of numbers each wrong item is one.
    others = [fault for fault in faults if "items[3]" not in fault]
    assert len(others) == len(expected)
    for start in expected:
        assert any(fault.startswith(start) for fault in others), (start, faults)


class Needs(Struct, frozen=True, forbid_unknown_fields=True):
    first: int
    second: int
    keyed: dict[Annotated[str, Meta(pattern="^[a-z]$")], int] = {}


def test_missing_keys_and_keys_of_another_form_are_named_beside_wrong_values() -> None:
    faults: list[str] = []
    table = {"A": {"first": "1", "keyed": {"b!": 1, "c": "2", "D": "3"}}, "B": {}}
    assert typed(table, dict[str, Needs], "f", faults) is None
    assert [fault.partition(" matching")[0] for fault in faults] == [
        "f: [A] first: expected an integer, got a text",
        "f: [A] second is missing",
        "f: [A.keyed] b! as a key: expected a text",
        "f: [A.keyed] c: expected an integer, got a text",
        "f: [A.keyed] D as a key: expected a text",
        "f: [A.keyed] D: expected an integer, got a text",
        "f: [B] first is missing",
        "f: [B] second is missing",
    ]


def test_a_place_in_tables_and_lists_is_named() -> None:
    faults: list[str] = []
    typed({"by_name": {"x": {"mode": "off"}}}, Outer, "file.toml", faults)
    typed({"listed": [{}, {"colour": "BLUE"}]}, Outer, "file.toml", faults)
    assert [fault.partition(" is not")[0] for fault in faults] == [
        "file.toml: [by_name.x] mode: 'off'",
        "file.toml: [listed[1]] colour: 'BLUE'",
    ]
