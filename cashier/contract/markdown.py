"""The contract as Markdown, for a repository, a printer or a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby

from cashier.contract.document import document, part_of
from cashier.contract.source_facts import PAYMENT, SOURCE_FACTS, asked_table
from cashier.web.openapi.document_parts import Json
from cashier.web.openapi.outline import AnswerOutline, BodyOutline, OperationOutline, Outline, Row, SchemaTable

_MADE = "<!-- Made by `cashier contract --markdown`: change the data of cashier/contract instead. -->"


def markdown(source: str | None = None) -> str:
    """The whole contract, or that of one source. ValueError for a name that is no source."""
    built = document(source)
    outline = Outline(built, lambda name: f"[{name}](#{name.lower()}-fields)")
    operations = list(outline.operations())
    parts = [_MADE, f"# {built['info']['title']}", built["info"]["description"].strip()]
    parts += ["## Services", "\n".join(_index(operations))]
    consulted = [tag["name"] for tag in built["tags"] if SOURCE_FACTS[tag["name"]].cache is not None]
    if consulted:
        parts += ["## What the sources are asked", asked_table(consulted)]
    tables = {table.name: table for table in outline.tables()}
    written: set[str] = set()
    for tag in built["tags"]:
        parts += _source(tag, [each for each in operations if each.tag == tag["name"]])
        own = part_of(built, tag["name"])["components"]["schemas"]
        parts += _tables([tables[name] for name in own if name in tables and name not in written])
        written |= own.keys()
    return "\n\n".join(parts) + "\n"


def _index(operations: Sequence[OperationOutline]) -> Iterator[str]:
    yield "| source | class | request | |"
    yield "|---|---|---|---|"
    for each in operations:
        importance = SOURCE_FACTS[each.tag].importance
        shown = "of a payment" if importance == PAYMENT else importance
        yield f"| [`{each.tag}`](#{each.tag}) | {shown} | `{each.method} {each.path}` | {each.summary} |"


def _source(tag: Json, operations: Sequence[OperationOutline]) -> Iterator[str]:
    yield f"## {tag['name']}"
    yield _wrapped(tag["description"])
    for operation in operations:
        if operation.operation_id == f"{tag['name']}_batch":
            yield f"Batch form: `{operation.method} {operation.path}`, see [above](#batch-form)."
            continue
        yield f"### `{operation.method} {operation.path}`"
        yield _wrapped(f"{operation.summary} {operation.text}")
        own = [row for row in operation.parameters if row.place in ("path", "query") or row.name == "Idempotency-Key"]
        if own:
            yield "\n".join(_rows("parameter", own))
        for body in operation.bodies:
            yield from _examples(body, f"Sent, as {body.type}:")
        yield "\n".join(_answers(operation.answers))
        for answer in operation.answers:
            for body in answer.bodies:
                yield from _examples(body, f"Example of a {answer.status}:")


def _answers(answers: Sequence[AnswerOutline]) -> Iterator[str]:
    yield "| status | body | meaning |"
    yield "|---|---|---|"
    for text, alike in groupby(answers, key=lambda answer: _one_line(answer.text)):
        same = list(alike)
        statuses = ", ".join("any other" if answer.status == "default" else answer.status for answer in same)
        bodies = ", ".join(body.type for body in same[0].bodies)
        yield f"| {statuses} | {bodies} | {text} |"


def _examples(body: BodyOutline, title: str) -> Iterator[str]:
    for _, example in body.examples:
        yield title
        yield f"```json\n{example}\n```"


def _tables(tables: Sequence[SchemaTable]) -> Iterator[str]:
    for table in tables:
        yield f"#### `{table.name}` fields"
        yield "\n".join(_rows("field", table.rows))


def _rows(first: str, rows: Sequence[Row]) -> Iterator[str]:
    yield f"| {first} | type | required | |"
    yield "|---|---|---|---|"
    for row in rows:
        yield f"| `{row.name}` | {row.type} | {'yes' if row.required else 'no'} | {_one_line(row.text)} |"


def _wrapped(text: str) -> str:
    """Paragraphs in lines of a page; tables as they are."""
    blocks = text.strip().split("\n\n")
    return "\n\n".join(block if block.startswith("|") else _filled(block) for block in blocks)


def _filled(paragraph: str) -> str:
    return textwrap.fill(paragraph, 100, break_long_words=False, break_on_hyphens=False)


def _one_line(text: str) -> str:
    return " ".join(text.split())
