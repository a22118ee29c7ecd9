"""The embedded cashier: its script, what the script asks for, and the frame of a challenge.

The endpoints are those of the pages. They answer the script with an update in place of a document,
and with an address in place of a redirect. Pages of the merchant's origins may call them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import TypeAlias

import structlog
from msgspec import Struct
from msgspec import json as msgspec_json
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from cashier.core import Cashier
from cashier.domain.wording import PayerProblem
from cashier.pages.asset_store import AssetStore
from cashier.pages.checkout_endpoints import CheckoutEndpoints
from cashier.pages.compression import takes_gzip
from cashier.pages.embed_call import EMBED_PATH, PAYMENT_HEADER, SESSION_HEADER, EmbedCall
from cashier.pages.live_endpoints import LiveEndpoints
from cashier.pages.page_call import PageRefused
from cashier.pages.page_responses import PageResponses, internal
from cashier.pages.payment_endpoints import PaymentEndpoints
from cashier.pages.qr import QrCodes
from cashier.pages.rendering import AnyView, Rendering, name_of
from cashier.pages.security_headers import OriginRefused, origin_of, secure
from cashier.pages.views import PageView, ResultView
from cashier.web.cross_origin import AllowedOrigins
from cashier.web.problem import RequestRefused
from cashier.web.rate_limit import RateLimit

_log = structlog.get_logger("cashier.pages")

SCRIPT_PATH = "/cashier.js"
Serve: TypeAlias = Callable[[EmbedCall], Awaitable[Response]]
# A new release reaches shops soon; the script and the service understand each other's last one.
_SCRIPT_AGE = "public, max-age=300"
_NOTHING = "There is nothing at this address.\n"
_FRAME_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:;"
    " form-action 'none'; base-uri 'none'; require-trusted-types-for 'script'; trusted-types 'none';"
    " frame-ancestors {shop}"
)


class EmbedUpdate(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`style`: the address of the style sheet. `outcome`, `payment_id`: of a result.

    `location`: what to ask for next, in place of all else.
    """

    location: str | None = None
    view: str | None = None
    now: str | None = None
    title: str | None = None
    html: str | None = None
    style: str | None = None
    outcome: str | None = None
    payment_id: str | None = None


class EmbedResponses(PageResponses):
    """Pages as updates."""

    def __init__(self, rendering: Rendering, assets: AssetStore) -> None:
        super().__init__(rendering)
        self._assets = assets

    def rendered(self, page: PageView, view: AnyView, main: str, status: int) -> Response:
        result = view if isinstance(view, ResultView) else None
        update = EmbedUpdate(
            view=name_of(view),
            now=page.now,
            title=self.rendering.title(page, view),
            html=main,
            style=page.prefix + self._assets.url("element.css"),
            outcome=None if result is None else result.outcome,
            payment_id=None if result is None else result.payment.payment_id,
        )
        return _json(update, status)


