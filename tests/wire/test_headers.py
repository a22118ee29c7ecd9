"""Headers of a request: sent unchanged by every transport, and refused if they inject others."""

from __future__ import annotations

import pytest

from cashier.wire.transport import Request
from tests.wire.client_side import CALL_HEADERS, RecordedCall, answer

from .conftest import Wired, exchange


async def test_a_header_of_the_request_is_sent_once(wired: Wired) -> None:
    call = RecordedCall(
        wired.transport,
        Request("/payments", "POST", b"{}", headers=(("Idempotency-Key", "pay_1"), ("X-Other", "a,b;c"))),
    )
    peer = await wired.upstream.peer()
    request = await peer.read_request()
    peer.write(answer(b"hello"))
    await call.outcome()
    assert request.headers["idempotency-key"] == "pay_1"
    assert request.headers["x-other"] == "a,b;c"
    assert request.body == b"{}"


@pytest.mark.parametrize(
    "headers",
    [
        (("Idempotency-Key", "a\r\nX-Injected: 1"),),
        (("Idempotency-Key", "a\nb"),),
        (("Idempotency-Key", ""),),
        (("Idempotency-Key", "ü"),),
        (("Idempotency-Key", "a b"),),
        (("X-Injected: 1\r\nX", "a"),),
        (("X Y", "a"),),
        (("", "a"),),
        (("X", "a"), ("x", "b")),
        (("Host", "elsewhere"),),
        (("content-length", "0"),),
        (("Transfer-Encoding", "chunked"),),
        (("X-Request-Id", "r-2"),),
        (("Connection", "close"),),
    ],
    ids=repr,
)
async def test_a_header_that_injects_or_overrides_another_is_refused(
    wired: Wired, headers: tuple[tuple[str, str], ...]
) -> None:
    with pytest.raises(ValueError, match="header") as refused:
        wired.transport.send(Request("/a", headers=headers), CALL_HEADERS, 100, lambda _outcome: None)
    assert "Injected: 1" not in str(refused.value) or headers[0][0].startswith("X-Injected")
    await exchange(wired)
    assert wired.upstream.untaken == 0
