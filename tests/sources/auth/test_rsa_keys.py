"""RSA keys in the forms that the two gateways hand out."""

from __future__ import annotations

import base64
import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from cashier.sources.auth.rsa_keys import is_signed, private_key, public_key, signature

from .conftest import KeyPair


def bare(der: bytes) -> bytes:
    """As Alipay's key tool writes it."""
    text = base64.b64encode(der)
    return text[:64] + b"\n" + text[64:]


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
def test_a_private_key_is_read_in_each_form(form: PrivateFormat, encoding: Encoding, pair: KeyPair) -> None:
    content = pair.key.private_bytes(encoding, form, NoEncryption())
    read = private_key(content if encoding is Encoding.PEM else bare(content))
    assert read.private_numbers() == pair.key.private_numbers()


def test_a_public_key_is_read_from_pem_base64_and_a_certificate(pair: KeyPair) -> None:
    key = pair.key.public_key()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Tenpay.com sign")])
    day = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key)
        .serial_number(1)
        .not_valid_before(day)
        .not_valid_after(day + datetime.timedelta(days=1))
        .sign(pair.key, SHA256())
    )
    signed = signature(pair.key, b"text")
    for content in (
        pair.public_pem,
        bare(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)),
        certificate.public_bytes(Encoding.PEM),
    ):
        assert is_signed(public_key(content), b"text", signed)


def test_another_text_or_signature_is_not_signed(pair: KeyPair) -> None:
    key, signed = pair.key.public_key(), signature(pair.key, b"text")
    assert not is_signed(key, b"texts", signed)
    for wrong in ("", "AAAA", signed[:-4], signed.replace(signed[0], "茶", 1), signed + " "):
        assert not is_signed(key, b"text", wrong)


def test_what_is_no_strong_rsa_key_is_refused_without_its_content(pair: KeyPair) -> None:
    encrypted = pair.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"p"))
    weak = rsa.generate_private_key(65537, 1024)  # noqa: S505 - to be refused
    curve = ec.generate_private_key(ec.SECP256R1())
    private = [encrypted, b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", b"AAAA", b"x", b"\xff"]
    private += [each.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) for each in (weak, curve)]
    public = [pair.private_pem, b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", b"AAAA", b"x"]
    public += [
        each.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo) for each in (weak, curve)
    ]
    for read, contents in ((private_key, private), (public_key, public)):
        for content in contents:
            with pytest.raises(ValueError, match="is no ") as refused:
                read(content)
            assert "AAAA" not in str(refused.value)
