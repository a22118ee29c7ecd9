"""`cashier top`: what it prints at any width, and how it meets a port that is down or refuses."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from socket import socket

import msgspec
import pytest
from aiohttp import web
from rich.cells import cell_len
from rich.console import Console

from cashier.cli.operations_client import OperationsClient
from cashier.cli.overview_printer import overview_lines
from cashier.cli.service_client import RequestFailed
from cashier.cli.top import Screen, print_once
from cashier.ops.history import Quantiles
from cashier.ops.overview import Health, Overview
from tests.cli.overviews import sick_overview, source

WIDTHS = (46, 60, 80, 100, 120, 200)


@dataclass
class Port:
    """An operations port that answers with `body`. `tokens`: the Authorization headers so far."""

    status: int = 200
    body: bytes = field(default_factory=lambda: msgspec.json.encode(sick_overview()))
    headers: dict[str, str] = field(default_factory=dict)
    tokens: list[str | None] = field(default_factory=list)
    url: str = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.tokens.append(request.headers.get("authorization"))
        return web.Response(status=self.status, body=self.body, headers=self.headers)


@asynccontextmanager
async def listening(port: Port) -> AsyncIterator[OperationsClient]:
    application = web.Application()
    application.router.add_get("/api/overview", port.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        address = runner.addresses[0]
        port.url = f"http://{address[0]}:{address[1]}"
        yield OperationsClient(port.url, None, None)
    finally:
        await runner.cleanup()


def text(overview: Overview, width: int) -> list[str]:
    return [line.plain for line in overview_lines(overview, width)]


@pytest.mark.parametrize("width", WIDTHS)
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    for line in text(sick_overview(), width):
        assert cell_len(line) <= width or " " not in line.strip(), line


@pytest.mark.parametrize("width", WIDTHS)
def test_every_width_shows_the_sources_and_what_is_wrong(width: int) -> None:
    shown = " ".join(" ".join(text(sick_overview(), width)).split())
    for part in ("quota BAD", "DNS", "breaker open in 2 of 2 workers", "unknown 7", "1 silent", "dim_lag_ms", "+33.2"):
        assert part in shown


def test_the_worst_source_comes_first() -> None:
    given = (
        source("idle", health=Health.IDLE),
        source("good"),
        source("warn", health=Health.WARN, bad=0.02),
        source("bad", health=Health.BAD, bad=0.3),
        source("worse", health=Health.BAD, bad=0.9),
    )
    lines = text(msgspec.structs.replace(sick_overview(), sources=given), 120)
    heading = next(place for place, line in enumerate(lines) if line.startswith("source"))
    names = [line.split()[0] for line in lines[heading + 1 : heading + 6]]
    assert names == ["worse", "bad", "warn", "good", "idle"]


def test_a_service_without_traffic_and_state_is_shown() -> None:
    overview = sick_overview()
    quiet = msgspec.structs.replace(
        overview,
        attention=(),
        sources=(),
        methods=(),
        consultations=msgspec.structs.replace(
            overview.consultations, rate=0.0, outcomes={}, answered=None, within_deadline=None
        ),
        runtime=msgspec.structs.replace(overview.runtime, workers=(), loop_lag=Quantiles(), refused=()),
        payments=msgspec.structs.replace(overview.payments, configured=False),
        configuration=None,
    )
    lines = text(quiet, 80)
    assert "Nothing needs attention." in lines
    assert any("payments  not configured" in line for line in lines)


def test_a_share_is_never_rounded_to_all_or_nothing() -> None:
    overview = sick_overview()
    shares = {1.0: "100 %", 0.99996: ">99.99 %", 0.9996: "99.96 %", 0.0: "0 %", 0.00001: "<0.01 %"}
    for share, shown in shares.items():
        consultations = msgspec.structs.replace(overview.consultations, within_deadline=share)
        lines = text(msgspec.structs.replace(overview, consultations=consultations), 120)
        assert f"in time {shown}  " in lines[0]


def test_text_of_upstreams_cannot_control_the_terminal() -> None:
    evil = source("quota", health=Health.BAD, bad=0.5)
    failure = msgspec.structs.replace(evil.failures[0], detail="\x1b]0;owned\x07\x1b[2J\u202egnp.exe\nnext")
    evil = msgspec.structs.replace(evil, failures=(failure,))
    lines = text(msgspec.structs.replace(sick_overview(), sources=(evil,)), 200)
    assert all(line.isprintable() for line in lines)
    assert any("owned" in line for line in lines)


@pytest.mark.parametrize(
    ("status", "remedy"),
    [(401, "--token-file"), (403, "operations"), (404, "no operations port"), (421, "hosts"), (503, "log")],
)
async def test_a_refusal_is_said_with_its_remedy(status: int, remedy: str) -> None:
    async with listening(Port(status)) as client:
        with pytest.raises(RequestFailed, match=f"answers {status}: .*{remedy}"):
            await client.overview()


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b"[1]", b'{"at": "x"}', b"\xff\xfe"])
async def test_an_answer_of_another_form_is_a_failure(body: bytes) -> None:
    async with listening(Port(body=body)) as client:
        with pytest.raises(RequestFailed, match="another form"):
            await client.overview()


async def test_a_redirect_is_not_followed() -> None:
    async with listening(Port(302, headers={"Location": "/elsewhere"})) as client:
        with pytest.raises(RequestFailed, match="answers 302"):
            await client.overview()


async def test_a_port_that_is_down_is_said_with_its_remedy() -> None:
    with socket() as unused:
        unused.bind(("127.0.0.1", 0))
        client = OperationsClient(f"http://127.0.0.1:{unused.getsockname()[1]}", None, None)
        with pytest.raises(RequestFailed, match="cashier serve"):
            await client.overview()


async def test_a_token_file_is_read_again_at_each_request(tmp_path: Path) -> None:
    file = tmp_path / "token"
    port = Port()
    async with listening(port):
        client = OperationsClient(port.url, file, "from-elsewhere")
        for token in ("first", "second"):
            file.write_text(f"{token}\n")
            await client.overview()
    assert port.tokens == ["Bearer first", "Bearer second"]


@pytest.mark.parametrize("content", [b"two words", b"line\nbreak", b"\xff", "t\u00f6ken".encode()])
async def test_a_token_that_is_none_is_not_sent(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    port = Port()
    async with listening(port):
        with pytest.raises(RequestFailed, match="token"):
            await OperationsClient(port.url, file, None).overview()
    assert port.tokens == []


async def test_nothing_is_coloured_where_there_is_no_terminal() -> None:
    output = io.StringIO()
    async with listening(Port()) as client:
        await print_once(Console(file=output, width=100), client)
    assert "quota" in output.getvalue()
    assert "\x1b" not in output.getvalue()


def test_a_screen_keeps_the_last_overview_beside_the_fault_and_says_how_old_it_is() -> None:
    screen = Screen("http://127.0.0.1:9464", 2.0)
    screen.fault = "nothing listens"
    assert [line.plain for line in screen.lines(80)][1] == "nothing listens. Trying again every 2 s."
    screen.received(sick_overview())
    assert not any("again" in line.plain for line in screen.lines(80))
    screen.fault = "nothing listens"
    shown = [line.plain for line in screen.lines(80)]
    assert "What follows is 0 s old." in shown
    assert any("quota" in line for line in shown)
