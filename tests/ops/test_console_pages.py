"""The pages of the console in every state, without a browser."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import MutableMapping
from contextlib import aclosing
from html.parser import HTMLParser
from typing import Any

import msgspec
import pytest

from cashier.domain.pay_method import Kind
from cashier.domain.ranking import Weights
from cashier.fanout.breaker import BreakerState
from cashier.fanout.timeline import Flag
from cashier.ops.console.live_pages import LONGEST_STREAM_S, MOST_STREAMS, LivePages
from cashier.ops.console.rendering import PAGES, context, environment
from cashier.ops.console.routes import MOST_SHOWN
from cashier.ops.console.texts import FLAG_TEXTS, VERDICT_TEXTS
from cashier.ops.record_store import record_key
from cashier.telemetry.pseudonyms import Pseudonyms
from cashier.telemetry.records import ConsultationRecord, Verdict
from cashier.telemetry.replay import digest_of, packed, recorded
from cashier.telemetry.worker_state import (
    DiscoveryState,
    EndpointState,
    PaymentsState,
    Reload,
    ReloadResult,
)
from tests.domain.builders import CATALOG, World, card, channel, promotion
from tests.domain.explanation.evidence import evidence_of
from tests.ops.fixtures import AT, URL, Port, configuration_state, failure, live_payment, record, source, worker

PATHS = [page.path for page in PAGES]
HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>\u202e&amp;{{7*7}}"
HANDLERS = re.compile(r"^on[a-z]+$")


class Markup(HTMLParser):
    """Notes what a strict policy forbids, and what assistive technology needs."""

    def __init__(self) -> None:
        super().__init__()
        self.forbidden: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.outside: list[str] = []
        self.tables_without_caption = 0
        self._captions: list[bool] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        self.forbidden += [f"{tag} {name}" for name in given if name == "style" or HANDLERS.match(name)]
        if tag == "style" or (tag == "script" and "src" not in given):
            self.forbidden.append(tag)
        for name in ("src", "href", "action"):
            value = given.get(name) or "/"
            if not re.match(r"^(/(?!/)|#|\?)", value):
                self.outside.append(value)
        if given.get("id"):
            self.ids.append(str(given["id"]))
        if tag == "table":
            self._captions.append(False)
        if tag == "caption":
            self._captions[-1] = True

    def handle_endtag(self, tag: str) -> None:
        if tag == "table" and not self._captions.pop():
            self.tables_without_caption += 1


def page(port: Port, path: str, status: int = 200) -> str:
    response = port.client().get(path, headers={"accept": "text/html"})
    assert response.status_code == status, response.text
    return str(response.text)


def parsed(html: str) -> Markup:
    markup = Markup()
    markup.feed(html)
    return markup


def troubled(text: str = "HTTP status 500") -> Port:
    """Everything that can be wrong at once. `text`: what upstreams, clients and files say."""
    port = Port()
    port.live.history.sample()
    shut = EndpointState(URL, BreakerState.OPEN, 0, None, 7.5, 1.5)
    port.workers = [
        worker(
            11,
            sources=(
                source("quota", urls=(URL, text), endpoints=(shut,), failures=(failure(text),)),
                source("order", discovery=DiscoveryState("srv", 61.0, 2, text)),
            ),
            payments=PaymentsState(2, 1, (live_payment(text), live_payment("pay_2", unknown=False))),
            configuration=configuration_state(
                settings={"consult.deadline_ms": "200", "sources.order.url": text},
                previous={"consult.deadline_ms": "150", "sources.order.url": text},
                warnings=(text,),
                reloads=(Reload(AT, ReloadResult.REFUSED, "ffff", (text,)),),
            ),
        ),
        worker(12, at=AT - 60),
    ]
    port.records = [record(request_id=text, order_id=text, product=text)]
    metrics = port.metrics
    metrics.counter("cashier_source_answers_total", "quota", "ERROR", text).add(9)
    metrics.counter("cashier_methods_total", "WALLET", "AVAILABLE", "").add(30)
    metrics.counter("cashier_methods_total", "WALLET", "UNDETERMINED", text).add(10)
    metrics.counter("cashier_payments_total", "WALLET", text).add(3)
    metrics.counter("cashier_shed_total", "low", text).add(3)
    port.clock.seconds += 10
    return port


@pytest.fixture(scope="module")
def busy() -> Port:
    return troubled()


@pytest.fixture(scope="module")
def hostile() -> Port:
    return troubled(HOSTILE)


def empty() -> Port:
    port = Port()
    port.workers = []
    return port


def record_path(port: Port) -> str:
    return f"/consultations/{record_key(port.records[0])}"


@pytest.mark.parametrize("path", PATHS)
def test_a_page_needs_nothing_inline_and_nothing_from_elsewhere(busy: Port, path: str) -> None:
    for port in (busy, empty()):
        markup = parsed(page(port, path))
        assert markup.forbidden == []
        assert markup.outside == []
        assert len(set(markup.ids)) == len(markup.ids)
        assert markup.tables_without_caption == 0
        assert {"header", "nav", "main", "h1"} <= set(markup.tags)


@pytest.mark.parametrize("path", [*PATHS, "record"])
def test_words_of_clients_and_upstreams_are_shown_and_not_run(hostile: Port, path: str) -> None:
    html = page(hostile, record_path(hostile) if path == "record" else path)
    markup = parsed(html)
    assert markup.forbidden == []
    assert markup.tags.count("script") == 1, "the console's own"
    assert "img" not in markup.tags
    assert "49" not in re.findall(r"amp;(\d+)", html), "no template inside a text"
    assert path in ("/methods", "/runtime") or "&lt;script&gt;" in html


def test_a_calm_service_says_so() -> None:
    port = Port()
    port.live.history.sample()
    port.metrics.histogram("cashier_consultation_duration_seconds", "SCAN", "complete").record(4_000_000)
    port.clock.seconds += 10
    assert "All sources answer" in page(port, "/")
    assert "Every payment that these workers sent has ended" in page(port, "/payments")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/", "No worker has reported its sources yet"),
        ("/consultations", "None yet."),
        ("/methods", "No method was offered yet"),
        ("/payments", "only consults"),
        ("/runtime", "No worker reports."),
        ("/configuration", "No worker has reported its configuration yet"),
    ],
)
def test_a_page_without_data_says_what_is_missing(path: str, text: str) -> None:
    assert text in page(empty(), path)


def test_the_overview_names_what_is_wrong_and_what_to_do(busy: Port) -> None:
    html = page(busy, "/")
    assert (
        "Not called: the breaker is open on every address (STATUS_5XX); methods that it could refuse are undetermined."
        in html
    )
    assert re.search(r'<details class="source bad" id="source-quota" open>', html), "the bad one is open"
    assert "HTTP status 500" in html
    assert "in 1 of 1 workers, probes in 1.5 s" in html
    assert "No report from 12" in html
    assert "Discovery by srv finds nothing: HTTP status 500." in html
    assert "Addresses by discovery, srv: found 1 min 01 s ago, 2 changes" in html


def test_unknown_payments_come_with_age_and_advice(busy: Port) -> None:
    html = page(busy, "/payments")
    assert "5 min 00 s" in html
    assert "ask its team whether it has this payment" in html


def test_the_configuration_shows_what_changed_and_what_was_refused(busy: Port) -> None:
    html = page(busy, "/configuration")
    assert "the last good configuration is in effect" in html
    assert html.count('<span class="badge warn">changed</span>') == 1
    assert '<td class="mono">150</td>' in html


def test_a_record_shows_its_waterfall_flags_and_methods(busy: Port) -> None:
    html = page(busy, record_path(busy))
    assert "quota: TIMEOUT after 120.0 ms" in html
    assert "hedge call to http://10.0.0.7:9100: from 12.5 ms, answered at 19.9 ms" in html
    assert FLAG_TEXTS[Flag.HEDGE_WON] in html
    assert "SOURCE_TIMEOUT" in html
    assert html.index("quota</a> <small") < html.index("order</a> <small"), "the one without an answer comes first"


@pytest.mark.parametrize(("bad", "shown_good"), [(0, MOST_SHOWN), (3, MOST_SHOWN - 3), (MOST_SHOWN + 1, 0)])
def test_sampled_consultations_do_not_push_bad_ones_off_the_page(bad: int, shown_good: int) -> None:
    port = Port()
    port.records = [record(request_id=f"good-{number}", verdicts=(Verdict.SAMPLED,)) for number in range(MOST_SHOWN)]
    port.records += [record(request_id=f"bad-{number}") for number in range(bad)]
    shown = set(re.findall(r"\b(?:good|bad)-[0-9]+\b", page(port, "/consultations")))
    assert {name for name in shown if name.startswith("bad")} == {f"bad-{n}" for n in range(min(bad, MOST_SHOWN))}
    assert sum(name.startswith("good") for name in shown) == shown_good


def test_a_record_can_be_downloaded_for_a_replay(busy: Port) -> None:
    response = busy.client().get(f"{record_path(busy)}/record.json")
    assert response.headers["content-disposition"].startswith("attachment")
    assert msgspec.json.decode(response.content, type=ConsultationRecord) == busy.records[0]


def test_a_record_that_is_gone_is_explained(busy: Port) -> None:
    assert "no longer kept" in page(busy, "/consultations/0000", 404)


def test_every_flag_and_verdict_has_a_sentence() -> None:
    assert set(FLAG_TEXTS) == set(Flag)
    assert set(VERDICT_TEXTS) == set(Verdict)


def test_a_page_reloads_by_itself_without_javascript_if_asked_to(busy: Port) -> None:
    assert '<meta http-equiv="refresh" content="5">' in page(busy, "/?refresh=5")
    assert "refresh=5" in page(busy, "/")
    assert "http-equiv" not in page(busy, "/?refresh=0;url=https://evil.example")


async def test_a_stream_sends_whole_parts_first_and_then_only_what_changed() -> None:
    port = Port()
    live = LivePages(
        environment(), lambda _: context(port.live.overview(), records=[], silence={}), port.stopping, port.clock, 0.0
    )
    page = next(page for page in PAGES if page.name == "configuration")
    async with aclosing(live.events(page)) as events:

        async def parts() -> dict[str, Any]:
            while not (event := await anext(events)).startswith(b"event: parts"):
                pass
            port.clock.seconds += 2
            parts: dict[str, Any] = json.loads(event.partition(b"data: ")[2])
            return parts

        assert "config/cashier.toml" in (await parts())["state"]
        assert await parts() == {}
        port.workers = [worker(configuration=configuration_state(file="other.toml"))]
        assert "other.toml" in (await parts())["state"]


@pytest.mark.parametrize("stop", [True, False])
async def test_streams_end_when_the_port_stops_and_after_some_minutes(stop: bool) -> None:
    port = Port()
    live = LivePages(environment(), lambda _: context(port.live.overview()), port.stopping, port.clock, 0.0)
    events = live.events(next(page for page in PAGES if page.name == "methods"))
    assert (await anext(events)).startswith(b"retry:")
    assert (await anext(events)).startswith(b"event: parts")
    if stop:
        port.stopping.set()
    else:
        port.clock.seconds += LONGEST_STREAM_S
    assert [event async for event in events] == []


def test_too_many_streams_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cashier.ops.console.live_pages.MOST_STREAMS", 0)
    response = Port().client().get("/events/overview")
    assert (response.status_code, response.headers["retry-after"]) == (503, "30")


async def test_a_burst_of_streams_gets_no_more_places_than_there_are() -> None:
    port = Port()
    statuses: list[int] = []
    events: Counter[int] = Counter()
    begun = asyncio.Event()

    async def open_stream(number: int) -> None:
        async def receive() -> dict[str, Any]:
            await asyncio.Event().wait()
            raise AssertionError("the client stays")

        async def send(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])
            else:
                events[number] += 1
            if len(events) == 4 * MOST_STREAMS:
                begun.set()

        scope = {
            "type": "http",
            "method": "GET",
            "path": "/events/overview",
            "query_string": b"",
            "headers": [(b"host", b"localhost")],
        }
        await port.app(scope, receive, send)

    async with asyncio.TaskGroup() as tasks:
        for number in range(4 * MOST_STREAMS):
            tasks.create_task(open_stream(number))
        await begun.wait()
        port.stopping.set()
    assert Counter(statuses) == {200: MOST_STREAMS, 503: 3 * MOST_STREAMS}
    statuses.clear()
    await open_stream(0)
    assert statuses == [200], "the places are free again"


def test_an_unknown_stream_and_an_unknown_asset_are_not_found() -> None:
    client = Port().client()
    assert client.get("/events/nothing").status_code == 404
    assert client.get("/assets/..%2frouting.py").status_code == 404
    assert client.get("/assets/routes.py").status_code == 404


def test_a_record_is_explained_rule_by_rule() -> None:
    world = World(
        cards=(card("CMB", status="FROZEN"),),
        channels=(channel(Kind.QUICK_PAY, "CMB"),),
        promotions=(promotion(HOSTILE, 5),),
    )
    facts = recorded(evidence_of(world), world.methods(), digest_of(CATALOG, Weights()), Pseudonyms(b"k" * 32))
    port = troubled()
    port.records[0] = msgspec.structs.replace(port.records[0], facts=packed(facts))
    html = page(port, record_path(port))
    assert "CARD_FROZEN: the card must be active" in html
    assert "CARD_STATUS" in html
    assert parsed(html).forbidden == []
    assert "have changed since" not in html
    without = page(troubled(), record_path(troubled()))
    assert "No replay: the record has no facts" in without
