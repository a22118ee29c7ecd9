"""Routes of the console: pages, their events, records, and assets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from importlib.resources import files
from itertools import islice
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from cashier.ops.console.forms import cookie_of
from cashier.ops.console.live_pages import EventsResponse, LivePages
from cashier.ops.console.rendering import PAGES, WEATHER, Page, context, environment
from cashier.ops.console.texts import FLAG_TEXTS, VERDICT_TEXTS
from cashier.ops.console.waterfall import waterfall
from cashier.ops.live_state import LiveState
from cashier.ops.record_store import record_key
from cashier.ops.replay_view import ReplayView
from cashier.telemetry.records import ConsultationRecord

_ASSETS = {"console.css": "text/css", "console.js": "text/javascript", "icon.svg": "image/svg+xml"}
# Reloading without JavaScript: the shortest and longest interval in seconds.
_REFRESH_S = range(2, 121)
# Records on the page.
MOST_SHOWN = 40


class Console:
    """Renders pages. `replay`: of a record. `with_weather`: there is a sandbox to show."""

    def __init__(
        self, live: LiveState, replay: Callable[[ConsultationRecord], ReplayView], *, with_weather: bool
    ) -> None:
        self._live = live
        self._replay = replay
        self._templates = environment()
        self._pages = (*PAGES, WEATHER) if with_weather else PAGES
        self.live_pages = LivePages(self._templates, self._look, live.stopping)

    def routes(self) -> Sequence[BaseRoute]:
        return [
            *(Route(page.path, self._page(page)) for page in PAGES),
            Route("/payments/steps", self._steps),
            Route("/consultations/{key}", self._record),
            Route("/consultations/{key}/record.json", self._download),
            Route("/events/{page}", self._events),
            Route("/assets/{name}", _asset),
        ]

    def render(self, request: Request, template: str, page: Page, status: int = 200, **fields: Any) -> Response:
        """A page that knows who looks at it."""
        cookie = cookie_of(request)
        sessions = self._live.sessions
        common: dict[str, Any] = {
            "overview": None,
            "pages": self._pages,
            "page": page.name,
            "title": page.title,
            "live": "",
            "refresh": None,
            "signed_in": sessions.is_open(cookie),
            "form_token": sessions.form_token(cookie),
        }
        html = self._templates.get_template(template).render({**common, **fields})
        return Response(html, status, media_type="text/html")

    def _look(self, page: Page) -> dict[str, Any]:
        """What the templates of the page take. Records are decoded for the page that lists them."""
        listed = self._listed() if page.name == "consultations" else ()
        records = [(record_key(each), each, waterfall(each)) for each in listed]
        silence = Counter(row.source.name for _, _, fall in records for row in fall.rows if row.is_bad)
        return context(self._live.overview(), records=records, silence=dict(silence.most_common()))

    def _listed(self) -> list[ConsultationRecord]:
        """The latest first. Good ones, which may be sampled without end, get the room left."""
        listed = list(islice(self._live.records(bad=True), MOST_SHOWN))
        listed += islice(self._live.records(bad=False), MOST_SHOWN - len(listed))
        return sorted(listed, key=lambda record: record.started_at, reverse=True)

    def _page(self, page: Page) -> Callable[[Request], Awaitable[Response]]:
        async def show(request: Request) -> Response:
            fields = {**self._look(page), "fragments": page.fragments, "live": page.name, "refresh": _refresh(request)}
            return self.render(request, "page.html", page, **fields)

        return show

    async def _events(self, request: Request) -> Response:
        page = next((page for page in PAGES if page.name == request.path_params["page"]), None)
        if page is None:
            return self._message(request, 404, "There is nothing at this path.")
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")
        return EventsResponse(self.live_pages, page)

    async def _record(self, request: Request) -> Response:
        record = self._found(request)
        if record is None:
            text = "This record is no longer kept: the oldest make room for new ones, and a restart loses all."
            return self._message(request, 404, text)
        fall = waterfall(record)
        flags = [flag for flag in FLAG_TEXTS if any(flag in source.flags for source in record.sources)]
        return self.render(
            request,
            "record.html",
            Page("consultations", "", "Consultation"),
            key=record_key(record),
            record=record,
            fall=fall,
            calls=[f"{row.source.name}: {call.text}" for row in fall.rows for call in row.calls],
            flags=flags,
            why=self._replay(record),
            flag_texts=FLAG_TEXTS,
            verdict_texts=VERDICT_TEXTS,
        )

    async def _download(self, request: Request) -> Response:
        record = self._found(request)
        if record is None:
            return self._message(request, 404, "This record is no longer kept.")
        name = f"{record_key(record)}.json"
        return Response(
            msgspec.json.encode(record),
            media_type="application/json",
            headers={"content-disposition": f'attachment; filename="{name}"'},
        )

    async def _steps(self, request: Request) -> Response:
        payment_id = request.query_params.get("payment_id", "").strip()
        steps = self._live.steps(payment_id)
        page = Page("payments", "", "Steps of a payment")
        return self.render(request, "steps.html", page, 200 if steps else 404, payment_id=payment_id, steps=steps)

    def _found(self, request: Request) -> ConsultationRecord | None:
        """By the key in the path. The request id beside it spares reading all records."""
        key, request_id = request.path_params["key"], request.query_params.get("request_id")
        return next((each for each in self._live.records(request_id=request_id) if record_key(each) == key), None)

    def _message(self, request: Request, status: int, text: str) -> Response:
        return self.render(request, "message.html", Page("", "", "Not found"), status, text=text)


async def _asset(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in _ASSETS:
        return Response("There is nothing at this path.\n", 404, media_type="text/plain")
    body = files("cashier.ops.console").joinpath("assets", name).read_bytes()
    return Response(body, media_type=_ASSETS[name], headers={"cache-control": "no-cache"})


def _refresh(request: Request) -> int | None:
    value = request.query_params.get("refresh", "")
    return int(value) if value.isdecimal() and len(value) < 4 and int(value) in _REFRESH_S else None
