"""A whole service with `auth`: fresh credentials on every path, honest failures, forged answers."""

from __future__ import annotations

import re
import time
from collections import Counter
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from cashier.domain.explanation.evidence import WhyRequest
from cashier.domain.payment_state import PaymentStatus
from cashier.fanout.ask import SourceStatus
from cashier.probe import probe
from cashier.sources.auth.rsa_keys import signature
from tests.telemetry.rig import CASE, OTP, Rig, rig
from tests.telemetry.test_operator_privacy import CALM, PAID

from .conftest import KeyPair

WHY = WhyRequest(order_id="o_1001", user_id="u_1", merchant_id="m_1")


def status_of(shop: Rig, consultation: Any) -> dict[str, SourceStatus]:
    return {source.name: source.status for source in consultation.sources}


async def test_batches_retries_and_payments_each_have_a_signature_of_their_own(pair: KeyPair, tmp_path: Path) -> None:
    secret = tmp_path / "hmac"
    secret.write_text("s" * 40)
    auth = {"hmac": {"key_id": "k1", "secret_file": str(secret)}}
    names = ("order", "member", "balance", "quota", "risk", "engine", "acquirer")
    sources: dict[str, Any] = {name: {"auth": auth} for name in names}
    sources["balance"]["batch"] = {"path": "/batch/balances"}
    failed = Counter[str]()

    def failing_once(name: str, request: web.Request, right: web.StreamResponse) -> web.StreamResponse:
        failed[name] += name == "quota"
        return web.Response(status=500) if name == "quota" and failed[name] == 1 else right

    async with rig(sources=sources) as shop:
        shop.spoil = failing_once
        consultation = await shop.consult(PAID[1][0])
        assert status_of(shop, consultation)["quota"] is SourceStatus.FRESH
        seen = list(shop.requests)
        request = await shop.payment_request(*PAID[1])
        payment = await shop.payments().submit(request, "key-1")
        if payment.challenge is not None:
            payment = await shop.payments().answer(payment.payment_id, payment.payment_token, OTP)
        assert payment.status is PaymentStatus.SUCCEEDED
        seen += shop.requests
    assert Counter(each.name for each in seen)["quota"] >= 3
    signed = [each for each in seen if each.name in names or "batch" in each.path]
    nonces = [re.search(r'nonce="(\w+)"', each.headers["signature-input"])[1] for each in signed]  # type: ignore[index]
    assert len(set(nonces)) == len(nonces) > 10
    assert {each.name for each in signed} >= {"quota", "risk", "engine", "acquirer"}
    assert all("signature" not in each.headers for each in seen if each.name in ("merchant", "card", "channel"))


async def test_a_refused_credential_has_a_reason_of_its_own_wherever_operators_look(token_file: Path) -> None:
    card = {"auth": {"bearer": {"token_file": str(token_file)}}, **CALM}
    async with rig(sources={"card": card}) as shop:
        shop.spoil = lambda name, request, right: web.Response(status=401) if name == "card" else right
        consultation = await shop.consult(CASE)
        assert status_of(shop, consultation)["card"] is SourceStatus.GARBLED
        (record,) = shop.cashier.recorder.records()
        assert {source.name: source.reason for source in record.sources}["card"] == "UNAUTHORIZED"
        assert 'source="card",status="GARBLED",reason="UNAUTHORIZED"' in shop.cashier.metrics.render()
        explained = {source.name: source for source in (await shop.cashier.why(WHY)).sources}
        assert explained["card"].reason == "UNAUTHORIZED"
        assert "the service refuses our credential" in str(explained["card"].failure)
        (exchange,) = [
            each for each in (await probe(shop.cashier.config, {"order_id": "o_1001"}))[0] if each.source == "card"
        ]
        assert exchange.status == 401
        assert exchange.fault == "GARBLED: status 401: the service refuses our credential"
        assert {each.headers["authorization"] for each in shop.requests if each.name == "card"} == {
            "Bearer first-token"
        }


