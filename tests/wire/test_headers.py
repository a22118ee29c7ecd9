"""Headers that a request brings: sent as they are by every wire, and refused where they could say more than they should."""

from __future__ import annotations

import pytest

from cashier.wire.transport import Request

from .asking import CALL_HEADERS, Asked, answer
from .conftest import Wired, answered


async def test_a_header_of_the_requests_own_goes_out_once(wired: Wired) -> None:
    asked = Asked(
        wired.wire, Request("/payments", "POST", b"{}", headers=(("Idempotency-Key", "pay_1"), ("X-Other", "a,b;c")))
    )
    peer = await wired.upstream.peer()
    question = await peer.question()
    peer.say(answer(b"hello"))
    await asked.outcome()
    assert question.headers["idempotency-key"] == "pay_1"
    assert question.headers["x-other"] == "a,b;c"
    assert question.body == b"{}"


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
async def test_a_header_that_could_begin_another_or_take_our_own_place_is_refused(
    wired: Wired, headers: tuple[tuple[str, str], ...]
) -> None:
    with pytest.raises(ValueError, match="header") as refused:
        wired.wire.send(Request("/a", headers=headers), CALL_HEADERS, 100, lambda _outcome: None)
    assert "Injected: 1" not in str(refused.value) or headers[0][0].startswith("X-Injected")
    await answered(wired)
    assert wired.upstream.unseen == 0
