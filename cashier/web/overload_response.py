"""Refusing a consultation before anybody reads it: from the bytes of a plain request, or from its headers. Decides nothing itself.

A refusal has to be so cheap that refusing two callers of three leaves nearly all of the time to the third. What is not plain goes the
normal way, where it can be refused all the same.

Who comes first: `X-Priority: critical | high | normal | low`. Without the header, or with another word, it is told by the product: a payer
at a till (SCAN) is high, a cashier page (STANDARD_CASHIER) normal, a cashier inside of a shop's page (EMBEDDED_CASHIER) low. Words are
cheap: everybody may ask for less, but for more only a caller whose bearer token was verified before, by an earlier consultation that was
let in. What such a caller makes of it shows under its name, and is between it and the house. Where nobody has to say who he is, on
loopback, every claim counts.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import Scope, Send

from cashier.web.plain_request import PlainRequest
from cashier.web.problem import PROBLEM_TYPE, ProblemCode, encode_problem, make_problem
from cashier.web.request_headers import read_request_id

LOW, NORMAL, HIGH, CRITICAL = range(4)
PRIORITIES = {b"low": LOW, b"normal": NORMAL, b"high": HIGH, b"critical": CRITICAL}
RETRY_AFTER_S = 1
DETAIL = "There is more to do than can be done in time. Nothing was asked and nothing was begun."

# Tells whether the bearer of an Authorization header was verified before.
IsVerified = Callable[[bytes], bool]

_PRODUCTS = ((b'"SCAN"', HIGH), (b'"EMBEDDED_CASHIER"', LOW))

_BODY = encode_problem(make_problem(ProblemCode.OVERLOADED, DETAIL))
_ANSWER = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\ncontent-length: %d\r\nretry-after: %d\r\n"
    b"cache-control: no-store\r\nserver-timing: total;dur=0.0\r\nx-request-id: %%s\r\n\r\n%b"
) % (len(_BODY), RETRY_AFTER_S, _BODY)


def plain_request_priority(request: PlainRequest, knows: IsVerified) -> int:
    """By its header, or by the product that its body names."""
    product = NORMAL
    for word, its in _PRODUCTS:
        if request.data.find(word, request.body) >= 0:
            product = its
            break
    return resolve_priority(request.header(b"x-priority"), request.header(b"authorization"), product, knows)


def encode_refusal(request: PlainRequest) -> bytes:
    """The whole answer."""
    claimed = request.header(b"x-request-id")
    return _ANSWER % read_request_id({} if claimed is None else {b"x-request-id": claimed}).encode("ascii")


def resolve_priority(word: bytes | None, authorization: bytes | None, product: int, knows: IsVerified) -> int:
    """From LOW to CRITICAL. `word` is the value of X-Priority, `product` what counts without it."""
    claimed = product if word is None else PRIORITIES.get(word.lower(), product)
    if claimed <= product or knows(authorization or b""):
        return claimed
    return product


def scope_priority(scope: Scope, knows: IsVerified) -> int:
    """Of a request whose body is still to come, so that its product is not known: it counts as normal."""
    headers: dict[bytes, bytes] = dict(scope["headers"])
    return resolve_priority(headers.get(b"x-priority"), headers.get(b"authorization"), NORMAL, knows)


async def send_refusal(scope: Scope, send: Send) -> None:
    """The same refusal by way of ASGI."""
    headers = [
        PROBLEM_TYPE,
        (b"content-length", b"%d" % len(_BODY)),
        (b"retry-after", b"%d" % RETRY_AFTER_S),
        (b"cache-control", b"no-store"),
        (b"server-timing", b"total;dur=0.0"),
        (b"x-request-id", read_request_id(dict(scope["headers"])).encode("ascii")),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": _BODY})
