"""The page of an OpenAPI document: operations, parameters, schemas and examples.

It works without a network and without scripts: one response holds text and style.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib import resources
from itertools import groupby

from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup
from msgspec import Struct

from cashier.web.openapi.document_parts import Json
from cashier.web.openapi.outline import OperationOutline, Outline


class Page(Struct, frozen=True):
    """`headers`: those that a browser needs beside the content type."""

    body: bytes
    headers: dict[str, str]


class _Group(Struct, frozen=True):
    """The operations of one tag; both texts are empty for those without."""

    name: str
    text: str
    operations: tuple[OperationOutline, ...]


def render_page(document: Json, json_path: str) -> Page:
    """`json_path`: the address of the document, relative to the page's."""
    outline = Outline(document, lambda name: f"[{name}](#schema-{name})")
    texts = {tag["name"]: tag["description"] for tag in document.get("tags", ())}
    groups = tuple(
        _Group(name, texts.get(name, ""), tuple(operations))
        for name, operations in groupby(outline.operations(), key=lambda operation: operation.tag)
    )
    style = _style()
    html = (
        _environment()
        .get_template("page.html")
        .render(
            title=document["info"]["title"],
            text=document["info"]["description"],
            openapi=document["openapi"],
            json_path=json_path,
            # Ours: it has nothing to escape, and its hash is that of the very text.
            style=Markup(style),  # noqa: S704
            groups=groups,
            tables=tuple(outline.tables()),
        )
    )
    return Page(html.encode(), _headers(style))


def _headers(style: str) -> dict[str, str]:
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    )
    return {
        "content-security-policy": policy,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
    }


@cache
def _style() -> str:
    return resources.files("cashier.web.openapi").joinpath("page.css").read_text("utf-8")


@cache
def _environment() -> Environment:
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    environment = Environment(
        loader=PackageLoader("cashier.web.openapi", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=False,
    )
    # The renderer escapes what it is given, and no HTML in it passes.
    environment.filters["block"] = lambda text: Markup(_in_frames(markdown.render(text)))  # noqa: S704
    environment.filters["inline"] = lambda text: Markup(markdown.renderInline(" ".join(text.split())))  # noqa: S704
    return environment


def _in_frames(html: str) -> str:
    """Tables that scroll on their own, also by keys: a phone shows the page in its width."""
    return html.replace("<table>", '<div class="wide" tabindex="0"><table>').replace("</table>", "</table></div>")
