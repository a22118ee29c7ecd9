"""Pages of other origins: which of them may call the API, and for which merchant.

The Fetch standard calls this CORS. The API has no cookies, so it allows no credentials, and no
wildcard: a page belongs to merchants, and may act for these only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

import msgspec
from msgspec import Struct
from starlette.types import Message, Send

from cashier.domain.order import Id
from cashier.web.problem import Headers, ProblemCode, RequestRefused
from cashier.web.response import ApiResponse

# How long a browser reuses a preflight response: Chromium's maximum. A withdrawn origin is refused
# by the request itself.
_MAX_AGE_S = 7200
_REQUEST_HEADERS = (
    b"Authorization, Content-Type, Idempotency-Key, Last-Event-ID, traceparent, tracestate, X-Payment-Token,"
    b" X-Priority, X-Request-Id, X-Request-Timeout-Ms"
)
_EXPOSED_HEADERS = b"Retry-After, Server-Timing, WWW-Authenticate, X-Request-Id"
# RFC 6454, section 6.2, as browsers write it: lower case, in Punycode, no default port.
_ORIGIN = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(?::(?P<port>[1-9][0-9]{0,4}))?"
)
_LOOPBACK_HOST = re.compile(r"(?:.+\.)?localhost|127(?:\.[0-9]+){3}|\[::1\]")
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_VARY = ((b"vary", b"Origin"),)


class MerchantSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """`[merchants.NAME]`. `origins`: of the pages that may act for this merchant.

    They may also embed the cashier, and payers are sent back to them.
    """

    origins: tuple[str, ...] = ()


# By merchant id.
Merchants = Mapping[str, MerchantSettings]


def origin_faults(merchants: Merchants) -> Iterator[str]:
    """The entries that no browser would send, or that must not be trusted, each with its remedy."""
    for name, merchant in merchants.items():
        try:
            msgspec.convert(name, Id)
        except msgspec.ValidationError:
            yield f'[merchants] "{name}" is no merchant_id: that is 1 to 64 of A-Za-z0-9_.:@~-'
        for origin in merchant.origins:
            fault = _origin_fault(origin)
            if fault:
                yield f'[merchants.{name}] origins: "{origin}" {fault}'


class AllowedOrigins:
    """The merchants of each origin. `replace` takes effect with the next request."""

    def __init__(self, merchants: Merchants) -> None:
        self.replace(merchants)

    def __repr__(self) -> str:
        return f"<AllowedOrigins {len(self._merchants)}>"

    def replace(self, merchants: Merchants) -> None:
        by_origin: dict[bytes, set[str]] = {}
        for name, merchant in merchants.items():
            for origin in merchant.origins:
                by_origin.setdefault(origin.encode("ascii"), set()).add(name)
        self._merchants = by_origin

    @property
    def configured(self) -> bool:
        """If not, `Origin` means nothing: a gateway may answer browsers."""
        return bool(self._merchants)

    def require(self, headers: Mapping[bytes, bytes], merchant_id: str | None) -> None:
        """Refuse a page that may not act for this merchant; for None, every page elsewhere.

        Raises `RequestRefused`: ORIGIN_NOT_ALLOWED.
        """
        origin = headers.get(b"origin")
        if origin is None or not self._merchants or merchant_id in self._merchants.get(origin, ()):
            return
        if not _is_same_origin(origin, headers):
            raise self._refusal()

    def response_headers(self, origin: bytes) -> Headers:
        """The headers that let a page of a configured origin read the response."""
        if origin not in self._merchants:
            return _VARY if self._merchants else ()
        return ((b"access-control-allow-origin", origin), (b"access-control-expose-headers", _EXPOSED_HEADERS), *_VARY)

    def preflight(self, origin: bytes, methods: Iterable[str]) -> ApiResponse:
        """The response to a preflight request, but for `response_headers`.

        Raises `RequestRefused`: ORIGIN_NOT_ALLOWED. The merchant shows in the request itself only.
        """
        if origin not in self._merchants:
            raise self._refusal()
        extra = (
            (b"access-control-allow-methods", ", ".join(sorted(methods)).encode("ascii")),
            (b"access-control-allow-headers", _REQUEST_HEADERS),
            (b"access-control-max-age", b"%d" % _MAX_AGE_S),
        )
        return ApiResponse(204, b"", extra=extra)

    def readable(self, origin: bytes, send: Send) -> Send:
        """`send` with `response_headers` in each response."""
        headers = self.response_headers(origin)

        async def send_readable(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *headers]}
            await send(message)

        return send_readable

    def _refusal(self) -> RequestRefused:
        return RequestRefused(
            ProblemCode.ORIGIN_NOT_ALLOWED, "Pages of this origin may not make this request for this merchant."
        )


def _is_same_origin(origin: bytes, headers: Mapping[bytes, bytes]) -> bool:
    """Browsers send Origin with every POST. Older ones send no Sec-Fetch-Site.

    A proxy may have changed Host. `null` is the origin of sandboxed frames and files.
    """
    if origin == b"null":
        return False
    site = headers.get(b"sec-fetch-site")
    if site is not None:
        return site == b"same-origin"
    return origin.partition(b"://")[2] == headers.get(b"host", b"").lower() != b""


def _origin_fault(origin: str) -> str:
    """Empty for a good one."""
    match = _ORIGIN.fullmatch(origin)
    if match is None:
        return 'is no origin: write scheme://host or scheme://host:port in lower case, such as "https://shop.example"'
    scheme, port = match["scheme"], match["port"]
    if port is not None and int(port) > 65_535:
        return "has a port above 65535"
    if port == _DEFAULT_PORTS[scheme]:
        return f"names the default port, which browsers leave out: remove :{port}"
    if scheme == "http" and not _LOOPBACK_HOST.fullmatch(match["host"]):
        return "is not encrypted: use https"
    return ""
