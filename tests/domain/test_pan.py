"""Card numbers are found anywhere in one pass; ids that only look like one are accepted."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cashier.domain.pan import LONGEST, SHORTEST, looks_issued, looks_like_pan, pan_fields, payment_pan_fields

VISA = "4111111111111111"
DIGITS = "0123456789"
SEPARATORS = ["", " ", "-", " - ", "\u00a0", "–"]


def luhn_sum(digits: str) -> int:
    """The textbook algorithm, digit by digit."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        doubled = int(digit) * (1 + place % 2)
        total += doubled - 9 if doubled > 9 else doubled
    return total


def completed(digits: str) -> str:
    """Append the check digit."""
    return digits + str(-luhn_sum(digits + "0") % 10)


numbers = st.text(DIGITS, min_size=SHORTEST - 1, max_size=LONGEST - 1).map(completed)
words = st.text(st.characters(exclude_categories=["Nd", "Cs"]), max_size=20)


@st.composite
def written(draw: st.DrawFn) -> tuple[str, str]:
    """A number that passes Luhn, and its text with separators."""
    number = draw(numbers)
    text = number[0]
    for digit in number[1:]:
        text += draw(st.sampled_from(SEPARATORS)) + digit
    return number, text


@given(written(), words, words)
def test_every_number_that_passes_is_found_in_any_text_and_any_grouping(
    number: tuple[str, str], before: str, after: str
) -> None:
    assert looks_like_pan(before + number[1] + after)


@given(numbers, st.text(DIGITS, min_size=1, max_size=6), st.text(DIGITS, min_size=1, max_size=6))
def test_adjacent_digit_groups_do_not_hide_a_number(number: str, before: str, after: str) -> None:
    assert looks_like_pan(f"{before} {number} {after}")


@given(st.text(DIGITS, min_size=SHORTEST, max_size=LONGEST))
def test_digits_that_fail_luhn_are_accepted(digits: str) -> None:
    assert looks_like_pan(digits) is (luhn_sum(digits) % 10 == 0)


@given(st.text(DIGITS, max_size=SHORTEST - 1) | st.text(DIGITS, min_size=LONGEST + 1, max_size=40))
def test_a_shorter_or_longer_number_is_no_card_number(digits: str) -> None:
    assert not looks_like_pan(digits)


@given(numbers)
def test_fullwidth_digits_are_digits(number: str) -> None:
    assert looks_like_pan("".join(chr(ord(digit) + 0xFEE0) for digit in number))


@pytest.mark.parametrize(
    "number",
    [
        VISA,
        "4222222222222",
        "5555555555554444",
        "2223003122003222",
        "378282246310005",
        "36227206271667",
        "3530111333300000",
        "6200000000000005",
    ],
)
def test_the_networks_test_numbers_are_found_by_both_checks(number: str) -> None:
    assert looks_like_pan(f"card {number}.")
    assert looks_issued(f"card {number}.")


@pytest.mark.parametrize("prefix", ["1", "20261123", "28", "13", "0"])
def test_ids_without_an_issuers_prefix_are_accepted_even_if_they_pass_luhn(prefix: str) -> None:
    number = completed(prefix.ljust(17, "7"))
    assert looks_like_pan(number)
    assert not looks_issued(number)


@pytest.mark.parametrize("text", [f"x{VISA}", f"{VISA}x", f"tok{VISA}", "550e8400-e29b-41d4-a716-446655440000"])
def test_a_number_within_a_word_is_not_issued(text: str) -> None:
    assert not looks_issued(text)


@given(st.text())
def test_every_issued_number_looks_like_a_pan(text: str) -> None:
    assert looks_like_pan(text) or not looks_issued(text)


@given(
    st.lists(words | st.integers() | st.none() | st.booleans()), st.sampled_from(["note", "device", "extra"]), written()
)
def test_a_number_is_found_at_any_depth_and_its_path_omits_it(
    others: list[Any], name: str, number: tuple[str, str]
) -> None:
    body = {"a": others, "b": [{name: [number[1]]}]}
    found = pan_fields(body)
    assert f"b[0].{name}[0]" in found
    assert number[0] not in json.dumps(found)