async def test_without_a_token_only_its_source_fails_and_says_why(token_file: Path) -> None:
    oauth2 = {"token_url": "http://127.0.0.1:1/token", "client_id": "c", "client_secret_file": str(token_file)}
    async with rig(sources={"card": {"auth": {"oauth2": oauth2}, **CALM}}) as shop:
        consultation = await shop.consult(CASE)
        statuses = status_of(shop, consultation)
        assert statuses.pop("card") is SourceStatus.ERROR
        assert set(statuses.values()) == {SourceStatus.FRESH}
        assert not [each for each in shop.requests if each.name == "card"]
        (failure,) = [each for each in shop.cashier.failures if each.source == "card"]
        assert failure.code.value == "NO_CREDENTIAL"
        assert failure.reason.startswith("no token from http://127.0.0.1:1/token: http://127.0.0.1:1: ")


def signed_by(platform: KeyPair, response: web.StreamResponse, nonce: str) -> web.Response:
    """The sandbox's answer as WeChat Pay would sign it."""
    assert isinstance(response, web.Response)
    body = response.body if isinstance(response.body, bytes) else b""
    timestamp = str(int(time.time()))
    headers = {
        "Wechatpay-Timestamp": timestamp,
        "Wechatpay-Nonce": nonce,
        "Wechatpay-Serial": "P1",
        "Wechatpay-Signature": signature(platform.key, f"{timestamp}\n{nonce}\n".encode() + body + b"\n"),
    }
    return web.Response(status=response.status, body=body, headers=headers)


async def test_a_forged_success_of_the_engine_is_no_success_until_a_genuine_one(
    pair: KeyPair, platform: KeyPair
) -> None:
    wechat = {
        "mchid": "1900000000",
        "serial_no": "S1",
        "private_key_file": pair.private_file,
        "platform_keys": {"P1": platform.public_file},
    }
    nonces = count()
    forging = submitted = False

    def engine(name: str, request: web.Request, right: web.StreamResponse) -> web.StreamResponse:
        """From the submit on no answer is signed, and the acquirer is silent."""
        nonlocal forging, submitted
        if name == "engine" and request.path == "/payments":
            forging = submitted = True
        if forging:
            return right if name == "engine" else web.Response(status=503)
        return signed_by(platform, right, f"n-{next(nonces)}") if name == "engine" else right

    sources: dict[str, Any] = {"engine": {"auth": {"wechat_pay": wechat}}}
    async with rig(sources=sources, accept={"look_ms": 500}) as shop:
        shop.spoil = engine
        payments = shop.payments()
        payment = await payments.submit(await shop.payment_request(*PAID[1]), "key-1")
        assert submitted
        assert payment.status is PaymentStatus.PROCESSING
        assert 'source="engine",status="GARBLED",reason="SIGNATURE"' in shop.cashier.metrics.render()
        forging = False
        payment = await payments.look(payment.payment_id, payment.payment_token)
        assert payment.status is PaymentStatus.SUCCEEDED
        submits = [each for each in shop.requests if each.path == "/payments"]
        assert [each.headers["authorization"].split()[0] for each in submits] == ["WECHATPAY2-SHA256-RSA2048"]


@pytest.mark.peers
def test_openssl_verifies_what_is_signed_and_signs_what_is_verified(pair: KeyPair, tmp_path: Path) -> None:
    """OpenSSL's command line as the other side of both gateways."""
    import base64
    import subprocess

    from cashier.sources.auth.rsa_keys import is_signed, public_key

    text, file = 'biz_content={"a":"茶"}&charset=utf-8\n'.encode(), tmp_path / "signature"
    file.write_bytes(base64.b64decode(signature(pair.key, text)))
    dgst = ["openssl", "dgst", "-sha256"]
    verify = [*dgst, "-verify", pair.public_file, "-signature", str(file)]
    assert subprocess.run(verify, input=text, check=True, capture_output=True).stdout == b"Verified OK\n"
    made = subprocess.run([*dgst, "-sign", pair.private_file], input=text, check=True, capture_output=True).stdout
    assert is_signed(public_key(pair.public_pem), text, base64.b64encode(made).decode())
