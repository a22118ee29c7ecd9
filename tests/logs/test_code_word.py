"""Of what upstreams send as codes, only what can be one is seen."""

from __future__ import annotations

import pytest

from cashier.logs.code_word import code_word
from cashier.sources.asked import Asked, UnneededInput


@pytest.mark.parametrize("code", ["ACTIVE", "R_1042", "51", "insufficient.funds", "E-100001", "urn:x", "x" * 64])
def test_a_code_is_shown(code: str) -> None:
    assert code_word(code) == code


@pytest.mark.parametrize(
    "code",
    [
        "",
        "王小明",
        "Müller",
        "13912345678",
        "4111-1111-1111-1111",
        "6222_0212",
        "a b",
        "a@b",
        "a\nb",
        "x" * 65,
        "\u0661\u0662",
    ],
)
def test_anything_else_is_not(code: str) -> None:
    assert code_word(code) == "malformed"


@pytest.mark.parametrize("name", ["王小明", "13912345678", "a b", "x" * 41, 7])
def test_an_adapter_that_looks_up_a_payers_name_does_not_show_it(name: object) -> None:
    asked = Asked("card", {"user_id": "u_1"}, ("user_id",))
    with pytest.raises(UnneededInput, match="another name, but card has only user_id"):
        asked[name]  # type: ignore[index]