class EmbedEndpoints:
    """`clock`: the time of day. `answers`: to challenges, those on pages included.

    Origins are those of `[merchants.NAME]`, read per request.
    """

    def __init__(
        self,
        cashier: Cashier,
        rendering: Rendering,
        assets: AssetStore,
        qr_codes: QrCodes,
        clock: Callable[[], datetime],
        answers: RateLimit,
    ) -> None:
        self._cashier = cashier
        self._rendering = rendering
        self._assets = assets
        self._clock = clock
        self._responses = EmbedResponses(rendering, assets)
        self._payments = PaymentEndpoints(self._responses, qr_codes, answers)
        self._checkout = CheckoutEndpoints(self._responses, self._payments)
        self._live = LiveEndpoints(rendering, self._payments, qr_codes, clock)
        self._merchants = cashier.config.settings.merchants
        self._origins = AllowedOrigins(self._merchants)

    def routes(self) -> Sequence[BaseRoute]:
        order = f"{EMBED_PATH}{{order_id}}"
        serves: dict[tuple[str, str], Serve] = {
            ("GET", ""): self._checkout.show,
            ("GET", "/methods"): self._live.methods,
            ("POST", "/pay"): self._checkout.pay,
            ("GET", "/payment"): self._payments.show,
            ("POST", "/payment"): self._payments.check,
            ("GET", "/events"): self._live.payment,
            ("POST", "/challenge"): self._answer,
            ("POST", "/challenge/resend"): self._payments.resend,
            ("POST", "/cancel"): self._payments.cancel,
            ("POST", "/replace"): self._payments.replace,
        }
        paths = dict.fromkeys(path for _, path in serves)
        return [
            Route(SCRIPT_PATH, self._script, methods=["GET"]),
            Route(f"{order}/frame", self._frame, methods=["GET"]),
            *(Route(order + path, self._endpoint(serve), methods=[method]) for (method, path), serve in serves.items()),
            *(Route(order + path, self._preflight, methods=["OPTIONS"]) for path in paths),
        ]

    async def _answer(self, call: EmbedCall) -> Response:
        """Codes and passwords come from our own frame, where no script of the shop reads them."""
        if not call.is_from_frame:
            raise PageRefused(403, PayerProblem.INVALID)
        return await self._payments.answer(call)

    def _endpoint(self, serve: Serve) -> Callable[[Request], Awaitable[Response]]:
        async def respond(request: Request) -> Response:
            try:
                call = EmbedCall(self._cashier, request, self._clock())
            except PageRefused:
                return secure(PlainTextResponse(_NOTHING, 404))
            is_admitted = False
            try:
                self._require_origin(call)
                is_admitted = True
                response = await serve(call)
            except PageRefused as refused:
                response = self._responses.refusal(call, refused)
            except Exception:  # noqa: BLE001 - a bug, whose text must not reach the payer
                _log.exception("embedded cashier failed", request_id=call.request_id)
                response = self._responses.refusal(call, internal(call))
            if is_admitted and call.by_link:
                call.cookies.set_session(response, call.sign_session(call.session))
            return self._finished(call, response)

        return respond

    def _require_origin(self, call: EmbedCall) -> None:
        """Raises `PageRefused` for a page that may not act for the merchant of the session."""
        try:
            self._allowed_origins().require(call.headers, call.session.merchant_id)
        except RequestRefused:
            raise PageRefused(403, PayerProblem.INVALID) from None

    def _finished(self, call: EmbedCall, response: Response) -> Response:
        if 300 <= response.status_code < 400:
            headers = response.headers
            response = _json(EmbedUpdate(location=headers["location"]), 200)
            for name in (SESSION_HEADER, PAYMENT_HEADER):
                if name in headers:
                    response.headers[name] = headers[name]
        response.headers["x-request-id"] = call.request_id
        return self._readable(call.request, response)

    def _readable(self, request: Request, response: Response) -> Response:
        """By the page of a merchant, with the tokens in its headers."""
        origin = request.headers.get("origin", "").encode("latin-1")
        for name, value in self._allowed_origins().response_headers(origin):
            response.headers.append(name.decode(), value.decode())
        response.headers.append("access-control-expose-headers", f"{SESSION_HEADER}, {PAYMENT_HEADER}")
        response.headers["cross-origin-resource-policy"] = "cross-origin"
        return secure(response)

    async def _preflight(self, request: Request) -> Response:
        """Whose page it may be shows in the request itself."""
        headers = {
            "access-control-allow-methods": "GET, POST",
            "access-control-allow-headers": f"authorization, {PAYMENT_HEADER}",
            "access-control-max-age": "7200",
        }
        return self._readable(request, Response(status_code=204, headers=headers))

    async def _script(self, request: Request) -> Response:
        asset = self._assets.asset("cashier.js")
        headers = {
            "cache-control": _SCRIPT_AGE,
            "vary": "accept-encoding",
            "etag": f'"{asset.name.partition(".")[0]}"',
            "cross-origin-resource-policy": "cross-origin",
            "access-control-allow-origin": "*",
        }
        if request.headers.get("if-none-match") == headers["etag"]:
            return secure(Response(status_code=304, headers=headers))
        body = asset.body
        if asset.gzipped is not None and takes_gzip(request.headers.get("accept-encoding", "")):
            headers["content-encoding"], body = "gzip", asset.gzipped
        return secure(Response(body, media_type=asset.media_type, headers=headers))

    async def _frame(self, request: Request) -> Response:
        """The only document of ours that another page may frame, and only one of these origins."""
        try:
            call = EmbedCall(self._cashier, request, self._clock())
            shop = origin_of(request.query_params.get("origin", ""))
        except (PageRefused, OriginRefused):
            return secure(PlainTextResponse(_NOTHING, 404))
        if not any(shop in merchant.origins for merchant in self._cashier.config.settings.merchants.values()):
            return secure(PlainTextResponse(_NOTHING, 404))
        call.other_locale = call.wanted_locale()
        html = self._rendering.frame(call.prefix, call.locale, shop)
        headers = {"content-security-policy": _FRAME_POLICY.format(shop=shop)}
        # A browser that knows no `frame-ancestors` shows no challenge in a shop's page.
        return secure(Response(html, media_type="text/html", headers=headers))

    def _allowed_origins(self) -> AllowedOrigins:
        """A reload replaces the settings as a whole."""
        merchants = self._cashier.config.settings.merchants
        if merchants is not self._merchants:
            self._merchants = merchants
            self._origins.replace(merchants)
        return self._origins


def _json(update: EmbedUpdate, status: int) -> Response:
    return Response(msgspec_json.encode(update), status, media_type="application/json")
