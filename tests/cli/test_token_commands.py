"""`cashier jwks` and `cashier token`: from a key to a token that a configuration accepts."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from cashier.asgi import bearer_auth
from cashier.cli.commands import cli
from cashier.settings.loader import load
from cashier.web.caller import TokenScope
from tests.web.test_token_issue import private_pem

AUTH = '[auth]\nmode = "jwt"\nissuer = "https://i"\naudience = "cashier"\nuser_claim = "sub"\nmerchant_claim = "shop"\n'


def run(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli, words)
    return result.exit_code, result.stdout, " ".join(result.stderr.split())


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key.pem"
    path.write_bytes(private_pem(Ed25519PrivateKey.generate()))
    return path


def written(folder: Path, auth: str) -> str:
    path = folder / "cashier.toml"
    sources = Path("config/cashier.toml").read_text("utf-8").partition("[sources]")[2]
    path.write_text(f"{auth}\n[sources]{sources}")
    return str(path)


@pytest.fixture
def config(tmp_path: Path, key: Path) -> str:
    status, out, _ = run("jwks", str(key))
    assert status == 0
    (tmp_path / "jwks.json").write_text(out)
    return written(tmp_path, f'{AUTH}jwks_file = "{tmp_path}/jwks.json"')


def claims_of(token: str) -> dict[str, Any]:
    return dict(jwt.decode(token, options={"verify_signature": False}))


def test_a_token_of_a_service_has_the_scopes_that_were_asked_for(config: str, key: Path) -> None:
    status, out, _ = run("token", "-c", config, "--key", str(key), "--scope", "pay", "--scope", "sessions")
    assert status == 0
    authentication = bearer_auth(load(config))
    assert authentication is not None
    caller = authentication.admit(f"Bearer {out.strip()}".encode(), TokenScope.PAY, time.time())
    assert caller.scopes == {TokenScope.PAY, TokenScope.SESSIONS}
    assert caller.user_id is None


def test_a_token_of_a_payer_is_bound(config: str, key: Path) -> None:
    words = ("--user-id", "u_1", "--merchant-id", "m_1", "--expires-s", "60")
    status, out, _ = run("token", "-c", config, "--key", str(key), *words)
    assert status == 0
    claims = claims_of(out.strip())
    assert (claims["sub"], claims["shop"], claims["exp"] - claims["iat"]) == ("u_1", "m_1", 60)
    assert "scope" not in claims


def test_a_shared_secret_signs_without_a_key(tmp_path: Path) -> None:
    config = written(tmp_path, f'{AUTH}secret = "{"s" * 32}"\nscope = "cashier"')
    status, out, _ = run("token", "-c", config, "--scope", "consult")
    assert (status, claims_of(out.strip())["scope"]) == (0, "consult cashier")


def test_what_makes_no_token_is_refused_with_its_remedy(config: str, key: Path, tmp_path: Path) -> None:
    signed = ("token", "-c", config, "--key", str(key))
    other = tmp_path / "other.pem"
    other.write_bytes(private_pem(Ed25519PrivateKey.generate()))
    (tmp_path / "public.json").write_text(json.dumps({}))
    (tmp_path / "open").mkdir()
    open_to_all = written(tmp_path / "open", "")
    for words, said in (
        ((*signed,), "--scope says what a service's token permits"),
        ((*signed, "--scope", "pay", "--order-id", "o_1"), "[auth] order_claim names no claim"),
        (("token", "-c", config, "--scope", "pay"), "--key has to name the private key"),
        (("token", "-c", config, "--scope", "pay", "--key", str(other)), f"`cashier jwks {other}` prints the key set"),
        (("token", "-c", config, "--scope", "pay", "--key", f"{tmp_path}/absent.pem"), "No such file or directory"),
        (("token", "-c", open_to_all, "--scope", "pay"), '[auth] mode = "none" needs no token'),
        (("jwks", f"{tmp_path}/public.json"), "public.json: it holds no RSA, EC or Ed25519 key"),
    ):
        status, out, error = run(*words)
        assert (status, out) == (1, "")
        assert said in error
    assert run("token", "-c", config, "--scope", "everything")[0] == 2