def test_names_numbers_and_ids_are_tested_too() -> None:
    body = {
        VISA: {"x": 1},
        "n": int(VISA),
        "order_id": "1" + VISA[1:],
        "user_id": VISA,
        "amount": {"value": 12_800},
        "huge": 10**30,
    }
    assert pan_fields(body, ids=frozenset({"order_id", "user_id"})) == ("?", "n", "user_id")


@pytest.mark.parametrize(
    "text", ["1 " * 6_000, "1" * 12_000, " " * 12_000, "1   " * 3_000, "12-" * 4_000, "1    " * 2_400]
)
def test_the_cost_is_linear_in_the_text(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts conversions of digits instead of time."""
    turned = 0

    def counting(digit: str) -> int:
        nonlocal turned
        turned += 1
        return int(digit)

    monkeypatch.setattr("cashier.domain.pan.int", counting, raising=False)
    looks_like_pan(text)
    assert turned <= 2 * len(text)


@pytest.mark.parametrize(
    "name", ["order_id", "user_id", "method_id", "promotion_ids", "device_id", "return_url", "Idempotency-Key"]
)
def test_a_payment_id_field_may_hold_a_number_that_no_issuer_uses(name: str) -> None:
    assert payment_pan_fields({name: "2026050112000000007"}) == ()
    assert payment_pan_fields({name: VISA}) == (name,)


def test_payment_codes_and_tokens_are_exempt_only_as_text_in_their_own_field() -> None:
    unionpay = completed("622202123456789")
    for name in ("auth_code", "consult_token", "payment_token"):
        assert payment_pan_fields({name: unionpay}) == ()
        assert payment_pan_fields({name: {"number": unionpay}}) == (f"{name}.number",)
        assert payment_pan_fields({name: int(unionpay)}) == (name,)
        assert payment_pan_fields({"device": {name: unionpay}}) == (f"device.{name}",)


def test_all_other_fields_of_a_payment_are_searched_including_unknown_ones() -> None:
    body = {"card_token": f"tok {VISA}", "value": VISA, VISA: 1, "note": [{"x": f"no. {VISA[:4]}-{VISA[4:]}"}]}
    assert payment_pan_fields(body) == ("?", "card_token", "note[0].x", "value")
    assert payment_pan_fields([VISA]) == ("[0]",)
    assert payment_pan_fields(VISA) == ("",)
    assert payment_pan_fields(None) == ()


def test_a_json_number_is_found_in_any_notation() -> None:
    assert pan_fields({"n": float(VISA)}) == pan_fields({"n": -int(VISA)}) == ("n",)
    for harmless in (float("inf"), float("nan"), 4111111111111111.5, 1e300, 0.0):
        assert pan_fields({"n": harmless}) == ()


def test_the_cost_of_a_body_is_linear_in_its_size() -> None:
    deep: Any = [0] * 15_000
    for _ in range(400):
        deep = {"k" * 80: deep}
    for body in ({"k" * 30_000: [0] * 17_000}, {"k" * 30_000: [VISA] * 1_700}, deep):
        tracemalloc.start()
        found = payment_pan_fields(body)
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(found) <= 16
        assert peak_bytes < 10_000_000


def test_at_most_the_maximum_of_fields_is_reported() -> None:
    many = {f"n{number}": VISA for number in range(40)} | {f"{VISA}{' ' * number}": 1 for number in range(40)}
    assert len(pan_fields(many)) == 80
    assert len(payment_pan_fields(many)) == 16
    assert payment_pan_fields([{"a": VISA}, {VISA: 1}]) == ("[0].a", "[1].?")


@pytest.mark.parametrize("separator", [".", "_", "/", "+", "\t", "\u200b", "\u00ad"])
def test_a_number_grouped_as_on_a_card_is_found_with_any_separator(separator: str) -> None:
    assert looks_like_pan(separator.join(("4111", "1111", "1111", "1111")))
    assert looks_issued(separator.join(("3782", "822463", "10005")))
    assert not looks_like_pan(separator.join(("4111", "1111", "1111", "1112")))


def test_versions_and_addresses_are_no_card_numbers() -> None:
    for text in (
        "Mozilla/5.0 (X11) AppleWebKit/537.36 Chrome/120.0.6099.109 Safari/537.36",
        "192.168.100.100",
        "2026/11/23",
        "10_15_7",
    ):
        assert not looks_like_pan(text)
