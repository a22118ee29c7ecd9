"""The ASGI application of the pages. It serves them beside the API, or mounted in a program."""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TypeAlias, TypeVar
from urllib.parse import urlsplit

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from cashier.core import Cashier, utc_now
from cashier.domain.page_session import PageSession, SessionRequest, TillRequest
from cashier.domain.pan import payment_pan_fields
from cashier.pages.asset_store import PREFIX, AssetStore
from cashier.pages.browser_call import BrowserCall
from cashier.pages.card_endpoints import CardEndpoints
from cashier.pages.checkout_endpoints import CheckoutEndpoints
from cashier.pages.code_endpoints import CodeCall, CodeEndpoints
from cashier.pages.compression import compressed, takes_gzip
from cashier.pages.embed_call import EMBED_PATH
from cashier.pages.embed_endpoints import SCRIPT_PATH, EmbedEndpoints
from cashier.pages.live_endpoints import LiveEndpoints
from cashier.pages.order_creation import CreateOrder, Orders
from cashier.pages.page_call import LINK_S, PageCall, PageRefused, UnknownAddress, public_base
from cashier.pages.page_responses import PageResponses, internal
from cashier.pages.payment_endpoints import PaymentEndpoints
from cashier.pages.qr import QrCodes
from cashier.pages.rendering import Rendering
from cashier.pages.security_headers import OriginRefused, origin_of, secure
from cashier.pages.till_call import TillCall
from cashier.pages.till_endpoints import TillEndpoints
from cashier.tokens.page_session import SessionClaims, TillClaims
from cashier.web.problem import FieldProblem, ProblemCode, RequestRefused, invalid
from cashier.web.rate_limit import RateLimit

_log = structlog.get_logger("cashier.pages")

