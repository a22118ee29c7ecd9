"""Faults of the company's services, to be installed in one of them."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from tests.company.company import Company, Serve

OWN_HEADERS = ("X-Seal", "ETag", "Location", "X-Retry-Ms")
Break = Callable[[Company, str], None]


def spoiled(old: str, new: str, at: str = "") -> Break:
    """The service's own answers, with another text in them. `at`: method and path, or an ending."""

    def install(company: Company, source: str) -> None:
        async def answer(request: web.Request, serve: Serve) -> web.StreamResponse:
            response = await serve(request)
            assert isinstance(response, web.Response)
            text = response.text or ""
            if not f"{request.method} {request.path}".endswith(at) or response.status == 202:
                return response
            assert old in text
            headers = {name: value for name, value in response.headers.items() if name in OWN_HEADERS}
            return web.Response(text=text.replace(old, new), status=response.status, headers=headers)

        company.faults[source] = answer

    return install


def instead(make: Callable[[], web.Response], at: str = "") -> Break:
    def install(company: Company, source: str) -> None:
        async def answer(request: web.Request, serve: Serve) -> web.StreamResponse:
            return make() if f"{request.method} {request.path}".endswith(at) else await serve(request)

        company.faults[source] = answer

    return install


def mistaken(company: Company, source: str) -> None:
    """Answers about another subject than the one asked for."""
    company.records.mistaken.add(source)


def page(status: int = 200) -> web.Response:
    return web.Response(text="<html>Service unavailable</html>", status=status, content_type="text/html")


def json(body: object, status: int = 200) -> Callable[[], web.Response]:
    return lambda: web.json_response(body, status=status)
