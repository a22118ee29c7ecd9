"""Payment ids and fingerprints: what decides that two submits are the same payment."""

from __future__ import annotations

import re
from itertools import combinations
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from cashier.domain.money import Money
from cashier.domain.order import Product, Terminal
from cashier.domain.payment_id import fingerprint, payment_id
from cashier.domain.payment_request import PaymentChoice, PaymentMeans

CHOSEN = PaymentChoice(
    order_id="o_1001",
    user_id="u_1",
    merchant_id="m_1",
    product=Product.STANDARD_CASHIER,
    terminal=Terminal.APP,
    method_id="QUICK_PAY:c_2",
    promotion_ids=("p_1", "p_2"),
    expected_payable=Money("CNY", 11_800),
)
MEANS = PaymentMeans(card_token="tok_1", return_url="https://shop.example/back")
TEXT = st.text(min_size=1, max_size=8)


def test_ids_never_change() -> None:
    # Fixed values: with any other, retries would no longer meet their payments.
    assert payment_id("m_1", "o_1001", "key-1") == "pay_ojsbpauo2sw3emeaczfqngf7du"
    assert fingerprint(CHOSEN, MEANS) == "9b9618c22df5b99b211ef931cf8dc0c5b56263f5f19a4f566eba00550dfed9a2"


def test_the_fingerprint_of_a_walk_in_is_that_of_no_user() -> None:
    named = replace(CHOSEN, product=Product.SCAN)
    walk_in = replace(named, user_id=None)
    assert fingerprint(walk_in, MEANS) == "d9c94370df0be43c3903f7b5a6494aef7e0c1c640d29278acadadd39396d69b8"
    assert fingerprint(walk_in, MEANS) not in (
        fingerprint(named, MEANS),
        fingerprint(replace(named, user_id=""), MEANS),
    )


# Computed before `chosen_promotions` existed: a retry across the update must meet its payment.
OLDER: list[tuple[dict[str, Any], PaymentMeans, str]] = [
    ({}, PaymentMeans(), "6ea04cbf0f79e0cb931a5a473e3e931a9cee90faafdf76ec54805b37bf9a9d1b"),
    (
        {"promotion_ids": ("p_2", "p_1")},
        PaymentMeans(),
        "91cf9569bbd366adf9624514584785c48ab43044493e5aead6c19f709160f9b4",
    ),
    (
        {"option_id": "CMB", "method_id": "NET_BANKING"},
        PaymentMeans(),
        "9ecb4191c6c11dbda8b727bb684934a99d70308420dae55ed404efc56f8dc79b",
    ),
    (
        {"method_id": "CARD"},
        PaymentMeans(card_token="tok_1", return_url="https://shop.example/back?s=1"),
        "b86e262dc5aa6944611817fef63206098a93c963e2f2990ff9a07faaccc6f40d",
    ),
    (
        {"method_id": "CONSUMER_QR", "terminal": Terminal.POS, "product": Product.SCAN, "country": "CN"},
        PaymentMeans(auth_code="281234567890123456"),
        "db8187b14b9c1e4b40640dd6d2d5dbc6c265fbf874d9fc9c83d74e9775f706a0",
    ),
    (
        {"method_id": "OTC", "option_id": "ALFAMART", "expected_payable": Money("IDR", 12_500_000)},
        PaymentMeans(),
        "2dd3c1937298ada270fe38f88605e17ab76c184ab6cc9ad3b9dc235e3d1fe360",
    ),
    (
        {"method_id": "BALANCE:b_1+QUICK_PAY", "option_id": "c_1", "promotion_ids": ("满减",)},
        PaymentMeans(),
        "3d8745798bc894097f829bd2548dc817d5ac31f1fb74fc7713ac5b93380cd46b",
    ),
]


@pytest.mark.parametrize(("fields", "means", "expected"), OLDER, ids=range(len(OLDER)))
def test_an_older_submit_keeps_its_fingerprint(fields: dict[str, Any], means: PaymentMeans, expected: str) -> None:
    assert fingerprint(replace(CHOSEN, **{"promotion_ids": (), **fields}), means) == expected


