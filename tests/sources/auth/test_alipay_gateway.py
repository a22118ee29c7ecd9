"""RSA2 of Alipay's gateway: the published texts and answer, and which answers count as forged."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cashier.source_errors import FailureReason, Garbled, SourceError, Unreachable
from cashier.sources.auth.alipay_gateway import FORM_MEDIA_TYPE, AlipayGateway, sorted_text
from cashier.sources.auth.rsa_keys import is_signed, public_key, signature
from cashier.wire.transport import Request, Response

from .conftest import KeyPair, secret_private_key, secret_public_key
from .published import (
    ALIPAY_ANSWER,
    ALIPAY_GATEWAY_KEY,
    ALIPAY_METHOD,
    ALIPAY_NODE,
    ALIPAY_PARAMETERS,
    ALIPAY_SIGN,
    ALIPAY_SIGNED_TEXT,
)

# 2026-03-01 00:30 in China.
NOW_S = 1_772_296_200.0
FORM = (("Content-Type", FORM_MEDIA_TYPE),)


def gateway(pair: KeyPair, key: bytes = b"") -> AlipayGateway:
    return AlipayGateway("2021000", secret_private_key(pair), secret_public_key(key or pair.public_pem), lambda: NOW_S)


def query(method: str = "alipay.trade.query", **form: str) -> Request:
    """A request as an adapter makes it."""
    body = urlencode(form).encode()
    return Request(f"/gateway.do?method={method}", "POST", body, headers=FORM if body else ())


def signed_answer(pair: KeyPair, node: bytes, name: str = "alipay_trade_query_response") -> Response:
    sign = signature(pair.key, node)
    return Response(200, b'{"%b": %b ,"sign":"%b"}' % (name.encode(), node, sign.encode()))


def judged(pair: KeyPair, response: Response) -> Any:
    signer = gateway(pair)
    return signer.judge(signer.authenticate(query()), response)


def test_the_published_parameters_make_the_published_text() -> None:
    assert sorted_text(ALIPAY_PARAMETERS) == ALIPAY_SIGNED_TEXT.encode()


@given(st.dictionaries(st.text(min_size=1), st.text()))
def test_order_and_empty_values_change_no_text(parameters: dict[str, str]) -> None:
    text = sorted_text(parameters)
    assert sorted_text(dict(reversed(parameters.items()))) == text
    assert sorted_text({"added": "", **parameters, "sign": "x"}) == text


def test_an_answer_of_the_real_gateway_is_genuine(pair: KeyPair) -> None:
    checking = gateway(pair, ALIPAY_GATEWAY_KEY)
    request = checking.authenticate(query(ALIPAY_METHOD))
    response = checking.judge(request, Response(200, ALIPAY_ANSWER))
    assert isinstance(response, Response)
    assert response.body == b'{"alipay_open_file_upload_response":%b}' % ALIPAY_NODE
    altered = ALIPAY_ANSWER.replace(b"Success", b"Success.")
    assert isinstance(checking.judge(request, Response(200, altered)), Garbled)


def test_a_request_gets_the_common_parameters_and_a_signature_over_all(pair: KeyPair) -> None:
    biz = json.dumps({"out_trade_no": "70501111111S001111119", "subject": "茶 & 咖啡"}, ensure_ascii=False)
    sent = gateway(pair).authenticate(query(biz_content=biz, notify_url="https://shop.example/n?a=b"))
    path, _, encoded = sent.target.partition("?")
    in_query = {name: values[0] for name, values in parse_qs(encoded).items()}
    in_form = {name: values[0] for name, values in parse_qs(sent.body.decode()).items()}
    sign = in_query.pop("sign")
    assert path == "/gateway.do"
    assert in_query == {
        "method": "alipay.trade.query",
        "app_id": "2021000",
        "format": "JSON",
        "charset": "utf-8",
        "sign_type": "RSA2",
        "timestamp": "2026-03-01 00:30:00",
        "version": "1.0",
    }
    assert in_form == {"biz_content": biz, "notify_url": "https://shop.example/n?a=b"}
    text = "&".join(f"{name}={value}" for name, value in sorted((in_query | in_form).items()))
    assert is_signed(public_key(pair.public_pem), text.encode(), sign)
    assert not is_signed(public_key(pair.public_pem), text.replace("茶", "酒").encode(), sign)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(own=st.dictionaries(st.text(min_size=1), st.text(), max_size=4), in_form=st.booleans())
def test_any_parameters_arrive_as_they_are_signed(own: dict[str, str], in_form: bool, pair: KeyPair) -> None:
    reserved = {"app_id", "format", "charset", "sign_type", "timestamp", "version", "sign", "method"}
    own = {name: value for name, value in own.items() if name not in reserved}
    encoded = urlencode(own)
    if in_form and own:
        request = Request("/gateway.do?method=alipay.trade.query", "POST", encoded.encode(), headers=FORM)
    else:
        request = Request(f"/gateway.do?method=alipay.trade.query{'&' if own else ''}{encoded}")
    sent = gateway(pair).authenticate(request)
    arrived = f"{sent.target.partition('?')[2]}&{sent.body.decode()}"
    parameters = {name: values[0] for name, values in parse_qs(arrived, keep_blank_values=True).items()}
    assert {name: parameters[name] for name in own} == own
    sign = parameters.pop("sign")
    text = "&".join(f"{name}={value}" for name, value in sorted(parameters.items()) if value)
    assert is_signed(pair.key.public_key(), text.encode(), sign)


def test_a_get_carries_everything_in_its_query(pair: KeyPair) -> None:
    request = Request(f"/gateway.do?{urlencode({'method': 'alipay.trade.query', 'biz_content': '{}'})}")
    sent = gateway(pair).authenticate(request)
    assert sent.body == b""
    assert parse_qs(sent.target.partition("?")[2])["biz_content"] == ["{}"]


@pytest.mark.parametrize(
    ("request_", "names"),
    [
        (Request("/gateway.do?method=alipay.x&sign=1"), "which auth.rsa2 sets"),
        (Request("/gateway.do?method=alipay.x&app_id=1"), "which auth.rsa2 sets"),
        (Request("/gateway.do?method=alipay.x&a=1&a=2"), "twice"),
        (Request("/gateway.do?method=alipay.x", "POST", b"method=alipay.y", headers=FORM), "twice"),
        (Request("/gateway.do?method=alipay.x", "POST", b"{}"), "Content-Type"),
        (Request("/gateway.do?method=alipay.x&a=%ff"), "UTF-8"),
        (Request("/gateway.do"), "no parameter method"),
        (Request("/gateway.do?method=query"), "no parameter method"),
    ],
)
def test_a_request_without_one_meaning_is_not_sent(request_: Request, names: str, pair: KeyPair) -> None:
    with pytest.raises(Unreachable, match=names) as refused:
        gateway(pair).authenticate(request_)
    assert not refused.value.sent
    assert refused.value.reason is FailureReason.ADAPTER


@pytest.mark.parametrize(
    "node",
    [
        b'{"code":"10000","nested":{"a":[1,{"b":"}"}]},"url":"http:\\/\\/a\\/b"}',
        b'{"co{de":"100}00\\\\","q":"\\"}{","name":"\xe8\x8c\xb6"}',
        b'"eyJjb2RlIjoiMTAwMDAifQ=="',  # encrypted
        b'{ "code" : "10000" ,\n "msg" : "Success" }',
    ],
)
def test_the_node_is_verified_as_it_was_sent(node: bytes, pair: KeyPair) -> None:
    """As in `AlipaySignatureTest` of Alipay's Java SDK: braces in texts, escapes, white space."""
    response = judged(pair, signed_answer(pair, node))
    assert isinstance(response, Response)
    assert response.body == b'{"alipay_trade_query_response":%b}' % node


