"""A card of the payer becomes a token at the vault's own form; no page of ours has a field for one.

`state` goes to the vault and comes back. It belongs to one session, and to the attempt that the
card is for: a token that somebody else's form gave is not taken, and a card that was declined is
asked for again.
"""

from __future__ import annotations

import hashlib
import re
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from msgspec.structs import replace
from starlette.responses import RedirectResponse, Response

from cashier.domain.pan import looks_like_pan
from cashier.domain.wording import PayerProblem
from cashier.pages.page_call import PageCall, PageRefused, UnknownAddress, public_base, with_locale
from cashier.pages.page_responses import PageResponses
from cashier.pages.surroundings import page_view
from cashier.pages.views import CardView
from cashier.tokens.jws import TokenRefused
from cashier.tokens.page_session import CardClaims, KeptCard, SessionClaims

_CARD_TOKEN = re.compile(r"[!-~]{1,256}")


class CardEndpoints:
    def __init__(self, responses: PageResponses) -> None:
        self._responses = responses

    async def show(self, call: PageCall) -> Response:
        """GET: the way to the vault's form."""
        session, query, locale = call.session, call.request.query_params, call.wanted_locale()
        vault = call.vault
        if not vault:
            return RedirectResponse(call.addresses.page, 303)
        claims = CardClaims(
            order_id=call.order_id,
            session=session_digest(session),
            method_id=query.get("method", "")[:128],
            attempt=query.get("attempt", "")[:64],
        )
        here = f"{call.addresses.card}?{urlencode({'method': claims.method_id, 'attempt': claims.attempt})}"
        if locale is not None:
            return self._responses.in_language(call, with_locale(session, locale), here)
        fields = {
            "return_url": f"{_base(call)}/cashier/{call.order_id}/card/return",
            "state": call.cashier.tokens.pages.sign_card_state(claims, call.session_ends_at(session)),
            "locale": call.locale,
        }
        host = urlsplit(vault).hostname or ""
        view = CardView(url=_with_query(vault, fields), host=host, back=call.addresses.page)
        return self._responses.render(page_view(call, here), view)

    async def returned(self, call: PageCall) -> Response:
        """GET: back from the vault. The token goes into the session, and out of the address."""
        session, query = call.session, call.request.query_params
        try:
            claims = call.cashier.tokens.pages.read_card_state(
                query.get("state", ""), call.order_id, call.now.timestamp()
            )
        except TokenRefused:
            raise PageRefused(403, PayerProblem.TOKEN_EXPIRED, retry=call.addresses.page) from None
        if claims.session != session_digest(session):
            raise PageRefused(403, PayerProblem.TOKEN_EXPIRED, retry=call.addresses.page)
        token = query.get("card_token", "")
        # A number of a card is none, whatever a vault says: it goes no further.
        if not _CARD_TOKEN.fullmatch(token) or looks_like_pan(token):
            return RedirectResponse(call.addresses.page, 303)
        response = RedirectResponse(f"{call.addresses.page}?{urlencode({'method': claims.method_id})}", 303)
        kept = replace(session, card=KeptCard(token=token, attempt=claims.attempt))
        call.cookies.set_session(response, call.sign_session(kept))
        return response


def session_digest(session: SessionClaims) -> str:
    """Names the session to the vault, which must not learn its secret."""
    return hashlib.sha256(f"card {session.session_id}".encode()).hexdigest()


def _base(call: PageCall) -> str:
    try:
        return public_base(call.settings, call.request.scope)
    except UnknownAddress:
        raise PageRefused(421, PayerProblem.INVALID) from None


def _with_query(url: str, fields: dict[str, str]) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(query=urlencode([*parse_qsl(parts.query), *fields.items()])))
