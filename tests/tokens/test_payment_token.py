"""The payment token: what it carries of a payment, what it keeps to itself, and whose it is not."""

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
from cashier.tokens.payment_token import PaymentClaims, TokenRoute
from cashier.tokens.token_service import TokenService

from tests.web.fake_service import ASKED, METHODS, ORDER_AMOUNT
from tests.tokens.forgery import Forged, bit_flipped

OLD, NEW, FOREIGN = "old-" * 8, "new-" * 8, "foreign-" * 4
NOW_S = 1_700_000_000
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
SIGNER = TokenService([NEW])
TOKEN = SIGNER.sign_payment_token(CLAIMS)


def code_of(signer: TokenService, text: str, payment_id: str = PAYMENT, now_s: float = NOW_S) -> str:
    with pytest.raises(TokenRefused) as caught:
        signer.read_payment_token(text, payment_id, now_s)
    assert str(caught.value) == caught.value.code, "the token itself is not repeated"
    return caught.value.code


def shown(token: str) -> str:
    """The payload as anybody reads it."""
    payload = token.split(".")[1]
    return urlsafe_b64decode(payload + "=" * (-len(payload) % 4)).decode()


def test_what_went_in_comes_out() -> None:
    assert SIGNER.read_payment_token(TOKEN, PAYMENT, NOW_S) == CLAIMS


def test_a_payment_without_any_of_what_may_be_missing_comes_out_as_well() -> None:
    bare = replace(CLAIMS, means=PaymentMeans(), offered=None, route=None, challenge=None, sent_at=NOW_S, cancelled=True)
    assert SIGNER.read_payment_token(SIGNER.sign_payment_token(bare), PAYMENT, NOW_S) == bare


def test_nothing_that_was_handed_over_for_this_payment_alone_can_be_read() -> None:
    told = shown(TOKEN)
    assert "o_1001" in told
    for secret in ("tok_very_secret", "281234567890123456", "s3ss10n", "f1n9e2"):
        assert secret not in told
        assert secret not in repr(CLAIMS)
        assert secret not in pretty_repr(CLAIMS), "as in a traceback that shows what was there"


def test_the_same_secrets_are_never_sealed_the_same_way_twice() -> None:
    sealed = {json.loads(shown(SIGNER.sign_payment_token(CLAIMS)))["sealed"] for _ in range(20)}
    assert len(sealed) == 20


def test_what_is_sealed_opens_in_no_other_payment_even_if_its_forger_had_the_key() -> None:
    other = "pay_zyxwvutsrqponmlkjihgfedcba"
    header = jwt.get_unverified_header(TOKEN)
    payload = json.loads(shown(TOKEN))
    assert SIGNER.read_payment_token(Forged(header, NEW, payload).text(), PAYMENT, NOW_S) == CLAIMS
    assert code_of(SIGNER, Forged(header, NEW, payload | {"payment_id": other}).text(), other) == "TOKEN_MALFORMED"


@pytest.mark.parametrize("sealed", ["", "A", "AAAA", "A" * 38, "%%%", "é" * 40])
def test_a_seal_of_nothing_is_refused(sealed: str) -> None:
    payload = json.loads(shown(TOKEN)) | {"sealed": sealed}
    assert code_of(SIGNER, Forged(jwt.get_unverified_header(TOKEN), NEW, payload).text()) == "TOKEN_MALFORMED"


@pytest.mark.parametrize(
    "change", [{"iss": "somebody"}, {"iss": None}, {"exp": "never"}, {"exp": None}, {"kind": "CASH"}, {"chosen": {}}]
)
def test_claims_that_are_not_a_payment_s_are_refused(change: dict[str, object]) -> None:
    payload = {name: value for name, value in (json.loads(shown(TOKEN)) | change).items() if value is not None}
    assert code_of(SIGNER, Forged(jwt.get_unverified_header(TOKEN), NEW, payload).text()) == "TOKEN_MALFORMED"


def test_it_is_of_one_payment() -> None:
    assert code_of(SIGNER, TOKEN, "pay_zyxwvutsrqponmlkjihgfedcba") == "TOKEN_OTHER_PAYMENT"


@pytest.mark.parametrize(("at_s", "readable"), [(NOW_S + 899.9, True), (NOW_S + 900, False)])
def test_it_ends_when_it_said(at_s: float, readable: bool) -> None:
    if readable:
        assert SIGNER.read_payment_token(TOKEN, PAYMENT, at_s) == CLAIMS
    else:
        assert code_of(SIGNER, TOKEN, now_s=at_s) == "TOKEN_EXPIRED"