Serve: TypeAlias = Callable[[PageCall], Awaitable[Response]]
AnyCall = TypeVar("AnyCall", bound=BrowserCall)
_ASSET_AGE = "public, max-age=31536000, immutable"
_PATHS = ("/cashier/", "/cashier-till/", "/cashier-code/", EMBED_PATH, PREFIX)
# Answers to the challenges of one payment: a code has six digits, and a robot patience. The risk
# service counts per challenge.
_MOST_ANSWERS, _ANSWERS_WINDOW_S = 20, 600.0
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Pages:
    """The pages of an open cashier that takes payments. Raises ValueError for one that takes none.

    `clock`: the time of day. `create_order`: creates the orders of tills and printed codes; None
    asks `[pages] order_url`. Settings are read per request, so that a reload applies.
    """

    def __init__(
        self,
        cashier: Cashier,
        clock: Callable[[], datetime] = utc_now,
        create_order: CreateOrder | None = None,
    ) -> None:
        if cashier.payments is None:
            raise ValueError("[pages] enabled: pages need payments: configure risk, engine and acquirer")
        self._cashier = cashier
        self._clock = clock
        settings, qr_codes = cashier.config.settings.pages, QrCodes()
        self._assets = AssetStore(settings.brand)
        self._orders = orders = Orders(create_order)
        rendering = Rendering(settings.brand, self._assets)
        self._responses = PageResponses(rendering)
        self._has_orders = create_order is not None
        answers = RateLimit(_MOST_ANSWERS, _ANSWERS_WINDOW_S, time.monotonic)
        payments = PaymentEndpoints(self._responses, qr_codes, answers)
        checkout = CheckoutEndpoints(self._responses, payments)
        live = LiveEndpoints(rendering, payments, qr_codes, clock)
        card = CardEndpoints(self._responses)
        till = TillEndpoints(self._responses, orders, qr_codes, clock)
        code = CodeEndpoints(self._responses, orders, self.open_session, time.monotonic)
        embedded = EmbedEndpoints(cashier, rendering, self._assets, qr_codes, clock, answers)
        routes = [
            *self._routes(checkout, payments, live, card),
            *self._scan_routes(till, code),
            *embedded.routes(),
        ]
        self._starlette = Starlette(routes=routes, exception_handlers={HTTPException: _nothing_here})
        self._starlette.router.redirect_slashes = False

    def __repr__(self) -> str:
        return f"<Pages of {self._cashier!r}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._starlette(scope, receive, send)

    async def close(self) -> None:
        """Close the connections to `[pages] order_url`. Served again, the pages open others."""
        await self._orders.close()

    def serves(self, path: str) -> bool:
        return path == SCRIPT_PATH or path.startswith(_PATHS)

    def open_session(self, wanted: SessionRequest, scope: Scope) -> PageSession:
        """The link of a page. Raises `RequestRefused`: INVALID."""
        _require_payable(wanted)
        self._require_own_origin(wanted)
        base = self._base(scope)
        opened_at = int(self._clock().timestamp())
        claims = SessionClaims(
            session_id=secrets.token_urlsafe(24),
            opened_at=opened_at,
            **{name: getattr(wanted, name) for name in SessionRequest.__struct_fields__},
        )
        token = self._cashier.tokens.pages.sign_link(claims, opened_at + LINK_S)
        return _link(f"{base}/cashier/{wanted.order_id}?token={token}", opened_at)

    def open_till(self, wanted: TillRequest, scope: Scope) -> PageSession:
        """The link of a till. Raises `RequestRefused`: PAGES_NOT_CONFIGURED without orders."""
        if not (self._has_orders or self._cashier.config.settings.pages.order_url):
            raise RequestRefused(
                ProblemCode.PAGES_NOT_CONFIGURED, "Nothing creates the orders of tills: set [pages] order_url."
            )
        base, now_s = self._base(scope), int(self._clock().timestamp())
        claims = TillClaims(
            session_id=secrets.token_urlsafe(24),
            **{name: getattr(wanted, name) for name in TillRequest.__struct_fields__},
        )
        token = self._cashier.tokens.pages.sign_till_link(claims, now_s + LINK_S)
        return _link(f"{base}/cashier-till/{claims.till}?token={token}", now_s)

    def _base(self, scope: Scope) -> str:
        """Raises `RequestRefused`."""
        try:
            return public_base(self._cashier.config.settings.pages, scope)
        except UnknownAddress:
            fault = FieldProblem("Host", "INVALID", "must be a loopback address without [pages] public_url")
            raise invalid(fault) from None

    def _require_own_origin(self, wanted: SessionRequest) -> None:
        """A payer is sent to pages of the merchant only. Raises `RequestRefused`."""
        if wanted.return_url is None:
            return
        merchant = self._cashier.config.settings.merchants.get(wanted.merchant_id)
        if merchant is None or _normal_origin(wanted.return_url) not in merchant.origins:
            raise invalid(
                FieldProblem("return_url", "INVALID", "must be at an origin in [merchants.NAME] of this merchant")
            )

    def _routes(
        self, checkout: CheckoutEndpoints, payments: PaymentEndpoints, live: LiveEndpoints, card: CardEndpoints
    ) -> Sequence[BaseRoute]:
        order = "/cashier/{order_id}"
        posts: dict[str, Serve] = {
            "/pay": checkout.pay,
            "/challenge": payments.answer,
            "/challenge/resend": payments.resend,
            "/cancel": payments.cancel,
            "/replace": payments.replace,
        }
        routes = [Route(order + path, self._page(serve), methods=["POST"]) for path, serve in posts.items()]
        # The address of a refused form stays in the browser, and somebody loads it.
        routes += [Route(order + path, self._page(checkout.go_to_page), methods=["GET"]) for path in posts]
        routes += [
            Route(order, self._page(checkout.show), methods=["GET"]),
            Route(f"{order}/payment", self._page(payments.show), methods=["GET"]),
            Route(f"{order}/payment", self._page(payments.check), methods=["POST"]),
            Route(f"{order}/methods", self._page(live.methods), methods=["GET"]),
            Route(f"{order}/events", self._page(live.payment), methods=["GET"]),
            Route(f"{order}/card", self._page(card.show), methods=["GET"]),
            Route(f"{order}/card/return", self._page(card.returned), methods=["GET"]),
            Route(f"{order}/return", self._page(payments.returned), methods=["GET", "POST"]),
            Route(f"{PREFIX}{{name}}", self._asset, methods=["GET"]),
        ]
        return routes

    def _scan_routes(self, till: TillEndpoints, code: CodeEndpoints) -> Sequence[BaseRoute]:
        """Scan-to-pay."""
        on_till, on_code = partial(self._page, make_call=TillCall), partial(self._page, make_call=CodeCall)
        here, merchant = "/cashier-till/{merchant_id}/{terminal_id}", "/cashier-code/{merchant_id}"
        sale = f"{here}/sales/{{order_id}}"
        posts: dict[str, Callable[[TillCall], Awaitable[Response]]] = {
            f"{here}/sales": till.sell,
            f"{sale}/scan": till.scan,
            f"{sale}/code": till.show_code,
            f"{sale}/cancel": till.cancel,
        }
        return [
            *(Route(path, on_till(serve), methods=["POST"]) for path, serve in posts.items()),
            *(Route(path, on_till(till.go_to_page), methods=["GET"]) for path in posts),
            Route(here, on_till(till.show), methods=["GET"]),
            Route(f"{here}/code", on_till(till.printed_code), methods=["GET"]),
            Route(sale, on_till(till.show_sale), methods=["GET"]),
            Route(f"{sale}/events", on_till(till.events), methods=["GET"]),
            Route(merchant, on_code(code.show), methods=["GET"]),
            Route(merchant, on_code(code.order), methods=["POST"]),
        ]

    def _page(
        self,
        serve: Callable[[AnyCall], Awaitable[Response]],
        make_call: Callable[[Cashier, Request, datetime], AnyCall] = PageCall,  # type: ignore[assignment]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def respond(request: Request) -> Response:
            try:
                call = make_call(self._cashier, request, self._clock())
            except PageRefused:
                return _plain(404)
            try:
                response = await serve(call)
            except PageRefused as refused:
                response = self._responses.refusal(call, refused)
            except Exception:  # noqa: BLE001 - a bug, whose text must not reach the payer
                _log.exception("page failed", request_id=call.request_id)
                response = self._responses.refusal(call, internal(call))
            response.headers["x-request-id"] = call.request_id
            return secure(compressed(response, request.headers.get("accept-encoding", "")))

        return respond

    async def _asset(self, request: Request) -> Response:
        asset = self._assets.by_name.get(request.path_params["name"])
        if asset is None:
            return _plain(404)
        headers = {
            "cache-control": _ASSET_AGE,
            "vary": "accept-encoding",
            # The embedded cashier reads its style sheet from a shop's page.
            "access-control-allow-origin": "*",
            "cross-origin-resource-policy": "cross-origin",
        }
        body = asset.body
        if asset.gzipped is not None and takes_gzip(request.headers.get("accept-encoding", "")):
            headers["content-encoding"], body = "gzip", asset.gzipped
        return secure(Response(body, media_type=asset.media_type, headers=headers))


def app(
    cashier: Cashier,
    clock: Callable[[], datetime] = utc_now,
    create_order: CreateOrder | None = None,
) -> Pages:
    """The pages of an open cashier: `shop.mount("/pay", cashier.pages.app(core))`.

    The program around them decides which addresses it listens on. `[pages]` of the cashier's
    configuration applies; below a path, its `public_url` names that path. Pass the result to
    `cashier.web.app(core, pages=…)` to serve both. Close it at the end, before the cashier.
    """
    return Pages(cashier, clock, create_order)


async def _nothing_here(_: Request, error: Exception) -> Response:
    return _plain(error.status_code if isinstance(error, HTTPException) else 404)


def _plain(status: int) -> Response:
    return secure(PlainTextResponse("There is nothing at this address.\n", status))


def _require_payable(wanted: SessionRequest) -> None:
    """No payment takes an id that looks like a card number, so its page could only refuse. Raises
    `RequestRefused`."""
    ids = {name: getattr(wanted, name) for name in ("order_id", "user_id", "merchant_id")}
    faults = [FieldProblem(name, "LOOKS_LIKE_PAN", "looks like a card number") for name in payment_pan_fields(ids)]
    if faults:
        raise invalid(*faults)


def _link(url: str, opened_at: int) -> PageSession:
    return PageSession(url, datetime.fromtimestamp(opened_at + LINK_S, UTC))


def _normal_origin(url: str) -> str | None:
    """As browsers write it: lower case and without the default port. None for no origin."""
    try:
        origin = urlsplit(origin_of(url).lower())
        port = origin.port
    except (OriginRefused, ValueError):
        return None
    default = port is None or port == _DEFAULT_PORTS[origin.scheme]
    host = f"[{origin.hostname}]" if ":" in (origin.hostname or "") else origin.hostname
    return f"{origin.scheme}://{host}" if default else f"{origin.scheme}://{host}:{port}"
