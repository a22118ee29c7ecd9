"""`cashier contract`: the upstream contract as documents, and those that the sandbox serves."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated

import orjson
import typer

from cashier.cli.invocation import print_json, stop
from cashier.contract.document import document
from cashier.contract.markdown import markdown
from cashier.web.openapi.page import render_page


def contract(
    openapi: Annotated[
        bool, typer.Option("--openapi", help="Print an OpenAPI 3.1 document with JSON Schemas.")
    ] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print it as Markdown.")] = False,
    source: Annotated[
        str | None, typer.Option(help="Only the calls of this source, such as card.", show_default="all")
    ] = None,
) -> None:
    """Print what the services of a company answer, call by call: the contract of each source."""
    if openapi == as_markdown:
        stop("give one of --openapi and --markdown")
    try:
        if openapi:
            print_json(document(source))
        else:
            sys.stdout.buffer.write(markdown(source).encode())
    except ValueError as error:
        stop(f"--source {error}")


@cache
def _openapi() -> tuple[Mapping[str, str], bytes]:
    return {"content-type": "application/json"}, orjson.dumps(document())


@cache
def _page() -> tuple[Mapping[str, str], bytes]:
    page = render_page(document(), "openapi.json")
    return {"content-type": "text/html; charset=utf-8", **page.headers}, page.body


# By path, for a sandbox.
SERVED: Mapping[str, Callable[[], tuple[Mapping[str, str], bytes]]] = {"/openapi.json": _openapi, "/docs": _page}
