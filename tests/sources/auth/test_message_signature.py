"""HTTP message signatures: the published example, and what is covered."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cashier.sources.auth.message_signature import MessageSignature, covered, secret_bytes, signature_base
from cashier.wire.transport import Request

from .conftest import secret_of
from .published import (
    RFC_9421_BASE,
    RFC_9421_COMPONENTS,
    RFC_9421_PARAMETERS,
    RFC_9421_SECRET,
    RFC_9421_SIGNATURE,
)

SECRET = b"0123456789abcdef0123456789abcdef"


def signer(prefix: str = "/v2") -> MessageSignature:
    return MessageSignature("k1", secret_of(SECRET), prefix, lambda: 1_700_000_000.9)


def headers_of(request: Request) -> dict[str, str]:
    return dict(signer().authenticate(request).headers)


def verified(request: Request) -> list[str]:
    """The covered components of a right signature, recomputed from the sent request alone."""
    sent = dict(request.headers)
    match = re.fullmatch(r"cashier=(\((.*?)\);.*)", sent["Signature-Input"])
    assert match is not None
    parameters, names = match[1], re.findall(r'"([^"]+)"', match[2])
    path, _, query = request.target.partition("?")
    values = {"@method": request.method, "@path": f"/v2{path}", "@query": f"?{query}"}
    values |= {name.lower(): value for name, value in request.headers}
    lines = [*(f'"{name}": {values[name]}' for name in names), f'"@signature-params": {parameters}']
    made = base64.b64encode(hmac.new(SECRET, "\n".join(lines).encode(), hashlib.sha256).digest()).decode()
    assert sent["Signature"] == f"cashier=:{made}:"
    return names


def test_the_example_of_the_rfc_has_its_base_and_its_signature() -> None:
    lines = "".join(covered(name, value) for name, value in RFC_9421_COMPONENTS)
    base = signature_base(lines, RFC_9421_PARAMETERS)
    assert base == RFC_9421_BASE
    secret = secret_bytes(RFC_9421_SECRET, "base64")
    assert base64.b64encode(hmac.digest(secret, base, "sha256")).decode() == RFC_9421_SIGNATURE


def test_hmac_sha256_is_that_of_rfc_4231() -> None:
    """Test case 6: a key larger than a block. The primitive is the standard library's."""
    made = hmac.digest(b"\xaa" * 131, b"Test Using Larger Than Block-Size Key - Hash Key First", "sha256")
    assert made.hex() == "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"


def test_method_path_and_query_are_covered_as_they_are_sent() -> None:
    request = signer().authenticate(Request("/members/u%201/quotas?currency=CNY"))
    assert verified(request) == ["@method", "@path", "@query"]
    assert ";created=1700000000;nonce=" in dict(request.headers)["Signature-Input"]
    assert ';keyid="k1";alg="hmac-sha256"' in dict(request.headers)["Signature-Input"]


def test_a_body_is_covered_by_its_digest_and_an_idempotency_key_by_itself() -> None:
    request = Request("/payments", "POST", b'{"a":1}', headers=(("Idempotency-Key", "pay_1"),))
    sent = signer().authenticate(request)
    assert verified(sent) == ["@method", "@path", "@query", "idempotency-key", "content-digest"]
    digest = base64.b64encode(hashlib.sha256(b'{"a":1}').digest()).decode()
    assert dict(sent.headers)["Content-Digest"] == f"sha-256=:{digest}:"


VISIBLE = st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="#")


@settings(max_examples=50)
@given(
    st.text(VISIBLE), st.sampled_from(["GET", "POST", "PUT"]), st.binary(), st.booleans(), st.text(VISIBLE, min_size=1)
)
def test_every_request_is_verified_from_what_was_sent(
    rest: str, method: str, body: bytes, keyed: bool, key: str
) -> None:
    headers = (("Idempotency-Key", key),) if keyed else ()
    names = verified(signer().authenticate(Request(f"/{rest}", method, body, headers=headers)))
    assert ("idempotency-key" in names, "content-digest" in names) == (keyed, bool(body))


def test_every_request_has_a_nonce_of_its_own() -> None:
    one = signer()
    inputs = [dict(one.authenticate(Request("/a")).headers)["Signature-Input"] for _ in range(50)]
    nonces = {re.search(r'nonce="([0-9a-f]+)"', text)[1] for text in inputs}  # type: ignore[index]
    assert len(nonces) == 50
    # Another process, and a restart, begin elsewhere.
    assert headers_of(Request("/a"))["Signature-Input"] != headers_of(Request("/a"))["Signature-Input"]


def test_a_request_that_is_sent_again_is_signed_again() -> None:
    sent = signer().authenticate(Request("/a"))
    assert sent.renew is not None
    again = sent.renew()
    assert dict(again.headers)["Signature"] != dict(sent.headers)["Signature"]
    assert verified(again) == ["@method", "@path", "@query"]


@pytest.mark.parametrize(
    ("content", "encoding", "complaint"),
    [(b"short", "text", "less than 32 bytes"), (b"zz", "hex", "not in hex"), (b"***", "base64", "not in base64")],
)
def test_a_secret_that_is_no_secret_is_refused_without_it(content: bytes, encoding: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as refused:
        secret_bytes(content, encoding)
    assert content.decode() not in str(refused.value)
