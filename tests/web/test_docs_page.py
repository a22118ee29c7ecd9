"""The page of the API shows the whole document, without a network or scripts."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from cashier.contract.document import document as contract
from cashier.web import app
from cashier.web.openapi import document
from cashier.web.openapi.page import render_page
from tests.web.asgi_client import CapturedResponse, call
from tests.web.fake_service import FakeService


class Reader(HTMLParser):
    """`tags` with their attributes, `ids`, `links` and the visible `text`."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def attributes(self, name: str) -> list[str]:
        return [value for _, attributes in self.tags if (value := attributes.get(name)) is not None]


async def fetch() -> CapturedResponse:
    return await call(app(FakeService()), b"", method="GET", path="/docs", headers={})


DOCUMENTS: dict[str, Any] = {"api": json.loads(document(65_536, secured=True)), "contract": contract()}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_page_shows_every_operation_parameter_status_field_and_example(name: str) -> None:
    built = DOCUMENTS[name]
    reader = Reader(render_page(built, "openapi.json").body.decode())
    for path, operations in built["paths"].items():
        for operation in operations.values():
            assert operation["operationId"] in reader.attributes("id")
            assert path in reader.text
            for parameter in operation.get("parameters", ()):
                assert parameter["name"] in reader.text
            bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
            for content in (part for body in bodies for part in body.get("content", {}).values()):
                assert not isinstance(content.get("example"), dict) or next(iter(content["example"])) in reader.text
                assert all(code in reader.text for code in content.get("examples", ()))
    for schema, part in built["components"]["schemas"].items():
        assert ("properties" not in part) or f"schema-{schema}" in reader.attributes("id")
        assert all(field in reader.text for field in part.get("properties", ()))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_page_stands_alone_and_each_link_leads_somewhere(name: str) -> None:
    page = render_page(DOCUMENTS[name], "openapi.json")
    reader = Reader(page.body.decode())
    assert {tag for tag, _ in reader.tags} & {"script", "link", "img", "iframe", "form"} == set()
    assert reader.attributes("src") == reader.attributes("style") == []
    ids = reader.attributes("id")
    assert len(ids) == len(set(ids))
    inside = {link for link in reader.attributes("href") if link != "openapi.json"}
    assert inside <= {f"#{each}" for each in ids} | {"#batch-form"}
    assert len(gzip.compress(page.body)) <= 40_000


async def test_a_browser_may_use_the_pages_own_style_and_nothing_else() -> None:
    response = await fetch()
    assert response.status == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["cache-control"] == "no-store"
    policy = response.headers["content-security-policy"]
    [style] = re.findall(r"<style>(.*?)</style>", response.body.decode(), re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.split("; ")[:2] == ["default-src 'none'", f"style-src 'sha256-{digest}'"]
    assert "prefers-color-scheme: dark" in style


def test_a_text_of_a_document_cannot_break_out_of_the_page() -> None:
    evil = "<script>alert(1)</script> [x](javascript:alert(1)) ![y](https://evil.example/a.png)"
    built = json.loads(json.dumps(DOCUMENTS["contract"]))
    built["info"]["title"] = built["info"]["description"] = evil
    operation = built["paths"]["/channels"]["get"]
    operation["summary"] = operation["responses"]["200"]["description"] = evil
    operation["responses"]["200"]["content"]["application/json"]["example"] = {evil: evil}
    built["components"]["schemas"]["Money"]["properties"]["value"]["description"] = evil
    reader = Reader(render_page(built, "openapi.json").body.decode())
    assert not {tag for tag, _ in reader.tags} & {"script", "img"}
    assert not any(link.startswith("javascript:") for link in reader.attributes("href"))
