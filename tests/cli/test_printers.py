"""Printed consultations and payments: rank, mark, title, amount and reason at every width."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from rich.cells import cell_len

from cashier.cli.consultation_printer import (
    consultation_lines,
    method_lines,
    money_text,
    problem_lines,
    waterfall_lines,
)
from cashier.cli.payment_printer import price_breakdown
from cashier.consultation.answer import Consultation
from cashier.sandbox import CASES
from tests.support.scripted_service import amount
from tests.support.virtual_consultation import NEVER_MS, Behaviour, ask, request

MARKS = {"AVAILABLE": "●", "UNDETERMINED": "?", "UNAVAILABLE": "○"}
WIDTHS = (40, 60, 80, 100, 120, 140)


async def consulted(case: str, locale: str, **fates: Behaviour) -> dict[str, Any]:
    """The JSON of a consultation that the sandbox's world answers."""
    consultation = (await ask(fates, request(case, locale=locale))).consultation
    assert isinstance(consultation, Consultation)
    answer: dict[str, Any] = json.loads(msgspec.json.encode(consultation))
    return answer


def printed(answer: dict[str, Any], width: int) -> list[str]:
    return [line.plain for line in consultation_lines(answer, 12.3, 150, width)]


def squeezed(text: str) -> str:
    return re.sub(r"\s", "", text)


def rows(lines: list[str]) -> Iterator[list[str]]:
    """The lines of each method, the first with its rank."""
    starts = [place for place, line in enumerate(lines) if re.match(r" +\d+  [●?○]  ", line)]
    end = next(place for place, line in enumerate(lines) if "● available" in line) if starts else 0
    for start, next_start in pairwise([*starts, end]):
        yield lines[start:next_start]


def from_cell(line: str, start: int) -> str:
    """The text of a line from a terminal column on."""
    return next((line[place:] for place in range(len(line)) if cell_len(line[:place]) >= start), "")


def why_text(row: list[str], headings: str) -> str:
    """The reason in its column or below the row, without spaces."""
    before, column, _ = headings.partition("why")
    return squeezed("".join(from_cell(line, cell_len(before)) for line in row) if column else "".join(row[1:]))


@pytest.mark.looptime
@pytest.mark.parametrize("locale", ["en", "zh-CN"])
@pytest.mark.parametrize("case", [case for case in CASES if case != "order_unknown"])
async def test_nothing_is_cut_at_any_width(case: str, locale: str) -> None:
    answer = await consulted(case, locale)
    for width in WIDTHS:
        lines = printed(answer, width)
        assert max(map(cell_len, lines)) <= width
        assert all(line == line.rstrip() for line in lines)
        headings = next((line for line in lines if "payment method" in line), "")
        printed_rows = list(rows(lines))
        assert len(printed_rows) == len(answer["methods"])
        for method, row in zip(answer["methods"], printed_rows, strict=True):
            rank, mark, amount = method["rank"], MARKS[method["availability"]], method["amount"]
            assert re.match(rf" +{rank}  {re.escape(mark)}  ", row[0])
            assert (money_text(amount["payable"]) if amount else "unknown") in row[0]
            assert method["title"] in row[0] or width < 80
            reason = method["reason"]
            why = reason["message"] if reason else " ".join(method["rank_reasons"])
            assert squeezed(why) in why_text(row, headings)


@pytest.mark.looptime
async def test_at_80_columns_a_method_has_its_reason_below() -> None:
    lines = printed(await consulted("chinese_shop", "en"), 80)
    card = next(place for place, line in enumerate(lines) if "ICBC debit card (6222)" in line and "○" in line)
    assert lines[card].split("  ")[-1].strip() == "113.00 CNY"
    assert lines[card + 1].strip() == "−15.00  CN¥50.00 left of today's limit. → REDUCE_AMOUNT 50.00 CNY"


@pytest.mark.looptime
async def test_the_time_says_what_it_includes() -> None:
    lines = printed(await consulted("chinese_shop", "en"), 80)
    assert " answered in 12.3 ms, HTTP included; deadline 150 ms" in lines


def test_each_invalid_field_is_printed_once() -> None:
    errors = [
        {"field": "order_id", "code": "PATTERN", "message": "must match ^o"},
        {"field": "", "code": "TYPE", "message": "must be an object"},
    ]
    detail = "order_id must match ^o; the body must be an object"
    problem = {"status": 422, "code": "INVALID", "title": "Invalid request", "detail": detail, "errors": errors}
    assert [line.plain for line in problem_lines(problem, 80)] == [
        "",
        " 422 INVALID  Invalid request",
        "   order_id  must match ^o",
        "   the body  must be an object",
        "",
    ]
    assert f" 422 INVALID  {detail}" in [line.plain for line in problem_lines({**problem, "errors": []}, 80)]


@pytest.mark.looptime
async def test_an_undetermined_method_names_the_silent_source() -> None:
    answer = await consulted("chinese_shop", "en", quota=Behaviour(after_ms=NEVER_MS))
    lines = [line.plain for line in method_lines(answer["methods"], 80)]
    assert any(re.match(r"  1  \?  ", line) for line in lines)
    assert any("Not checked in time. Please try again. (quota)" in line for line in lines)


@pytest.mark.looptime
@pytest.mark.parametrize("width", [30, 40, 60, 80, 140])
async def test_the_bars_of_the_waterfall_shrink_with_the_terminal(width: int) -> None:
    answer = await consulted("chinese_shop", "en", quota=Behaviour(after_ms=NEVER_MS))
    lines = [line.plain for line in waterfall_lines(answer["sources"], 147.0, 150, width)]
    assert len(lines) == len(answer["sources"]) + 1
    bars = {line.split()[0]: line.count("━") for line in lines[:-1]}
    assert bars["quota"] == max(bars.values())
    assert all(bars.values())
    if width >= 60:
        assert max(map(cell_len, lines)) <= width
        assert all(source["class"].lower() in line for source, line in zip(answer["sources"], lines[:-1], strict=True))
    assert lines[6].endswith("TIMEOUT")


def test_a_price_shows_what_is_taken_and_added() -> None:
    assert price_breakdown(amount(11_930, fee=130, p_1=1_000)).plain == "128.00 − 10.00 + 1.30 fee = 119.30 CNY"
    assert price_breakdown(amount(12_930, fee=130)).plain == "128.00 + 1.30 fee = 129.30 CNY"


def test_a_price_without_discount_and_fee_is_shown_once() -> None:
    assert price_breakdown(amount(12_800)).plain == "128.00 CNY"
