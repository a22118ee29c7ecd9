"""The tokens of pages: each opens what it is for, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from typing import Any

import pytest

from cashier.domain.order import Product, Terminal
from cashier.tokens.jws import TokenRefused, b64url_decode
from cashier.tokens.page_session import CardClaims, PageTokens, ReturnClaims, SessionClaims, TillClaims
from cashier.tokens.token_service import TokenService

NOW_S = 1_700_000_000
SECRET, OTHER_SECRET = "s" * 32, "o" * 32
SESSION = SessionClaims(
    session_id="session_secret",
    opened_at=NOW_S,
    order_id="o_1001",
    merchant_id="m_1",
    user_id="u_secret",
    product=Product.STANDARD_CASHIER,
    terminal=Terminal.H5,
    return_url="https://shop.example/back",
)
RETURN = ReturnClaims(order_id="o_1001", merchant_id="m_1", user_id="u_secret", payment_id="pay_1")
CARD = CardClaims(order_id="o_1001", session="session_secret", method_id="CARD", attempt="pay_1")
TILL = TillClaims(session_id="session_secret", merchant_id="o_1001", terminal_id="t", currency="CNY", locale="zh-CN")
Sign = Callable[[PageTokens, int], str]
Read = Callable[[PageTokens, str, str, float], Any]
KINDS: dict[str, tuple[Sign, Read, Any]] = {
    "link": (lambda tokens, end: tokens.sign_link(SESSION, end), PageTokens.read_link, SESSION),
    "session": (lambda tokens, end: tokens.sign_session(SESSION, end), PageTokens.read_session, SESSION),
    "return": (lambda tokens, end: tokens.sign_return(RETURN, end), PageTokens.read_return, RETURN),
    "card state": (lambda tokens, end: tokens.sign_card_state(CARD, end), PageTokens.read_card_state, CARD),
    "till link": (lambda tokens, end: tokens.sign_till_link(TILL, end), PageTokens.read_till_link, TILL),
    "till": (lambda tokens, end: tokens.sign_till(TILL, end), PageTokens.read_till, TILL),
}
SUBJECTS = {kind: "o_1001/t" if kind.startswith("till") else "o_1001" for kind in KINDS}
EACH = pytest.mark.parametrize("kind", KINDS)


def pages(*secrets: str) -> PageTokens:
    return TokenService(secrets or (SECRET,)).pages


@EACH
def test_a_token_is_read_until_its_end(kind: str) -> None:
    sign, read, claims = KINDS[kind]
    text = sign(pages(), NOW_S + 10)
    assert read(pages(), text, SUBJECTS[kind], NOW_S + 9.9) == claims
    with pytest.raises(TokenRefused, match="TOKEN_EXPIRED"):
        read(pages(), text, SUBJECTS[kind], NOW_S + 10)


@EACH
def test_a_token_of_another_order_is_refused(kind: str) -> None:
    sign, read, _ = KINDS[kind]
    with pytest.raises(TokenRefused, match="TOKEN_OTHER_ORDER"):
        read(pages(), sign(pages(), NOW_S + 10), "o_1002", NOW_S)


@pytest.mark.parametrize(("made", "used"), tuple(permutations(KINDS, 2)))
def test_no_token_takes_the_place_of_another(made: str, used: str) -> None:
    with pytest.raises(TokenRefused, match="TOKEN_WRONG_TYPE"):
        KINDS[used][1](pages(), KINDS[made][0](pages(), NOW_S + 10), SUBJECTS[used], NOW_S)


@EACH
def test_a_token_shows_neither_payer_nor_address(kind: str) -> None:
    text = KINDS[kind][0](pages(), NOW_S + 10)
    shown = b"".join(b64url_decode(part) for part in text.split(".")[:2])
    assert b"o_1001" in shown
    assert not any(secret in shown for secret in (b"u_secret", b"shop.example", b"pay_1", b"session_secret", b"zh-CN"))


@EACH
def test_a_secret_is_rotated(kind: str) -> None:
    sign, read, claims = KINDS[kind]
    old = sign(pages(OTHER_SECRET), NOW_S + 10)
    assert read(pages(SECRET, OTHER_SECRET), old, SUBJECTS[kind], NOW_S) == claims
    with pytest.raises(TokenRefused, match="TOKEN_UNKNOWN_KEY"):
        read(pages(SECRET), old, SUBJECTS[kind], NOW_S)


@EACH
def test_a_changed_token_is_refused(kind: str) -> None:
    sign, read, _ = KINDS[kind]
    text = sign(pages(), NOW_S + 10)
    place = text.index(".") + 20
    changed = text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]
    with pytest.raises(TokenRefused, match="TOKEN_TAMPERED"):
        read(pages(), changed, SUBJECTS[kind], NOW_S)


def test_the_return_of_a_payment_is_the_same_text_each_time_and_no_other_token_is() -> None:
    assert len({pages().sign_return(RETURN, NOW_S) for _ in range(5)}) == 1
    assert len({pages().sign_session(SESSION, NOW_S) for _ in range(5)}) == 5


def test_the_repr_has_no_secret() -> None:
    assert repr(SESSION) == "<SessionClaims o_1001>"
    assert repr(TILL) == "<TillClaims o_1001/t>"