def test_neither_kind_of_token_takes_the_place_of_the_other() -> None:
    consult = SIGNER.sign_consult_token(ASKED, ORDER_AMOUNT, METHODS, NOW_S, 300)
    assert code_of(SIGNER, consult) == "TOKEN_WRONG_TYPE"
    with pytest.raises(TokenRefused, match="TOKEN_WRONG_TYPE"):
        SIGNER.read_consult_token(TOKEN)


def test_a_caller_s_bearer_token_under_the_same_secret_is_none_of_ours() -> None:
    kid = jwt.get_unverified_header(TOKEN)["kid"]
    bearer = jwt.encode(json.loads(shown(TOKEN)), NEW, algorithm="HS256", headers={"kid": kid})
    assert code_of(SIGNER, bearer) == "TOKEN_WRONG_TYPE"
    assert code_of(SIGNER, jwt.encode({"exp": NOW_S + 900}, NEW, algorithm="HS256")) == "TOKEN_UNKNOWN_KEY"


def test_secrets_rotate_and_a_retired_one_opens_nothing() -> None:
    old = TokenService([OLD]).sign_payment_token(CLAIMS)
    assert TokenService([NEW, OLD]).read_payment_token(old, PAYMENT, NOW_S) == CLAIMS
    assert (
        TokenService([NEW]).read_payment_token(TokenService([NEW, OLD]).sign_payment_token(CLAIMS), PAYMENT, NOW_S) == CLAIMS
    )
    assert code_of(TokenService([NEW]), old) == "TOKEN_UNKNOWN_KEY"


@given(st.integers(0, len(TOKEN) * 8 - 1))
def test_no_bit_can_be_changed(bit: int) -> None:
    assert code_of(SIGNER, bit_flipped(TOKEN, bit)) in ("TOKEN_MALFORMED", "TOKEN_TAMPERED", "TOKEN_UNKNOWN_KEY")


@given(st.integers(1, len(TOKEN) - 1), st.integers(1, len(TOKEN) - 1))
def test_two_tokens_cannot_be_put_together(ends: int, begins: int) -> None:
    other = SIGNER.sign_payment_token(replace(CLAIMS, exp=NOW_S + 9_000))
    both = TOKEN[:ends] + other[begins:]
    if both not in (TOKEN, other):
        code_of(SIGNER, both)


@given(st.text("aZ09_-.=+/ \né", max_size=80))
def test_any_text_is_refused_and_nothing_worse(text: str) -> None:
    code_of(SIGNER, text)


def largest() -> PaymentClaims:
    """Everything at its bound, in letters of four bytes where any are allowed."""
    ident, name = "o" * 64, "🂡" * 128
    chosen = PaymentChoice(
        order_id=ident,
        user_id=ident,
        merchant_id=ident,
        product=Product.STANDARD_CASHIER,
        terminal=Terminal.MINI_PROGRAM,
        method_id=name,
        option_id=name,
        promotion_ids=(name,) * 16,
        expected_payable=Money("CNY", 2**53 - 1),
    )
    means = PaymentMeans(card_token='"' * 256, auth_code="\\" * 256, return_url="https://" + '"' * 2040)
    for part in (chosen, means):
        assert msgspec.convert(msgspec.to_builtins(part), type(part)) == part, "within the bounds of a submit"
    return replace(CLAIMS, chosen=chosen, means=means, offered=OfferedPrice(name, 1, 1, ((name, 1),) * 16))


def test_the_largest_that_may_be_submitted_can_be_read_again() -> None:
    assert SIGNER.read_payment_token(SIGNER.sign_payment_token(largest()), PAYMENT, NOW_S) == largest()


def test_a_token_that_nobody_would_read_is_not_signed() -> None:
    with pytest.raises(ValueError, match="longer than"):
        SIGNER.sign_payment_token(replace(CLAIMS, route=TokenRoute("r", "c", ("x" * 100,) * 500)))


def test_a_usual_token_is_short_enough_for_any_header() -> None:
    assert len(TOKEN) < 2_048


def test_an_older_token_says_again_what_it_said_and_moves_no_expiry() -> None:
    assert CLAIMS.challenge is not None
    later = replace(CLAIMS, challenge=replace(CLAIMS.challenge, attempts=3))
    SIGNER.read_payment_token(SIGNER.sign_payment_token(later), PAYMENT, NOW_S)
    again = SIGNER.read_payment_token(TOKEN, PAYMENT, NOW_S + 299).challenge
    assert again is not None
    assert (again.started_at, again.expires_at, again.attempts) == (NOW_S, NOW_S + 300, 1)
