"""Each recipe of the cookbook reads the answer beside it, and lets no other one pass."""

from __future__ import annotations

import hmac
import re
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import pytest

import cashier.sources
from cashier.source_errors import Garbled, Overloaded, SourceError, Unreachable, WrongIdentity
from cashier.sources.adapter_settings import AdapterSettings
from cashier.wire.transport import Response
from tests.sources.adapter_rig import AnsweringTransport, outcome_of

PAGE = (Path(cashier.sources.__file__).parent / "cookbook.md").read_text("utf-8")
PREAMBLE, *SECTIONS = PAGE.split("\n## ")
OPTIONS = {"app": "cashier", "secret": "k" * 32}
JSON_POST = ("Content-Type", "application/json")


class Recipe(NamedTuple):
    """`answers`: of the service, one per request."""

    source: str
    code: str
    answers: list[bytes]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def recipe(section: str) -> Recipe:
    (code,) = blocks(section, "python")
    (name,) = re.findall(r"^class (\w+):", code, re.MULTILINE)
    source = {"Orders": "order", "Promotions": "marketing"}.get(name, name.removesuffix("s").lower())
    answers = [line.encode() for block in blocks(section, "json") for line in block.splitlines()]
    return Recipe(source, code, answers or [block.strip().encode("gbk") for block in blocks(section, "xml")])


RECIPES = {section.partition("\n")[0]: recipe(section) for section in SECTIONS}


def adapter_of(title: str) -> Any:
    module: dict[str, Any] = {}
    exec(blocks(PREAMBLE, "python")[0] + RECIPES[title].code, module)  # noqa: S102 - the recipe of the page
    (made,) = (value for value in module.values() if isinstance(value, type) and value.__module__ == "builtins")
    source = RECIPES[title].source
    return made(AdapterSettings(source, OPTIONS, "")) if "__init__" in vars(made) else made()


async def read(title: str, *responses: Response) -> tuple[Any, bool, AnsweringTransport]:
    transport = AnsweringTransport(*responses)
    outcome, none, _ = await outcome_of(adapter_of(title), transport, RECIPES[title].source)
    return outcome, none, transport


def answering(title: str) -> list[Response]:
    return [Response(200, answer) for answer in RECIPES[title].answers]


@pytest.mark.parametrize("title", RECIPES)
async def test_a_recipe_reads_the_answer_beside_it(title: str) -> None:
    outcome, none, transport = await read(title, *answering(title))
    assert not isinstance(outcome, SourceError), outcome.detail
    assert not none
    assert len(transport.requests) == len(RECIPES[title].answers)
    assert all("u_2" not in request.target for request in transport.requests)


@pytest.mark.parametrize("title", RECIPES)
async def test_another_subject_or_another_shape_is_no_answer(title: str) -> None:
    subject = {"order": b"o_1", "merchant": b"m_1"}.get(RECIPES[title].source, b"u_1")
    first = RECIPES[title].answers[0]
    outcome, none, _ = await read(title, Response(200, first.replace(subject, subject[:2] + b"99")))
    assert (type(outcome), none) == (Garbled if title == "Signed parameters" else WrongIdentity, False)
    for body in (b"", b"{}", b"<html></html>", b"null", b'{"code": null}'):
        outcome, none, _ = await read(title, Response(200, body))
        assert isinstance(outcome, Garbled), (body, outcome)
        assert not none


@pytest.mark.parametrize("title", RECIPES)
async def test_a_service_that_is_down_is_not_a_subject_that_there_is_not(title: str) -> None:
    outcome, none, _ = await read(title, Response(502, b"<html>Bad Gateway</html>"))
    assert (type(outcome), none) == (Unreachable, False)


@pytest.mark.parametrize(
    ("title", "response", "expected"),
    [
        ("Another JSON shape", Response(404, b""), None),
        ("Envelope codes", Response(200, b'{"code": 40401, "msg": "none"}'), None),
        ("Envelope codes", Response(200, b'{"code": 50300}'), Overloaded),
        ("Envelope codes", Response(200, b'{"code": 1, "msg": "4111111111111111"}'), Garbled),
        ("Paged lists", Response(404, b"{}"), Garbled),
        ("GraphQL", Response(200, b'{"data": {"merchant": null}}'), None),
        ("GraphQL", Response(200, b'{"errors": [{"message": "x", "extensions": {"code": "DENIED"}}]}'), Garbled),
        ("Connect", Response(404, b'{"code": "not_found"}'), None),
        ("Connect", Response(404, b"<html>no route</html>"), Garbled),
        ("Connect", Response(429, b'{"code": "resource_exhausted"}'), Overloaded),
        ("Dubbo Triple", Response(404, b""), Garbled),
        ("XML in GBK", Response(200, b"<rsp><head><retCode>E404</retCode></head></rsp>"), None),
        ("XML in GBK", Response(200, b"<rsp><head><retCode>E500</retCode></head></rsp>"), Garbled),
        ("XML in GBK", Response(200, b'<!DOCTYPE x [<!ENTITY a "aaaa">]><rsp>&a;</rsp>'), Garbled),
    ],
)
async def test_what_a_service_says_otherwise(title: str, response: Response, expected: Any) -> None:
    outcome, none, _ = await read(title, response)
    if expected is None:
        assert none
    else:
        assert type(outcome) is expected
        assert "4111" not in outcome.detail


async def test_pages_are_joined_in_their_order() -> None:
    cards, _, transport = await read("Paged lists", *answering("Paged lists"))
    assert [card.card_id for card in cards.cards] == ["c_1", "c_2"]
    assert [request.target for request in transport.requests] == [
        "/cards?user=u_1&cursor=",
        "/cards?user=u_1&cursor=p2",
    ]
    endless, _, transport = await read("Paged lists", answering("Paged lists")[0])
    assert isinstance(endless, SourceError)
    assert len(transport.requests) == 64


@pytest.mark.parametrize("title", ["GraphQL", "Connect", "Dubbo Triple"])
async def test_what_a_post_asks_is_in_its_body(title: str) -> None:
    _, _, transport = await read(title, *answering(title))
    (request,) = transport.requests
    subject = b"m_1" if title == "GraphQL" else b"u_1"
    assert (request.method, subject in (request.body or b"")) == ("POST", True)
    assert JSON_POST in request.headers


async def test_a_sign_covers_what_is_sent_and_what_is_read() -> None:
    promotions, _, transport = await read("Signed parameters", *answering("Signed parameters"))
    assert [promotion.promotion_id for promotion in promotions.promotions] == ["p_1"]
    sent = {name: values[0] for name, values in parse_qs(urlsplit(transport.requests[0].target).query).items()}
    text = "&".join(f"{name}={value}" for name, value in sorted(sent.items()) if name != "sign")
    assert sent["sign"] == hmac.new(b"k" * 32, text.encode(), "sha256").hexdigest()
    changed = RECIPES["Signed parameters"].answers[0].replace(b"1000}", b"9000}")
    outcome, _, _ = await read("Signed parameters", Response(200, changed))
    assert isinstance(outcome, Garbled)


def test_the_table_of_the_page_leads_to_each_recipe() -> None:
    assert re.findall(r"\| \[([^\]]+)\]\(#", PREAMBLE) == list(RECIPES)
