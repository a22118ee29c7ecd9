"""The commands at an address where something else answers: one clear line, and exit status 1."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from socketserver import StreamRequestHandler, TCPServer
from typing import Any

import pytest
from typer.testing import CliRunner

from cashier.cli.commands import cli

AT_A_SERVICE = (
    ("consult", "--case", "chinese_shop"),
    ("consult", "--case", "chinese_shop", "--stream"),
    ("pay",),
    ("pay", "--json"),
    ("payment", "pay_1", "--token", "t"),
    ("payment", "pay_1", "--token", "t", "--cancel"),
    ("attempt",),
    ("attempt", "--resume"),
    ("attempt", "--replace"),
    ("why", "--case", "chinese_shop"),
)
AT_A_SANDBOX = (
    ("weather", "quota"),
    ("weather", "quota", "hang"),
    ("weather", "quota", "hang", "--next"),
)
AT_OPERATIONS = (("top", "--once"), ("why", "--ops"), ("why", "--order-id", "o_1", "--ops"))
JSON = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"
DEEP = b'{"methods":' * 3_000 + b"1" + b"}" * 3_000


def json(body: bytes, status: bytes = b"200 OK") -> bytes:
    return JSON % (status, len(body), body)


def stream(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n" + body


def redirect(location: bytes) -> bytes:
    return b"HTTP/1.1 307 Temporary\r\nLocation: %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % location


OTHER_DOCUMENTS = {
    "empty": json(b"{}"),
    "of another framework": json(b'{"detail":"Not Found"}', b"404 Not Found"),
    "with a number for a status": json(b'{"status":404,"error":"Not Found"}', b"404 Not Found"),
    "with our words": json(b'{"status":"SUCCEEDED","outcome":"COMPLETE","methods":[1],"sources":[{}]}'),
    "with texts for objects": json(b'{"order":"o","blocked":"b","methods":"m","sources":"s","quota":"q"}'),
}
OTHER_HTTP = {
    "a list": json(b"[]"),
    "no JSON": json(b"<html>"),
    "deep JSON": json(DEEP),
    "JSON in Latin-1": json(b'{"a":"\xff"}'),
    "half an answer": b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{}",
    "a wrong encoding": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
    "TLS": b"\x15\x03\x01\x00\x02\x02\x46",
    "nothing": b"",
    "a redirect to no address": redirect(b"http://["),
    "a redirect to another scheme": redirect(b"ftp://x/"),
    "a redirect to itself": redirect(b"/"),
}
OTHER_STREAMS = {
    "empty": stream(b""),
    "of other events": stream(b"event: answer\ndata: {}\n\nevent: end\ndata: {}\n\n"),
    "an error without its fields": stream(b"event: error\ndata: {}\n\n"),
    "no JSON": stream(b"event: answer\ndata: nope\n\n"),
    "Latin-1": stream(b"event: answer\ndata: \xff\n\n"),
    "a line without an end": stream(b"data: " + b"x" * 3_000_000),
}


def pairs(commands: Sequence[tuple[str, ...]], answers: Iterable[str]) -> list[Any]:
    """All of them; of those that run by default, each command and each answer has one."""
    names = list(answers)
    usual = {(at % len(commands), at % len(names)) for at in range(max(len(commands), len(names)))}
    return [
        pytest.param(
            words,
            name,
            marks=() if (at, place) in usual else (pytest.mark.proof,),
            id=f"{' '.join(words)}: {name}",
        )
        for at, words in enumerate(commands)
        for place, name in enumerate(names)
    ]


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    class Handler(StreamRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):  # the command has left
                while self.rfile.readline(65_536).strip():
                    pass
                self.wfile.write(answer)

    with TCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def line(answer: bytes, words: tuple[str, ...]) -> tuple[str, str]:
    """What the command says in the end, and the address."""
    with answering(answer) as url:
        end = (url,) if words[-1] == "--ops" else ("--url", url)
        result = CliRunner().invoke(cli, [*words, *end])
    assert isinstance(result.exception, SystemExit), (words, result.exception)
    assert result.exit_code == 1, result.output
    return result.output.strip().splitlines()[-1], url


@pytest.mark.parametrize(("words", "answer"), pairs(AT_A_SERVICE + AT_A_SANDBOX, OTHER_DOCUMENTS))
def test_a_document_of_another_program_is_told_from_an_answer(words: tuple[str, ...], answer: str) -> None:
    said, url = line(OTHER_DOCUMENTS[answer], words)
    assert said.startswith(f"{url} answers in another form, maybe of another version or program")


@pytest.mark.parametrize(("words", "answer"), pairs(AT_A_SERVICE + AT_A_SANDBOX + AT_OPERATIONS, OTHER_HTTP))
def test_what_is_no_answer_is_not_blamed_on_the_address(words: tuple[str, ...], answer: str) -> None:
    said, _ = line(OTHER_HTTP[answer], words)
    assert "is not an address" not in said


@pytest.mark.parametrize("answer", OTHER_STREAMS)
def test_a_stream_of_another_program_is_told_from_an_answer(answer: str) -> None:
    said, url = line(OTHER_STREAMS[answer], ("consult", "--case", "chinese_shop", "--stream"))
    assert url in said
    assert "is not an address" not in said


@pytest.mark.parametrize(
    "words",
    [
        ("payment", "pay_1", "--token", "a\nb"),
        ("why", "--case", "chinese_shop", "--token", "a\nb"),
        ("attempt", "--order-id", "\udcff"),
        ("why", "--order-id", "\udcff", "--ops"),
    ],
    ids=ascii,
)
def test_a_token_or_id_that_cannot_be_sent_is_not_blamed_on_the_address(words: tuple[str, ...]) -> None:
    said, url = line(json(b"{}"), words)
    assert said == "a token or id cannot be sent: it has a line break or another odd character"
    assert url not in said


@pytest.mark.parametrize(
    "words",
    [
        (*command, "--amount", f"CNY:{'9' * 5_000}")
        for command in (
            ("consult",),
            ("pay",),
            ("why", "--order-id", "o_1"),
            ("probe", "--order-id", "o_1"),
            ("conform",),
        )
    ],
    ids=lambda words: words[0],
)
def test_an_amount_of_too_many_digits_is_refused(words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(cli, [*words])
    assert isinstance(result.exception, SystemExit)
    assert "is not an amount" in result.output
