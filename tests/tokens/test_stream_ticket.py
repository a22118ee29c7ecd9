"""The stream ticket: what it carries, what it hides, and where it is refused."""

from __future__ import annotations

import json

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from cashier.domain.payment_request import PaymentMeans
from cashier.tokens.jws import TokenRefused, b64url_decode
from cashier.tokens.payment_state_token import PaymentClaims
from cashier.tokens.token_service import TokenService
from tests.tokens.forgery import Forged, bit_flipped
from tests.tokens.test_payment_state_token import (
    CLAIMS,
    FOREIGN,
    NEW,
    NOW_S,
    OLD,
    ORDER_ENDS_S,
    PAYMENT,
    TOKENS,
    largest,
    payload_of,
)
from tests.tokens.test_payment_state_token import TOKEN as PAYMENT_TOKEN
from tests.web.fake_service import ASKED, METHODS, ORDER_AMOUNT

OTHER = "pay_zyxwvutsrqponmlkjihgfedcba"
EXPIRES_AT = NOW_S + 600
TICKET = TOKENS.sign_stream_ticket(CLAIMS, EXPIRES_AT)


def watched(claims: PaymentClaims) -> PaymentClaims:
    """What a ticket carries of the claims."""
    return replace(
        claims,
        means=PaymentMeans(),
        offered=None,
        chosen=replace(claims.chosen, promotion_ids=(), chosen_promotions=None),
    )


def code_of(text: str, payment_id: str = PAYMENT, now_s: float = NOW_S, tokens: TokenService = TOKENS) -> str:
    with pytest.raises(TokenRefused) as caught:
        tokens.read_stream_ticket(text, payment_id, now_s)
    assert str(caught.value) == caught.value.code, "the error does not repeat the ticket"
    return caught.value.code


def test_the_state_survives_a_round_trip_and_the_means_do_not() -> None:
    assert TOKENS.read_stream_ticket(TICKET, PAYMENT, NOW_S) == watched(CLAIMS)


def test_nothing_but_the_payment_id_can_be_read() -> None:
    payload = json.loads(payload_of(TICKET))
    assert set(payload) == {"iss", "exp", "payment_id", "sealed"}
    assert set(json.loads(payload_of(TOKENS.sign_stream_ticket(largest(), EXPIRES_AT)))) == set(payload)
    # Long enough that ciphertext never has it by chance.
    claims = replace(CLAIMS, chosen=replace(CLAIMS.chosen, user_id="user_of_this_payment"))
    sealed = json.loads(payload_of(TOKENS.sign_stream_ticket(claims, EXPIRES_AT)))["sealed"]
    assert "user_of_this_payment" not in sealed
    assert b"user_of_this_payment" not in b64url_decode(sealed)


def test_equal_states_are_encrypted_differently_each_time() -> None:
    sealed = {json.loads(payload_of(TOKENS.sign_stream_ticket(CLAIMS, EXPIRES_AT)))["sealed"] for _ in range(20)}
    assert len(sealed) == 20


@pytest.mark.parametrize(("at_s", "readable"), [(EXPIRES_AT - 0.1, True), (EXPIRES_AT, False)])
def test_it_expires_at_its_time(at_s: float, readable: bool) -> None:
    if readable:
        TOKENS.read_stream_ticket(TICKET, PAYMENT, at_s)
    else:
        assert code_of(TICKET, now_s=at_s) == "TOKEN_EXPIRED"


def test_it_is_valid_for_one_payment_only_even_with_the_key() -> None:
    assert code_of(TICKET, OTHER) == "TOKEN_OTHER_PAYMENT"
    header, payload = jwt.get_unverified_header(TICKET), json.loads(payload_of(TICKET))
    assert code_of(Forged(header, NEW, payload | {"payment_id": OTHER}).text(), OTHER) == "TOKEN_MALFORMED"


def test_the_three_kinds_of_tokens_are_not_interchangeable() -> None:
    consult_token = TOKENS.sign_consult_token(ASKED, ORDER_AMOUNT, ORDER_ENDS_S, METHODS, NOW_S, 300)
    assert code_of(consult_token) == "TOKEN_WRONG_TYPE"
    assert code_of(PAYMENT_TOKEN) == "TOKEN_WRONG_TYPE"
    for read in (TOKENS.read_payment_token, TOKENS.read_payment_choice):
        with pytest.raises(TokenRefused, match="TOKEN_WRONG_TYPE"):
            read(TICKET, PAYMENT, NOW_S)
    with pytest.raises(TokenRefused, match="TOKEN_WRONG_TYPE"):
        TOKENS.read_consult_token(TICKET)
    # Nor are their sealed parts, even with the key.
    header, payload = jwt.get_unverified_header(TICKET), json.loads(payload_of(TICKET))
    sealed = json.loads(payload_of(PAYMENT_TOKEN))["sealed"]
    assert code_of(Forged(header, NEW, payload | {"sealed": sealed}).text()) == "TOKEN_MALFORMED"


@pytest.mark.parametrize(
    "change",
    [{"iss": "another"}, {"exp": "never"}, {"exp": None}, {"sealed": ""}, {"sealed": "é" * 40}, {"sealed": 1}],
)
def test_malformed_payloads_are_refused(change: dict[str, object]) -> None:
    header, payload = jwt.get_unverified_header(TICKET), json.loads(payload_of(TICKET)) | change
    assert code_of(Forged(header, NEW, payload).text()) == "TOKEN_MALFORMED"


def test_secrets_rotate_and_a_retired_or_foreign_one_is_refused() -> None:
    old = TokenService([OLD]).sign_stream_ticket(CLAIMS, EXPIRES_AT)
    assert TokenService([NEW, OLD]).read_stream_ticket(old, PAYMENT, NOW_S) == watched(CLAIMS)
    assert code_of(old) == "TOKEN_UNKNOWN_KEY"
    assert code_of(TokenService([FOREIGN]).sign_stream_ticket(CLAIMS, EXPIRES_AT)) == "TOKEN_UNKNOWN_KEY"


@given(st.integers(0, len(TICKET) * 8 - 1))
def test_no_bit_can_be_changed(bit: int) -> None:
    assert code_of(bit_flipped(TICKET, bit)) in ("TOKEN_MALFORMED", "TOKEN_TAMPERED", "TOKEN_UNKNOWN_KEY")


@given(st.text("aZ09_-.=+/ \né", max_size=80))
def test_any_text_is_refused_without_another_error(text: str) -> None:
    code_of(text)


def test_a_url_has_room_for_a_usual_ticket_and_the_largest_survives() -> None:
    assert len(TICKET) < 2_048
    ticket = TOKENS.sign_stream_ticket(largest(), EXPIRES_AT)
    assert len(ticket) < 8_000
    assert TOKENS.read_stream_ticket(ticket, PAYMENT, NOW_S) == watched(largest())


def test_the_choice_of_a_payment_token_is_read_under_the_same_conditions() -> None:
    assert TOKENS.read_payment_choice(PAYMENT_TOKEN, PAYMENT, NOW_S) == CLAIMS.chosen
    for payment_id, now_s, code in ((OTHER, NOW_S, "TOKEN_OTHER_PAYMENT"), (PAYMENT, NOW_S + 900, "TOKEN_EXPIRED")):
        with pytest.raises(TokenRefused, match=code):
            TOKENS.read_payment_choice(PAYMENT_TOKEN, payment_id, now_s)
