"""The consult token: its content, its verification, and that changes are refused."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from dataclasses import replace
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from cashier.domain.money import Money
from cashier.domain.order import Product
from cashier.domain.pay_method import Amounts, Availability, Discount, Option
from cashier.tokens.consult_token import CONSULT_TYPE, ConsultClaims, OfferedPrice
from cashier.tokens.jws import TokenRefused
from cashier.tokens.token_service import TokenService
from tests.tokens.forgery import Forged, bit_flipped
from tests.web.fake_service import ASKED, METHODS, ORDER_AMOUNT

OLD, NEW, FOREIGN = "old-" * 8, "new-" * 8, "foreign-" * 4
NOW_S = 1_700_000_000
ORDER_ENDS_S = NOW_S + 86_400


def signed(tokens: TokenService, ttl_s: int = 300) -> str:
    return tokens.sign_consult_token(ASKED, ORDER_AMOUNT, ORDER_ENDS_S, METHODS, NOW_S, ttl_s)


def code_of(tokens: TokenService, text: str, now_s: float = NOW_S) -> str:
    with pytest.raises(TokenRefused) as caught:
        tokens.read_consult_token(text).require_unexpired(now_s)
    assert str(caught.value) == caught.value.code, "the error does not repeat the token"
    return caught.value.code


def read(text: str) -> ConsultClaims:
    return TokenService([NEW]).read_consult_token(text)


TOKEN = signed(TokenService([NEW]))


def test_the_consulted_order_is_read_back() -> None:
    claims = read(TOKEN)
    assert (claims.order_id, claims.user_id, claims.merchant_id) == (ASKED.order_id, ASKED.user_id, ASKED.merchant_id)
    assert (claims.product, claims.terminal, claims.currency, claims.amount) == (
        ASKED.product,
        ASKED.terminal,
        "CNY",
        12800,
    )
    assert (claims.iss, claims.iat, claims.exp) == ("cashier", NOW_S, NOW_S + 300)


def test_it_contains_the_available_and_undetermined_methods_only() -> None:
    chosen = [method.method_id for method in METHODS if method.availability is not Availability.UNAVAILABLE]
    assert [row.id for row in read(TOKEN).methods] == chosen
    assert len(chosen) < len(METHODS)


def test_prices_are_those_of_the_answer() -> None:
    by_id = {row.id: row for row in read(TOKEN).methods}
    for method in METHODS:
        if method.availability is Availability.UNAVAILABLE or method.amount is None:
            continue
        row = by_id[method.method_id]
        assert (row.payable, row.fee) == (method.amount.payable.value, method.amount.fee.value)
        assert row.promotions == tuple(
            (discount.promotion_id, discount.amount.value) for discount in method.amount.discounts
        )


def test_it_contains_legs_and_the_options_with_another_price() -> None:
    row = read(TOKEN).methods[-1]
    assert row.legs == (("BALANCE", "a_1", 5000), ("CHANNEL", "ch_9", 7800))
    assert row.options == (OfferedPrice("c_1", 12807, 7),)


def test_pyjwt_reads_it() -> None:
    claims = jwt.decode(TOKEN, NEW, algorithms=["HS256"], issuer="cashier", options={"verify_exp": False})
    assert claims["order_id"] == "o_1001"
    header = jwt.get_unverified_header(TOKEN)
    assert (header["alg"], header["typ"]) == ("HS256", CONSULT_TYPE)


def test_the_first_secret_signs_and_all_verify() -> None:
    old = signed(TokenService([OLD]))
    assert TokenService([NEW, OLD]).read_consult_token(old).order_id == "o_1001"
    assert signed(TokenService([NEW, OLD])) == TOKEN


def test_a_retired_key_is_unknown() -> None:
    assert code_of(TokenService([NEW]), signed(TokenService([OLD]))) == "TOKEN_UNKNOWN_KEY"


@pytest.mark.parametrize(("at_s", "readable"), [(NOW_S + 299.9, True), (NOW_S + 300, False)])
def test_it_expires_at_its_time(at_s: float, readable: bool) -> None:
    if readable:
        claims = TokenService([NEW]).read_consult_token(TOKEN)
        claims.require_unexpired(at_s)
        assert claims.exp == NOW_S + 300
    else:
        assert code_of(TokenService([NEW]), TOKEN, at_s) == "TOKEN_EXPIRED"


@given(st.integers(0, len(TOKEN) - 1), st.sampled_from("ABCxyz019-_.=+/ \n"))
def test_no_character_can_be_changed(index: int, char: str) -> None:
    changed = TOKEN[:index] + char + TOKEN[index + 1 :]
    if changed != TOKEN:
        assert code_of(TokenService([NEW]), changed) in ("TOKEN_MALFORMED", "TOKEN_TAMPERED", "TOKEN_UNKNOWN_KEY")


@given(st.integers(0, len(TOKEN) * 8 - 1))
def test_no_bit_can_be_changed(bit: int) -> None:
    assert code_of(TokenService([NEW]), bit_flipped(TOKEN, bit)) in (
        "TOKEN_MALFORMED",
        "TOKEN_TAMPERED",
        "TOKEN_UNKNOWN_KEY",
    )


@pytest.mark.parametrize("template", [" {}", "{} ", "{}\n", "{}=", "{}.", ".{}", "\ufeff{}", "Bearer {}"])
def test_no_text_may_surround_it(template: str) -> None:
    assert code_of(TokenService([NEW]), template.format(TOKEN)) == "TOKEN_MALFORMED"


def test_lookalikes_of_base64_letters_are_refused() -> None:
    for letter, lookalike in (("A", "Ａ"), ("a", "а"), ("s", "\u017f"), ("1", "१")):
        assert letter in TOKEN
        assert code_of(TokenService([NEW]), TOKEN.replace(letter, lookalike, 1)) == "TOKEN_MALFORMED"


@given(st.integers(0, len(TOKEN) - 1))
def test_no_prefix_is_a_token(length: int) -> None:
    assert code_of(TokenService([NEW]), TOKEN[:length]) in ("TOKEN_MALFORMED", "TOKEN_TAMPERED")


@given(st.text("aZ09_-.=+/ \né", max_size=80))
def test_any_text_is_refused_without_another_error(text: str) -> None:
    code_of(TokenService([NEW]), text)


HEADER = jwt.get_unverified_header(TOKEN)
PAYLOAD = json.loads(urlsafe_b64decode(TOKEN.split(".")[1] + "=="))


GENUINE = Forged(HEADER, NEW, PAYLOAD)
DUPLICATE_MEMBER = json.dumps(HEADER, separators=(",", ":")).replace("{", '{"alg":"none",', 1)
SPACED = json.dumps(HEADER)


@pytest.mark.parametrize(
    ("forged", "code"),
    [
        (Forged(HEADER, FOREIGN, PAYLOAD), "TOKEN_TAMPERED"),
        # The rest is signed with the right key, but not as the service signs.
        (Forged(HEADER | {"alg": "none"}, NEW, PAYLOAD), "TOKEN_TAMPERED"),
        (Forged(HEADER | {"alg": "HS512"}, NEW, PAYLOAD), "TOKEN_TAMPERED"),
        (Forged(HEADER | {"alg": "RS256"}, NEW, PAYLOAD), "TOKEN_TAMPERED"),
        (Forged(HEADER | {"b64": False, "crit": ["b64"]}, NEW, PAYLOAD), "TOKEN_TAMPERED"),
        (Forged(HEADER | {"jku": "https://keys.example"}, NEW, PAYLOAD), "TOKEN_TAMPERED"),
        (Forged(HEADER | {"jwk": {"kty": "oct", "k": "AAAA"}}, NEW, PAYLOAD), "TOKEN_TAMPERED"),
        (Forged({"alg": "HS256", "kid": HEADER["kid"]}, NEW, PAYLOAD), "TOKEN_TAMPERED"),
        (Forged(dict(reversed(HEADER.items())), NEW, PAYLOAD), "TOKEN_TAMPERED"),
        (Forged(DUPLICATE_MEMBER, NEW, PAYLOAD), "TOKEN_TAMPERED"),
        (Forged(SPACED, NEW, PAYLOAD), "TOKEN_TAMPERED"),
        (Forged(SPACED.replace(CONSULT_TYPE, "consult\\u002bjwt"), NEW, PAYLOAD), "TOKEN_TAMPERED"),
        (Forged(HEADER | {"typ": "payment+jwt"}, NEW, PAYLOAD), "TOKEN_WRONG_TYPE"),
        (Forged(HEADER | {"typ": "payment+jwt"}, FOREIGN, PAYLOAD), "TOKEN_TAMPERED"),
        (Forged(HEADER | {"kid": "AAAAAAAA"}, NEW, PAYLOAD), "TOKEN_UNKNOWN_KEY"),
        (Forged(HEADER | {"kid": "../../dev/null"}, NEW, PAYLOAD), "TOKEN_UNKNOWN_KEY"),
        (Forged({"alg": "HS256", "typ": CONSULT_TYPE}, NEW, PAYLOAD), "TOKEN_UNKNOWN_KEY"),
        (Forged(HEADER | {"kid": ["AAAAAAAA"]}, NEW, PAYLOAD), "TOKEN_MALFORMED"),
        (Forged(HEADER | {"kid": None}, NEW, PAYLOAD), "TOKEN_MALFORMED"),
        (Forged([HEADER], NEW, PAYLOAD), "TOKEN_MALFORMED"),
        (Forged("[" * 20_000, NEW, PAYLOAD), "TOKEN_MALFORMED"),
        (Forged(HEADER, NEW, {"iss": "cashier"}), "TOKEN_MALFORMED"),
        (Forged(HEADER, NEW, PAYLOAD | {"iss": "another"}), "TOKEN_MALFORMED"),
        (Forged(HEADER, NEW, PAYLOAD | {"amount": "12800"}), "TOKEN_MALFORMED"),
        (Forged(HEADER, NEW, PAYLOAD | {"order_id": "o" * 50_000}), "TOKEN_MALFORMED"),
    ],
)
def test_a_forged_token_is_refused_with_its_code(forged: Forged, code: str) -> None:
    assert code_of(TokenService([NEW]), forged.text()) == code


def test_the_forgeries_differ_from_a_genuine_token_only_as_intended() -> None:
    assert TokenService([NEW]).read_consult_token(GENUINE.text()).order_id == "o_1001"
    assert replace(GENUINE, key=FOREIGN).text() != GENUINE.text()


def test_an_unsigned_token_is_refused() -> None:
    assert code_of(TokenService([NEW]), jwt.encode(PAYLOAD, "", algorithm="none")) == "TOKEN_MALFORMED"


def test_a_short_secret_is_refused_with_its_number() -> None:
    with pytest.raises(ValueError, match="number 2 has 31 bytes, at least 32"):
        TokenService([NEW, "x" * 31])


def test_an_empty_list_of_secrets_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        TokenService([])


def test_the_repr_shows_no_secret() -> None:
    assert NEW not in repr(TokenService([NEW]))


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"order_id": "o_2"}, "TOKEN_OTHER_ORDER"),
        ({"merchant_id": "m_2"}, "TOKEN_OTHER_ORDER"),
        ({"user_id": "u_2"}, "TOKEN_OTHER_USER"),
        ({"user_id": None}, "TOKEN_OTHER_USER"),
        ({"order_id": "o_2", "user_id": "u_2"}, "TOKEN_OTHER_ORDER"),
    ],
)
def test_it_is_refused_for_another_order_or_user(changed: dict[str, str | None], code: str) -> None:
    ids: dict[str, Any] = {"order_id": ASKED.order_id, "user_id": ASKED.user_id, "merchant_id": ASKED.merchant_id}
    read(TOKEN).require_order(**ids)
    with pytest.raises(TokenRefused, match=code):
        read(TOKEN).require_order(**(ids | changed))


def test_a_walk_ins_token_is_refused_for_a_user() -> None:
    walk_in = structs.replace(ASKED, user_id=None, product=Product.SCAN)
    claims = read(TokenService([NEW]).sign_consult_token(walk_in, ORDER_AMOUNT, ORDER_ENDS_S, (), NOW_S, 60))
    ids: dict[str, Any] = {"order_id": ASKED.order_id, "merchant_id": ASKED.merchant_id}
    claims.require_order(**ids, user_id=None)
    with pytest.raises(TokenRefused, match="TOKEN_OTHER_USER"):
        claims.require_order(**ids, user_id="u_1")


def test_the_price_of_a_method_has_the_chosen_option_only() -> None:
    claims = read(TOKEN)
    last = claims.methods[-1]
    assert claims.find_price(last.id, "c_1") == last
    without = claims.find_price(last.id)
    assert without is not None
    assert (without.payable, without.options) == (last.payable, ())
    assert claims.find_price("WALLET:UNKNOWN") is None


@pytest.mark.parametrize("coupons", [0, 1, 16, 60])
def test_a_long_list_of_banks_with_coupons_makes_no_token_that_is_too_long_to_be_read(coupons: int) -> None:
    """Each bank has a fee and so a price of its own. Every third one takes no coupons."""
    discounts = tuple(Discount(f"{number:036}", "", Money("CNY", 10)) for number in range(coupons))

    def amounts(fee: int, own: tuple[Discount, ...]) -> Amounts:
        payable = ORDER_AMOUNT.value + fee - 10 * len(own)
        return Amounts(ORDER_AMOUNT, Money("CNY", fee), own, Money("CNY", payable))

    prices = {f"BANK_{fee}": amounts(fee, discounts[: fee % 3 and coupons]) for fee in range(1, 151)}
    options = [Option(bank, bank, Availability.AVAILABLE, None, price) for bank, price in prices.items()]
    method = structs.replace(METHODS[-1], amount=amounts(0, discounts), options=tuple(options))
    claims = read(TokenService([NEW]).sign_consult_token(ASKED, ORDER_AMOUNT, ORDER_ENDS_S, [method], NOW_S, 60))
    for bank, price in prices.items():
        row = claims.find_price(method.method_id, bank)
        assert row is not None
        promotions = tuple((discount.promotion_id, discount.amount.value) for discount in price.discounts)
        assert row.options == (OfferedPrice(bank, price.payable.value, price.fee.value, promotions),)
