"""The page on authentication: its configuration, its worked example and its adapter work."""

from __future__ import annotations

import base64
import hmac
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import cashier.sources.auth
from cashier.settings.loader import configuration
from cashier.sources.acquirer import parse_result
from cashier.sources.auth.alipay_gateway import AlipayGateway
from cashier.sources.auth.authenticated_transport import AuthenticatedTransport
from cashier.sources.auth.message_signature import MessageSignature
from cashier.sources.auth.rsa_keys import signature
from cashier.sources.auth.settings import SECRET_OF
from cashier.sources.service_adapter import AdapterTransport, ServiceAdapter
from cashier.sources.service_request import ServiceRequest
from cashier.wire.awaited_call import send_and_wait
from cashier.wire.transport import Request, Response
from tests.sources.adapter_rig import AnsweringTransport
from tests.wire.client_side import CALL_HEADERS

from .conftest import KeyPair, secret_of, secret_private_key, secret_public_key

PAGE = (Path(cashier.sources.auth.__file__).parent / "README.md").read_text("utf-8")


def example(language: str) -> str:
    (text,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(text)


def test_the_example_configuration_is_valid() -> None:
    table = tomllib.loads(example("toml"))
    settings = configuration(table, "README.md").settings
    assert all(settings.sources[name].auth is not None for name in ("card", "quota"))  # type: ignore[union-attr]


def test_every_method_has_a_section() -> None:
    for method in SECRET_OF:
        assert f"\n## {method}\n" in PAGE
        assert f"[`{method}`](#{method})" in PAGE


def test_the_worked_example_is_what_is_sent() -> None:
    head, _, body = example("http").strip().partition("\n\n")
    first, *lines = head.split("\n")
    headers = dict(line.split(": ", 1) for line in lines)
    match = re.search(r'created=(\d+);nonce="(\w+)0"', headers["Signature-Input"])
    assert match is not None
    secret = re.search(r"For the secret\n`(.*?)`", PAGE)
    assert secret is not None
    signer = MessageSignature("cashier-1", secret_of(secret[1]), "/engine", lambda: float(match[1]))
    signer._start = match[2]
    own = (("Idempotency-Key", headers["Idempotency-Key"]),)
    sent = signer.authenticate(Request("/payments", "POST", body.encode(), headers=own))
    assert first == f"{sent.method} /engine{sent.target} HTTP/1.1"
    assert headers == dict(sent.headers)
    base = example("text").removesuffix("\n").encode()
    made = base64.b64encode(hmac.digest(secret[1].encode(), base, "sha256")).decode()
    assert headers["Signature"] == f"cashier=:{made}:"


@pytest.mark.parametrize(
    ("node", "status"),
    [
        ({"code": "10000", "out_trade_no": "o_1", "trade_status": "TRADE_SUCCESS"}, "PAID"),
        ({"code": "40004", "sub_code": "ACQ.TRADE_NOT_EXIST"}, None),
    ],
)
async def test_the_example_adapter_reads_a_verified_answer(
    node: dict[str, Any], status: str | None, pair: KeyPair
) -> None:
    module: dict[str, Any] = {}
    exec(example("python"), module)  # noqa: S102 - the example of the page
    text = json.dumps(node).encode()
    sign = signature(pair.key, text).encode()
    gateway = AnsweringTransport(Response(200, b'{"alipay_trade_query_response":%b,"sign":"%b"}' % (text, sign)))
    auth = AlipayGateway("2021", secret_private_key(pair), secret_public_key(pair.public_pem))
    authenticated = AuthenticatedTransport(auth, gateway)
    adapter = ServiceAdapter("acquirer", "example", module["Acquirer"]())
    transport = AdapterTransport(adapter, authenticated)
    request = ServiceRequest("/", operation="result", arguments=("o_1",))
    outcome = parse_result(await send_and_wait(transport, request, CALL_HEADERS, 5_000), "o_1")
    assert getattr(outcome, "status", None) == status
    assert "sign=" in gateway.requests[0].target
    await transport.close()
    await authenticated.close()
