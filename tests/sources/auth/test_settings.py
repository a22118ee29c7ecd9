"""The tables `auth` of a configuration: what is refused, and that no refusal quotes a secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cashier.core import Cashier
from cashier.settings.loader import configuration
from cashier.settings.schema import Configuration, ConfigurationError
from cashier.wiring.checks import changes_that_need_a_restart

from .conftest import KeyPair

URL = "http://127.0.0.1:9100"
NAMES = ("order", "merchant", "member", "card", "balance", "channel", "quota", "marketing")
SECRET = "aS3cretThatNobodyMayRead"


def configured(auth: Any, **card: Any) -> Configuration:
    sources: dict[str, Any] = {name: {"url": URL} for name in NAMES}
    sources["card"] = {"url": URL, "auth": auth} | card
    return configuration({"sources": sources}, "cashier.toml", environ={"CARD_TOKEN": SECRET, "HMAC": SECRET * 2})


def refusal(auth: Any, **card: Any) -> str:
    with pytest.raises(ConfigurationError) as refused:
        Cashier(config=configured(auth, **card))
    text = str(refused.value)
    assert SECRET not in text
    return text


RSA2 = {"app_id": "1", "private_key_env": "K", "alipay_public_key_file": "k.pem"}


@pytest.mark.parametrize(
    ("auth", "names"),
    [
        # A secret itself is no value of any key.
        ({"bearer": {"token": SECRET}}, "[sources.card.auth.bearer] unknown key 'token'; did you mean 'token_file'?"),
        ({"hmac": {"key_id": "k", "secret": SECRET}}, "unknown key 'secret'; did you mean 'secret_file'?"),
        ({"bearer": SECRET}, "[sources.card.auth] bearer: expected a table, got a text"),
        (SECRET, "[sources.card] auth: expected a table, got a text"),
        ({"token": SECRET}, "[sources.card.auth] unknown key 'token'"),
        # The variable's value in the place of its name.
        ({"bearer": {"token_env": "${CARD_TOKEN}"}}, "auth.bearer.token_env names a variable that is not set"),
        ({"bearer": {"token_env": f"{SECRET}=="}}, "[sources.card.auth.bearer] token_env: expected a text matching"),
        ({"bearer": {"token_env": "UNSET"}}, "auth.bearer.token_env names a variable that is not set"),
        ({"bearer": {"token_file": "/no/such"}}, "[sources.card] auth.bearer.token_file '/no/such': No such file"),
        # Neither, both, or two methods.
        ({}, "auth takes one of bearer, oauth2, hmac, rsa2, wechat_pay, but none is there"),
        ({"bearer": {}}, "auth.bearer takes one of token_file and token_env"),
        ({"bearer": {"token_file": "a", "token_env": "B"}}, "auth.bearer takes one of token_file and token_env"),
        (
            {"bearer": {"token_env": "A"}, "hmac": {"key_id": "k", "secret_env": "B"}},
            "auth takes one of bearer, oauth2, hmac, rsa2, wechat_pay, not bearer and hmac",
        ),
        # Other contradictions.
        ({"hmac": {"key_id": 'k"', "secret_env": "B"}}, "[sources.card.auth.hmac] key_id: expected a text matching"),
        ({"rsa2": RSA2}, "auth.rsa2 needs an adapter"),
        (
            {"oauth2": {"token_url": "sso.internal", "client_id": "c", "client_secret_env": "A"}},
            "auth.oauth2.token_url: address 'sso.internal': the scheme is unknown",
        ),
        (
            {"oauth2": {"token_url": f"https://u:{SECRET}@sso/t", "client_id": "c", "client_secret_env": "A"}},
            "user and password are not supported",
        ),
        (
            {"oauth2": {"token_url": f"https://sso/t?key={SECRET} x", "client_id": "c", "client_secret_env": "A"}},
            "auth.oauth2.token_url is no address",
        ),
        (
            {"wechat_pay": {"mchid": "1", "serial_no": "2", "private_key_env": "K", "platform_keys": {}}},
            "auth.wechat_pay.platform_keys names no key",
        ),
        (
            {"wechat_pay": {"mchid": "1", "serial_no": "2", "private_key_env": "K"}},
            "[sources.card.auth.wechat_pay] platform_keys is missing",
        ),
    ],
)
def test_a_contradiction_is_named_with_its_key(auth: Any, names: str) -> None:
    assert names in refusal(auth)


def test_a_short_secret_and_a_key_that_is_none_are_named_without_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CARD_SECRET", SECRET)
    text = refusal({"hmac": {"key_id": "k", "secret_env": "CARD_SECRET"}})
    assert "auth.hmac.secret_env: has less than 32 bytes" in text
    file = tmp_path / "key.pem"
    file.write_text(SECRET)
    wechat = {"mchid": "1", "serial_no": "2", "private_key_file": str(file), "platform_keys": {"S": str(file)}}
    assert "auth.wechat_pay.private_key_file: is no unencrypted private key" in refusal({"wechat_pay": wechat})


def test_the_own_key_in_the_place_of_the_other_sides_is_named(pair: KeyPair) -> None:
    """The mistake that the documentation of both gateways warns of."""
    own = {"private_key_file": pair.private_file}
    wechat = {"mchid": "1", "serial_no": "2", "platform_keys": {"S": pair.public_file}, **own}
    assert "auth.wechat_pay.platform_keys.S is the public half of private_key" in refusal({"wechat_pay": wechat})
    rsa2 = {"app_id": "1", "alipay_public_key_file": pair.public_file, **own}
    text = refusal({"rsa2": rsa2}, adapter="json")
    assert "auth.rsa2.alipay_public_key_file is the public half of private_key: it needs Alipay's key" in text


def test_auth_needs_a_network_and_one_path_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARD_TOKEN", SECRET)
    auth = {"bearer": {"token_env": "CARD_TOKEN"}}
    text = refusal(auth, transport="local", url="json:loads")
    assert "auth is for calls over a network" in text
    text = refusal(auth, url=["http://a.internal/v1", "http://b.internal/v2"])
    assert "url: with auth all addresses need the same path prefix" in text


def test_a_change_of_auth_takes_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    before = configured({"bearer": {"token_env": "CARD_TOKEN"}})
    after = configured({"bearer": {"token_env": "OTHER"}})
    assert list(changes_that_need_a_restart(before, after)) == ["[sources.card] auth has changed"]
