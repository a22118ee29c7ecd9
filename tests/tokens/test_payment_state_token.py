"""The payment token: its public and secret claims, and the payments it is refused for."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode

import jwt
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from rich.pretty import pretty_repr

from cashier.domain.challenge_progress import ChallengeProgress
from cashier.domain.money import Money
from cashier.domain.order import Product, Terminal
from cashier.domain.pay_method import Kind
from cashier.domain.payment_request import PaymentChoice, PaymentMeans
from cashier.tokens.consult_token import OfferedPrice
from cashier.tokens.jws import TokenRefused
from cashier.tokens.payment_state_token import PaymentClaims, TokenRoute
from cashier.tokens.token_service import TokenService
from tests.tokens.forgery import Forged, bit_flipped
from tests.web.fake_service import ASKED, METHODS, ORDER_AMOUNT

OLD, NEW, FOREIGN = "old-" * 8, "new-" * 8, "foreign-" * 4
NOW_S = 1_700_000_000
ORDER_ENDS_S = NOW_S + 86_400
PAYMENT = "pay_abcdefghijklmnopqrstuvwxyz"
CHOSEN = PaymentChoice(
    order_id="o_1001",
    user_id="u_1",
    merchant_id="m_1",
    product=Product.STANDARD_CASHIER,
    terminal=Terminal.APP,
    method_id="CARD",
    promotion_ids=("p_1",),
    expected_payable=Money("CNY", 11_800),
)
MEANS = PaymentMeans(
    card_token="tok_very_secret", auth_code="281234567890123456", return_url="https://shop.example/back?session=s3ss10n"
)
CLAIMS = PaymentClaims(
    iat=NOW_S,
    exp=NOW_S + 900,
    payment_id=PAYMENT,
    kind=Kind.CARD,
    chosen=CHOSEN,
    means=MEANS,
    fingerprint="f1n9e2" * 10,
    expires_at=NOW_S + 600,
    order_amount=Money("CNY", 12_800),
    offered=OfferedPrice("CARD", 11_800, 0, (("p_1", 1_000),)),
    route=TokenRoute("cheapest_healthy", "ch_1", ("ch_2", "ch_3")),
    challenge=ChallengeProgress(
        challenge_id="ch1_d_1",
        type="SMS_OTP",
        render_value="138****1234",
        decision_id="d_1",
        started_at=NOW_S,
        expires_at=NOW_S + 300,
        attempts=1,
        of=3,
    ),
)
TOKENS = TokenService([NEW])
TOKEN = TOKENS.sign_payment_token(CLAIMS)


def code_of(tokens: TokenService, text: str, payment_id: str = PAYMENT, now_s: float = NOW_S) -> str:
    with pytest.raises(TokenRefused) as caught:
        tokens.read_payment_token(text, payment_id, now_s)
    assert str(caught.value) == caught.value.code, "the error does not repeat the token"
    return caught.value.code


def payload_of(token: str) -> str:
    """The payload that is readable without a key."""
    payload = token.split(".")[1]
    return urlsafe_b64decode(payload + "=" * (-len(payload) % 4)).decode()


def test_claims_survive_a_round_trip() -> None:
    assert TOKENS.read_payment_token(TOKEN, PAYMENT, NOW_S) == CLAIMS


def test_claims_without_optional_parts_survive_a_round_trip() -> None:
    bare = replace(
        CLAIMS, means=PaymentMeans(), offered=None, route=None, challenge=None, sent_at=NOW_S, cancelled=True
    )
    assert TOKENS.read_payment_token(TOKENS.sign_payment_token(bare), PAYMENT, NOW_S) == bare


def test_data_handed_over_for_the_payment_cannot_be_read() -> None:
    payload = payload_of(TOKEN)
    assert "o_1001" in payload
    for secret in ("tok_very_secret", "281234567890123456", "s3ss10n", "f1n9e2"):
        assert secret not in payload
        assert secret not in repr(CLAIMS)
        assert secret not in pretty_repr(CLAIMS), "as in a traceback with locals"


def test_equal_secrets_are_encrypted_differently_each_time() -> None:
    sealed = {json.loads(payload_of(TOKENS.sign_payment_token(CLAIMS)))["sealed"] for _ in range(20)}
    assert len(sealed) == 20


def test_the_sealed_part_opens_in_no_other_payment_even_with_the_key() -> None:
    other = "pay_zyxwvutsrqponmlkjihgfedcba"
    header = jwt.get_unverified_header(TOKEN)
    payload = json.loads(payload_of(TOKEN))
    assert TOKENS.read_payment_token(Forged(header, NEW, payload).text(), PAYMENT, NOW_S) == CLAIMS
    assert code_of(TOKENS, Forged(header, NEW, payload | {"payment_id": other}).text(), other) == "TOKEN_MALFORMED"


@pytest.mark.parametrize("sealed", ["", "A", "AAAA", "A" * 38, "%%%", "é" * 40])
def test_an_invalid_sealed_part_is_refused(sealed: str) -> None:
    payload = json.loads(payload_of(TOKEN)) | {"sealed": sealed}
    assert code_of(TOKENS, Forged(jwt.get_unverified_header(TOKEN), NEW, payload).text()) == "TOKEN_MALFORMED"


@pytest.mark.parametrize(
    "change", [{"iss": "another"}, {"iss": None}, {"exp": "never"}, {"exp": None}, {"kind": "CASH"}, {"chosen": {}}]
)
def test_malformed_claims_are_refused(change: dict[str, object]) -> None:
    payload = {name: value for name, value in (json.loads(payload_of(TOKEN)) | change).items() if value is not None}
    assert code_of(TOKENS, Forged(jwt.get_unverified_header(TOKEN), NEW, payload).text()) == "TOKEN_MALFORMED"


def test_it_is_valid_for_one_payment_only() -> None:
    assert code_of(TOKENS, TOKEN, "pay_zyxwvutsrqponmlkjihgfedcba") == "TOKEN_OTHER_PAYMENT"


@pytest.mark.parametrize(("at_s", "readable"), [(NOW_S + 899.9, True), (NOW_S + 900, False)])
def test_it_expires_at_its_time(at_s: float, readable: bool) -> None:
    if readable:
        assert TOKENS.read_payment_token(TOKEN, PAYMENT, at_s) == CLAIMS
    else:
        assert code_of(TOKENS, TOKEN, now_s=at_s) == "TOKEN_EXPIRED"


def test_the_two_kinds_of_tokens_are_not_interchangeable() -> None:
    consult = TOKENS.sign_consult_token(ASKED, ORDER_AMOUNT, ORDER_ENDS_S, METHODS, NOW_S, 300)
    assert code_of(TOKENS, consult) == "TOKEN_WRONG_TYPE"
    with pytest.raises(TokenRefused, match="TOKEN_WRONG_TYPE"):
        TOKENS.read_consult_token(TOKEN)


def test_a_bearer_token_under_the_same_secret_is_refused() -> None:
    kid = jwt.get_unverified_header(TOKEN)["kid"]
    bearer = jwt.encode(json.loads(payload_of(TOKEN)), NEW, algorithm="HS256", headers={"kid": kid})
    assert code_of(TOKENS, bearer) == "TOKEN_WRONG_TYPE"
    assert code_of(TOKENS, jwt.encode({"exp": NOW_S + 900}, NEW, algorithm="HS256")) == "TOKEN_UNKNOWN_KEY"


def test_secrets_rotate_and_a_retired_one_is_refused() -> None:
    old = TokenService([OLD]).sign_payment_token(CLAIMS)
    assert TokenService([NEW, OLD]).read_payment_token(old, PAYMENT, NOW_S) == CLAIMS
    new = TokenService([NEW, OLD]).sign_payment_token(CLAIMS)
    assert TokenService([NEW]).read_payment_token(new, PAYMENT, NOW_S) == CLAIMS
    assert code_of(TokenService([NEW]), old) == "TOKEN_UNKNOWN_KEY"


@given(st.integers(0, len(TOKEN) * 8 - 1))
def test_no_bit_can_be_changed(bit: int) -> None:
    assert code_of(TOKENS, bit_flipped(TOKEN, bit)) in ("TOKEN_MALFORMED", "TOKEN_TAMPERED", "TOKEN_UNKNOWN_KEY")


@given(st.integers(1, len(TOKEN) - 1), st.integers(1, len(TOKEN) - 1))
def test_parts_of_two_tokens_cannot_be_combined(end: int, start: int) -> None:
    other = TOKENS.sign_payment_token(replace(CLAIMS, exp=NOW_S + 9_000))
    combined = TOKEN[:end] + other[start:]
    if combined not in (TOKEN, other):
        code_of(TOKENS, combined)


@given(st.text("aZ09_-.=+/ \né", max_size=80))
def test_any_text_is_refused_without_another_error(text: str) -> None:
    code_of(TOKENS, text)


def largest() -> PaymentClaims:
    """Everything at its bound, with characters of four bytes where allowed."""
    id_, name = "o" * 64, "🂡" * 128
    chosen = PaymentChoice(
        order_id=id_,
        user_id=id_,
        merchant_id=id_,
        product=Product.STANDARD_CASHIER,
        terminal=Terminal.MINI_PROGRAM,
        method_id=name,
        option_id=name,
        promotion_ids=(name,) * 16,
        chosen_promotions=(name,) * 16,
        expected_payable=Money("CNY", 2**53 - 1),
    )
    means = PaymentMeans(card_token='"' * 256, auth_code="\\" * 256, return_url="https://" + '"' * 2040)
    for part in (chosen, means):
        assert msgspec.convert(msgspec.to_builtins(part), type(part)) == part, "within the bounds of a submit"
    offered = OfferedPrice(name, 1, 1, ((name, 1),) * 16)
    titles = {f"{number}{name[2:]}": name[:40] for number in "123"}
    assert 2_000 < len(msgspec.json.encode(titles)) <= 2_048, "the bound of `recheck`"
    return replace(CLAIMS, chosen=chosen, means=means, offered=offered, promotion_titles=titles)


def test_the_largest_submit_survives_a_round_trip() -> None:
    assert TOKENS.read_payment_token(TOKENS.sign_payment_token(largest()), PAYMENT, NOW_S) == largest()


def test_a_token_too_long_to_be_read_is_not_signed() -> None:
    with pytest.raises(ValueError, match="longer than"):
        TOKENS.sign_payment_token(replace(CLAIMS, route=TokenRoute("r", "c", ("x" * 100,) * 500)))


def test_a_usual_token_fits_into_any_header() -> None:
    assert len(TOKEN) < 2_048


def test_an_older_token_repeats_its_content_and_moves_no_expiry() -> None:
    assert CLAIMS.challenge is not None
    later = replace(CLAIMS, challenge=replace(CLAIMS.challenge, attempts=3))
    TOKENS.read_payment_token(TOKENS.sign_payment_token(later), PAYMENT, NOW_S)
    challenge = TOKENS.read_payment_token(TOKEN, PAYMENT, NOW_S + 299).challenge
    assert challenge is not None
    assert (challenge.started_at, challenge.expires_at, challenge.attempts) == (NOW_S, NOW_S + 300, 1)