def test_nothing_but_the_verified_node_reaches_the_adapter(pair: KeyPair) -> None:
    genuine = signed_answer(pair, b'{"code":"10000"}').body
    mixed = genuine.replace(b"{", b'{"error_response":{"code":"20000"},"extra":1,', 1)
    response = judged(pair, Response(200, mixed))
    assert isinstance(response, Response)
    assert json.loads(response.body) == {"alipay_trade_query_response": {"code": "10000"}}


def test_of_two_nodes_with_one_name_only_the_verified_one_is_read(pair: KeyPair) -> None:
    genuine = signed_answer(pair, b'{"code":"10000"}').body
    forged = b'"alipay_trade_query_response":{"code":"10000","trade_status":"TRADE_SUCCESS"}'
    for body in (b"{%b,%b" % (forged, genuine[1:]), genuine[:-1] + b",%b}" % forged):
        response = judged(pair, Response(200, body))
        assert isinstance(response, Garbled) or b"TRADE_SUCCESS" not in response.body


def test_a_signed_error_is_an_answer(pair: KeyPair) -> None:
    response = judged(pair, signed_answer(pair, b'{"code":"20000"}', "error_response"))
    assert isinstance(response, Response)
    assert response.body == b'{"error_response":{"code":"20000"}}'


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (b'{"alipay_trade_query_response":{"code":"10000"}}', "unsigned"),
        (b'{"alipay_trade_query_response":{"code":"10000"},"sign":""}', "unsigned"),
        (b'{"alipay_trade_query_response":{"code":"10000"},"sign":"AAAA"}', "wrongly signed"),
        (b'{"alipay_trade_query_response":{"code":"10000"},"sign":"%b"}' % ALIPAY_SIGN, "wrongly signed"),
        (b'{"alipay_trade_pay_response":{"code":"10000"},"sign":"AAAA"}', "without alipay_trade_query_response"),
        (b'{"alipay_trade_query_response":{},"sign":1}', "no JSON object"),
        (b'{"error_response":{"code":"40002","sub_code":"isv.invalid-signature"}}', "40002 isv.invalid-signature"),
        (b'{"error_response":{"code":"pay 138 0013 8000"}}', "an unsigned answer: it may"),
        (b"<html>", "no JSON object"),
        (b"[" * 100_000, "no JSON object"),
        (b"", "no JSON object"),
    ],
)
def test_an_answer_without_a_right_signature_is_forged_and_counts_as_none(
    body: bytes, names: str, pair: KeyPair
) -> None:
    error = judged(pair, Response(200, body))
    assert isinstance(error, Garbled)
    assert error.reason is FailureReason.SIGNATURE
    assert names in error.detail
    assert error.sent


def test_another_status_is_an_error_whatever_an_adapter_declares(pair: KeyPair) -> None:
    for status in (201, 403, 404, 502):
        assert isinstance(judged(pair, Response(status, b"{}")), SourceError)
