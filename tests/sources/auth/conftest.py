"""Keys, secrets and a transport for the tests of authentication."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from cashier.sources.auth.rsa_keys import public_key
from cashier.sources.auth.secret import Secret
from cashier.wire.file_watch import FileWatch


class KeyPair(NamedTuple):
    """A key, the files of its pair in PEM, and their content."""

    key: rsa.RSAPrivateKey
    private_file: str
    public_file: str
    private_pem: bytes
    public_pem: bytes


def make_pair(folder: Path) -> KeyPair:
    key = rsa.generate_private_key(65537, 2048)
    private_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public_pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    private_file, public_file = folder / "private.pem", folder / "public.pem"
    private_file.write_bytes(private_pem)
    public_file.write_bytes(public_pem)
    return KeyPair(key, str(private_file), str(public_file), private_pem, public_pem)


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    """Where the other side's key may be the same, it is both the merchant's and the gateway's."""
    return make_pair(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    """The other side's."""
    return make_pair(tmp_path_factory.mktemp("keys"))


def secret_of(content: bytes | str, convert: Callable[[bytes], Any] = bytes) -> Secret[Any]:
    text = content if isinstance(content, str) else content.decode()
    return Secret("auth.test.secret", None, "SECRET", convert, FileWatch(), {"SECRET": text})


def secret_private_key(pair: KeyPair) -> Secret[Any]:
    """Without the check of its primes that loading makes, which takes most of a test's time."""
    return secret_of("loaded", lambda _: pair.key)


def secret_public_key(pem: bytes) -> Secret[Any]:
    return secret_of(pem, public_key)


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text("first-token\n")
    return file
