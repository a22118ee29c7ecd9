"""Headers of every response of the pages."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from starlette.responses import Response

# As in a URL that a browser would follow. Nothing that could end a directive of the policy.
_ORIGIN = re.compile(r"https?://(?:[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:;"
    " frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'; trusted-types 'none';"
    " form-action 'self'"
)
_HEADERS = {
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    # The address of a page has no secret after the first redirect. That one has.
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=()",
}


class OriginRefused(ValueError):
    """A URL that names no origin by which a browser could be sent anywhere."""


def origin_of(url: str) -> str:
    """Raises `OriginRefused`."""
    try:
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        _ = parts.port  # raises for one beyond 65535
    except ValueError:
        raise OriginRefused from None
    if not _ORIGIN.fullmatch(origin):
        raise OriginRefused
    return origin


def secure(response: Response, form_origin: str | None = None) -> Response:
    """Add the headers, unless the response has its own. `form_origin`: from `origin_of`, of a page
    that sends a form there.

    Browsers enforce `form-action` on redirects too, so a form of ours ends at a page of ours.
    """
    policy = _POLICY if form_origin is None else f"{_POLICY} {form_origin}"
    for name, value in {**_HEADERS, "content-security-policy": policy, "cache-control": "no-store"}.items():
        response.headers.setdefault(name, value)
    return response
