"""WeChat Pay API v3: the published examples, and which answers count as forged."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest

from cashier.source_errors import FailureReason, Garbled, Overloaded, SourceError, Unreachable
from cashier.sources.auth.rsa_keys import is_signed, public_key, signature
from cashier.sources.auth.wechat_pay import MOST_NONCES, WINDOW_S, WechatPay
from cashier.wire.response_headers import ResponseHeaders
from cashier.wire.transport import Request, Response

from .conftest import KeyPair, secret_private_key, secret_public_key
from .published import (
    WECHAT_PAY_ANSWER,
    WECHAT_PAY_ANSWER_HEADERS,
    WECHAT_PAY_ANSWER_S,
    WECHAT_PAY_GET,
    WECHAT_PAY_KEY_ID,
    WECHAT_PAY_MERCHANT_KEY,
    WECHAT_PAY_NONCE,
    WECHAT_PAY_PLATFORM_KEY,
    WECHAT_PAY_POST,
    WECHAT_PAY_TIMESTAMP_S,
)

NOW_S = 1_700_000_000
REQUEST = Request("/v3/x")
NOTHING: Mapping[str, str] = {}


class Clock:
    def __init__(self, now_s: float) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


def wechat_pay(pair: KeyPair, clock: Clock, platform_key: bytes = b"", serial: str = "S1") -> WechatPay:
    keys = {serial: secret_public_key(platform_key or pair.public_pem)}
    return WechatPay("1900007291", "408B07E7", secret_private_key(pair), keys, "", clock)


def answer(pair: KeyPair, body: bytes = b"{}", status: int = 200, changed: Mapping[str, str] = NOTHING) -> Response:
    """Signed by the platform, now. `changed`: what was altered on the way."""
    headers = {"timestamp": str(NOW_S), "nonce": "n-1", "serial": "S1"}
    text = f"{headers['timestamp']}\n{headers['nonce']}\n".encode() + body + b"\n"
    headers |= {"signature": signature(pair.key, text)} | dict(changed)
    return Response(
        status, body, headers=ResponseHeaders({f"Wechatpay-{key}": value for key, value in headers.items() if value})
    )


def judged(pair: KeyPair, response: Response) -> Any:
    return wechat_pay(pair, Clock(NOW_S)).judge(REQUEST, response)


@pytest.mark.parametrize(
    ("method", "target", "body", "published"),
    [("GET", WECHAT_PAY_GET[0], "", WECHAT_PAY_GET[1]), ("POST", *WECHAT_PAY_POST)],
)
def test_the_text_of_a_request_is_the_one_that_the_published_signature_signs(
    method: str, target: str, body: str, published: str, pair: KeyPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts: list[bytes] = []

    def published_signature(key: object, text: bytes) -> str:
        texts.append(text)
        return published

    monkeypatch.setattr("cashier.sources.auth.wechat_pay.signature", published_signature)
    request = Request(target, method, body.encode())
    made = wechat_pay(pair, Clock(NOW_S))._signed(request, WECHAT_PAY_TIMESTAMP_S, WECHAT_PAY_NONCE)
    assert is_signed(public_key(WECHAT_PAY_MERCHANT_KEY), texts[0], published)
    assert dict(made.headers)["Authorization"] == (
        f'WECHATPAY2-SHA256-RSA2048 mchid="1900007291",nonce_str="{WECHAT_PAY_NONCE}",signature="{published}",'
        f'timestamp="{WECHAT_PAY_TIMESTAMP_S}",serial_no="408B07E7"'
    )


def test_the_published_answer_is_genuine(pair: KeyPair) -> None:
    response = Response(200, WECHAT_PAY_ANSWER, headers=ResponseHeaders(WECHAT_PAY_ANSWER_HEADERS))
    checking = wechat_pay(pair, Clock(WECHAT_PAY_ANSWER_S), WECHAT_PAY_PLATFORM_KEY, WECHAT_PAY_KEY_ID)
    assert checking.judge(REQUEST, response) is response


def test_every_request_has_a_time_and_a_nonce_of_its_own_and_is_signed_by_the_merchant(pair: KeyPair) -> None:
    clock = Clock(NOW_S)
    signer = wechat_pay(pair, clock, serial="PUB_KEY_ID_1")
    seen = set()
    for second in range(3):
        clock.now_s = NOW_S + second
        headers = dict(signer.authenticate(Request("/v3/pay?a=b", "POST", b"{}")).headers)
        match = re.search(r'nonce_str="(\w+)",signature="(.+?)",timestamp="(\d+)"', headers["Authorization"])
        assert match is not None
        text = f"POST\n/v3/pay?a=b\n{NOW_S + second}\n{match[1]}\n{{}}\n"
        assert is_signed(public_key(pair.public_pem), text.encode(), match[2])
        seen.add(match[1])
        # WeChat Pay refuses requests without the first, and answers with the key of the second.
        assert headers["User-Agent"] == "cashier"
        assert headers["Wechatpay-Serial"] == "PUB_KEY_ID_1"
    assert len(seen) == 3


def test_a_genuine_answer_passes_with_any_status(pair: KeyPair) -> None:
    for status in (200, 204, 404, 500):
        body = b"" if status == 204 else b'{"a":1}'
        response = answer(pair, body, status)
        assert judged(pair, response) is response


@pytest.mark.parametrize(
    ("changed", "names"),
    [
        ({"signature": ""}, "not signed"),
        ({"serial": ""}, "not signed"),
        ({"nonce": ""}, "not signed"),
        ({"timestamp": ""}, "not signed"),
        ({"signature": "AAAA"}, "wrongly signed"),
        ({"signature": "no base64!"}, "wrongly signed"),
        ({"nonce": "n-2"}, "wrongly signed"),
        ({"timestamp": str(NOW_S + 1)}, "wrongly signed"),
        ({"serial": "S2"}, "platform_keys does not have: S2"),
        ({"serial": "<script>"}, "platform_keys does not have: another one"),
        ({"timestamp": str(NOW_S - WINDOW_S - 1)}, f"{WINDOW_S + 1} s away"),
        ({"timestamp": str(NOW_S + WINDOW_S + 1)}, f"{WINDOW_S + 1} s away"),
        ({"timestamp": "now"}, "no time"),
        ({"timestamp": "９"}, "no time"),
    ],
)
@pytest.mark.parametrize("status", [200, 404])
def test_an_altered_answer_is_forged_and_counts_as_none(
    changed: dict[str, str], names: str, status: int, pair: KeyPair
) -> None:
    error = judged(pair, answer(pair, status=status, changed=changed))
    assert isinstance(error, Garbled)
    assert error.reason is FailureReason.SIGNATURE
    assert error.sent
    assert names in error.detail


def test_an_altered_body_is_forged(pair: KeyPair) -> None:
    genuine = answer(pair, b'{"trade_state":"NOTPAY"}')
    forged = Response(200, b'{"trade_state":"SUCCESS"}', headers=genuine.headers)
    assert isinstance(judged(pair, forged), Garbled)


def test_an_answer_is_accepted_once(pair: KeyPair) -> None:
    clock = Clock(NOW_S)
    checking = wechat_pay(pair, clock)
    response = answer(pair)
    assert checking.judge(REQUEST, response) is response
    clock.now_s += WINDOW_S
    again = checking.judge(REQUEST, response)
    assert isinstance(again, Garbled)
    assert "received before" in again.detail


def test_a_wrongly_signed_answer_does_not_use_its_nonce_up(pair: KeyPair) -> None:
    checking = wechat_pay(pair, Clock(NOW_S))
    assert isinstance(checking.judge(REQUEST, answer(pair, changed={"signature": "AAAA"})), Garbled)
    response = answer(pair)
    assert checking.judge(REQUEST, response) is response


def test_nonces_are_kept_for_a_window_and_bounded(pair: KeyPair) -> None:
    checking = wechat_pay(pair, Clock(NOW_S))
    for index in range(MOST_NONCES + 10):
        assert checking._is_new(f"n-{index}", NOW_S)
    assert len(checking._nonces) + len(checking._older_nonces) <= MOST_NONCES
    assert not checking._is_new(f"n-{MOST_NONCES}", NOW_S)
    for _ in range(2):
        assert checking._is_new(f"{_}", NOW_S + 5 * WINDOW_S * (_ + 1))
    assert len(checking._nonces) + len(checking._older_nonces) <= 2


@pytest.mark.parametrize(
    ("status", "kind", "reason"),
    [
        (401, Garbled, FailureReason.UNAUTHORIZED),
        (403, Garbled, FailureReason.UNAUTHORIZED),
        (429, Overloaded, FailureReason.OVERLOADED),
        (502, Unreachable, FailureReason.STATUS_5XX),
    ],
)
def test_an_unsigned_refusal_is_an_error_whatever_an_adapter_declares(
    status: int, kind: type[SourceError], reason: FailureReason, pair: KeyPair
) -> None:
    """A 401 is never signed, and a gateway in between signs nothing. None of them is an answer."""
    error = judged(pair, Response(status, b'{"code":"SIGN_ERROR"}'))
    assert isinstance(error, kind)
    assert error.reason is reason


def test_a_header_of_the_adapter_stays(pair: KeyPair) -> None:
    request = Request("/v3/x", headers=(("user-agent", "shop/1"),))
    headers = wechat_pay(pair, Clock(NOW_S)).authenticate(request).headers
    assert [name.lower() for name, _ in headers].count("user-agent") == 1
