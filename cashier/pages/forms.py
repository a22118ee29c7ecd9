"""Reads forms, and refuses those that no page of ours made for this session."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from urllib.parse import parse_qsl

from msgspec import Struct
from starlette.requests import ClientDisconnect, Request

from cashier.domain.wording import PayerProblem
from cashier.pages.browser_call import BrowserCall
from cashier.pages.form_token import form_token, is_form_token
from cashier.pages.page_call import PageRefused
from cashier.tokens.page_session import SessionClaims

TOKEN_NAME, ATTEMPT_NAME = "form_token", "attempt"
_MOST_BYTES = 65_536
_MOST_FIELDS = 200
_TIMEOUT_S = 10.0
_FORM_TYPE = "application/x-www-form-urlencoded"


class PageForm(Struct, frozen=True):
    """`attempt`: the payment that the form is about, or that ended before it; empty without one."""

    attempt: str
    fields: Sequence[tuple[str, str]]

    # Codes, passwords and tokens stay out of logs.
    def __repr__(self) -> str:
        return f"<PageForm {len(self.fields)} fields>"

    def get(self, name: str) -> str | None:
        return next((value for key, value in self.fields if key == name and value), None)


def form_fields(session: SessionClaims, attempt: str) -> tuple[tuple[str, str], ...]:
    """The hidden fields that `read_form` wants."""
    return ((TOKEN_NAME, form_token(session, attempt)), (ATTEMPT_NAME, attempt))


async def read_form(call: BrowserCall) -> PageForm:
    """Raises `PageRefused`.

    A cookie alone proves nothing: another page could have the browser send it. The token does,
    because no other page can read it.
    """
    session = call.session
    form = await read_fields(call)
    if not is_form_token(dict(form.fields).get(TOKEN_NAME, ""), session, form.attempt):
        raise PageRefused(403, PayerProblem.TOKEN_EXPIRED, retry=call.page)
    return form


async def read_fields(call: BrowserCall) -> PageForm:
    """A form that acts for no session. Raises `PageRefused`.

    Browsers of today say which site sent it.
    """
    retry = call.page
    if not call.is_from_own_page:
        raise PageRefused(403, PayerProblem.INVALID, retry=retry)
    if call.request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM_TYPE:
        raise PageRefused(415, PayerProblem.INVALID, retry=retry)
    body = await _body(call.request, retry)
    try:
        fields = parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="strict")
    except ValueError:
        raise PageRefused(400, PayerProblem.INVALID, retry=retry) from None
    return PageForm(dict(fields).get(ATTEMPT_NAME, ""), fields)


async def _body(request: Request, retry: str) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > _MOST_BYTES:
                    raise PageRefused(413, PayerProblem.INVALID, retry=retry)
    except (TimeoutError, ClientDisconnect):
        raise PageRefused(408, PayerProblem.INVALID, retry=retry) from None
    return bytes(body)