def test_the_order_and_repetition_of_chosen_promotions_have_no_effect() -> None:
    def of(*chosen: str) -> str:
        return fingerprint(replace(CHOSEN, chosen_promotions=chosen), MEANS)

    assert of("p_1", "p_2") == of("p_2", "p_1") == of("p_2", "p_1", "p_2")
    assert len({of(), of("p_1"), of("p_1", "p_2"), fingerprint(CHOSEN, MEANS)}) == 4


def test_a_choice_without_promotions_is_encoded_and_an_absent_one_is_not() -> None:
    assert b"chosen_promotions" not in msgspec.json.encode(CHOSEN)
    assert b'"chosen_promotions":[]' in msgspec.json.encode(replace(CHOSEN, chosen_promotions=()))


@given(TEXT, TEXT, TEXT)
def test_an_id_is_valid_in_paths_and_headers_and_as_the_engines_key(merchant_id: str, order_id: str, key: str) -> None:
    assert re.fullmatch(r"pay_[a-z2-7]{26}", payment_id(merchant_id, order_id, key))


@given(st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=2, max_size=6, unique=True))
def test_different_parts_give_different_ids(parts: list[tuple[str, str, str]]) -> None:
    assert len({payment_id(*each) for each in parts}) == len(parts)


@pytest.mark.parametrize(
    "cut", [("ab", "c", "d"), ("a", "bc", "d"), ("a", "b", "cd"), ("a", "b", "c:d"), ("a:b", "c", "d")]
)
def test_the_boundary_between_parts_matters(cut: tuple[str, str, str]) -> None:
    assert payment_id(*cut) != payment_id("a", "b", "c")
    assert payment_id(*cut) != payment_id("".join(cut), "", "")


OTHERS: list[tuple[str, Any]] = [
    ("order_id", "o_2"),
    ("user_id", "u_2"),
    ("merchant_id", "m_2"),
    ("product", Product.SCAN),
    ("terminal", Terminal.PC),
    ("method_id", "QUICK_PAY:c_3"),
    ("option_id", "CMB"),
    ("promotion_ids", ("p_1",)),
    ("promotion_ids", ("p_1", "p_1", "p_2")),
    ("promotion_ids", ("p_1,p_2",)),
    ("promotion_ids", ()),
    ("chosen_promotions", ()),
    ("chosen_promotions", ("p_1",)),
    ("chosen_promotions", ("p_1", "p_2")),
    ("expected_payable", Money("CNY", 11_801)),
    ("expected_payable", Money("JPY", 11_800)),
]
OTHER_MEANS: list[PaymentMeans] = [
    PaymentMeans(return_url=MEANS.return_url),
    PaymentMeans(card_token="tok_2", return_url=MEANS.return_url),
    PaymentMeans(auth_code="tok_1", return_url=MEANS.return_url),
    PaymentMeans(card_token="tok_1", auth_code="28", return_url=MEANS.return_url),
    PaymentMeans(card_token="tok_1"),
    PaymentMeans(card_token="tok_1", return_url="https://shop.example/back?"),
]


def test_every_field_that_decides_the_payment_changes_the_fingerprint() -> None:
    found = [fingerprint(CHOSEN, MEANS)]
    found += [fingerprint(replace(CHOSEN, **{name: value}), MEANS) for name, value in OTHERS]
    found += [fingerprint(CHOSEN, means) for means in OTHER_MEANS]
    assert all(one != other for one, other in combinations(found, 2))


@pytest.mark.parametrize("change", [{"locale": "zh-CN"}, {"country": "CN"}, {"promotion_ids": ("p_2", "p_1")}])
def test_fields_that_decide_nothing_do_not_change_the_fingerprint(change: dict[str, Any]) -> None:
    assert fingerprint(replace(CHOSEN, **change), MEANS) == fingerprint(CHOSEN, MEANS)


def test_every_field_is_covered_by_a_test() -> None:
    changed = {name for name, _ in OTHERS} | {"locale", "country"}
    assert changed == set(PaymentChoice.__struct_fields__)
    assert set(PaymentMeans.__struct_fields__) == {"card_token", "auth_code", "return_url"}
