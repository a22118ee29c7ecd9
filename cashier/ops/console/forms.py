"""Reads forms, and refuses those that another site had a browser send."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

from starlette.requests import Request

from cashier.ops.host_guard import host_names, is_loopback_name
from cashier.ops.sessions import Sessions

_MOST_BYTES = 16_384
_COOKIE = "cashier_operations"
_SECURE_COOKIE = f"__Host-{_COOKIE}"


class FormRefused(Exception):
    """`status`, and a sentence for the person at the browser."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


def is_on_loopback(request: Request) -> bool:
    """Whether the browser reached this port by a loopback name: then nothing crosses a network."""
    return all(map(is_loopback_name, host_names(request.scope)))


def cookie_name(request: Request) -> str:
    """A secure cookie has the prefix by which browsers keep others from setting it."""
    return _COOKIE if is_on_loopback(request) else _SECURE_COOKIE


def cookie_of(request: Request) -> str | None:
    return request.cookies.get(cookie_name(request))


async def read_form(request: Request, sessions: Sessions) -> dict[str, str]:
    """The fields. Raises `FormRefused` for a form that is not ours, or too large."""
    _require_own_site(request)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_BYTES:
            raise FormRefused(413, "The form is too large.")
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
        raise FormRefused(415, "This takes a form.")
    try:
        fields = dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=20))
    except ValueError:
        raise FormRefused(400, "The form cannot be read.") from None
    if not sessions.is_form_token(fields.get("form_token", ""), cookie_of(request)):
        raise FormRefused(403, "The form is out of date: reload its page and send it again.")
    return fields


def _authority(origin: str) -> str:
    """Empty for what is no origin."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _require_own_site(request: Request) -> None:
    """By what every browser of today sends with a form, and no page can forge."""
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    host = request.headers.get("host", "")
    if site is not None and site != "same-origin":
        raise FormRefused(403, "Another site sent this form.")
    if origin is not None and _authority(origin) != host.lower():
        raise FormRefused(403, "Another site sent this form.")
    if site is None and origin is None:
        raise FormRefused(403, "The form names no site that it came from: use a browser of today.")
