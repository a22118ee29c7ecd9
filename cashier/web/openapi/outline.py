"""The outline of an OpenAPI document: what a person reads, as rows of tables.

The page of our API and the text of the upstream contract are made of it. Texts are Markdown.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from msgspec import Struct

from cashier.web.openapi.document_parts import Json

# More values are counted, not listed: the currencies.
_MOST_VALUES = 24
# Characters of a line of an example.
_LINE = 88
# Makes a link to the table of a schema.
Link = Callable[[str], str]


class Row(Struct, frozen=True):
    """A field of a schema or a parameter. `place`: of a parameter: path, query or header."""

    name: str
    type: str
    required: bool
    text: str
    place: str = ""


class SchemaTable(Struct, frozen=True):
    name: str
    text: str
    rows: tuple[Row, ...]


class BodyOutline(Struct, frozen=True):
    """`examples`: JSON or text by name; the only one of a body has the name ""."""

    media_type: str
    type: str
    examples: tuple[tuple[str, str], ...]


class AnswerOutline(Struct, frozen=True):
    status: str
    text: str
    headers: tuple[str, ...]
    bodies: tuple[BodyOutline, ...]


class OperationOutline(Struct, frozen=True):
    operation_id: str
    method: str
    path: str
    tag: str
    summary: str
    text: str
    security: tuple[str, ...]
    parameters: tuple[Row, ...]
    bodies: tuple[BodyOutline, ...]
    answers: tuple[AnswerOutline, ...]


class Outline:
    """Reads one document. `link`: see `Link`."""

    def __init__(self, document: Json, link: Link) -> None:
        self._document = document
        self._schemas: Mapping[str, Json] = document["components"]["schemas"]
        self._link = link

    def operations(self) -> Iterator[OperationOutline]:
        for path, operations in self._document["paths"].items():
            for method, operation in operations.items():
                yield OperationOutline(
                    operation["operationId"],
                    method.upper(),
                    path,
                    next(iter(operation.get("tags", ())), ""),
                    operation["summary"],
                    operation.get("description", ""),
                    tuple(
                        scope for each in operation.get("security", ()) for scopes in each.values() for scope in scopes
                    ),
                    tuple(map(self._parameter, operation.get("parameters", ()))),
                    tuple(self._bodies(operation.get("requestBody", {}))),
                    tuple(self._answer(status, answer) for status, answer in operation["responses"].items()),
                )

    def tables(self) -> Iterator[SchemaTable]:
        """Of all schemas with fields. Values of enumerations are listed where they are used."""
        for name, schema in self._schemas.items():
            if "properties" in schema:
                required = schema.get("required", ())
                rows = (
                    Row(field, self.type_text(part), field in required, part.get("description", ""))
                    for field, part in schema["properties"].items()
                )
                yield SchemaTable(name, schema.get("description", ""), tuple(rows))

    def type_text(self, schema: Json) -> str:
        match schema:
            case {"$ref": reference}:
                return self._named_type(reference.rpartition("/")[2])
            case {"anyOf": parts} | {"oneOf": parts}:
                return " or ".join(dict.fromkeys(self.type_text(part) for part in parts if part != {"type": "null"}))
            case {"const": value}:
                return f"`{value}`"
            case {"enum": values}:
                return _values(values)
            case {"type": "array"}:
                return f"list of {self.type_text(schema.get('items', {}))}{_bounds(schema, 'minItems', 'maxItems')}"
            case {"type": "object", "properties": properties}:
                return "object of " + ", ".join(f"`{name}`" for name in properties)
            case {"type": "object", "additionalProperties": dict(part)}:
                return f"table of {self.type_text(part)}"
            case {"type": "string", "format": "date-time"}:
                return "time"
            case {"type": "string"}:
                return str(schema.get("title", "text")) + _bounds(schema, "minLength", "maxLength")
            case {"type": kind}:
                return f"{kind}{_bounds(schema, 'minimum', 'maximum')}"
        return "any"

    def _named_type(self, name: str) -> str:
        schema = self._schemas[name]
        return self._link(name) if "properties" in schema else self.type_text(schema)

    def _parameter(self, parameter: Json) -> Row:
        return Row(
            parameter["name"],
            self.type_text(parameter["schema"]),
            parameter.get("required", False),
            parameter.get("description", ""),
            parameter["in"],
        )

    def _answer(self, status: str, answer: Json) -> AnswerOutline:
        return AnswerOutline(
            status, answer["description"], tuple(answer.get("headers", ())), tuple(self._bodies(answer))
        )

    def _bodies(self, holder: Json) -> Iterator[BodyOutline]:
        for media_type, content in holder.get("content", {}).items():
            examples = {name: each["value"] for name, each in content.get("examples", {}).items()}
            if "example" in content:
                examples[""] = content["example"]
            shown = tuple((name, _text(example)) for name, example in examples.items())
            yield BodyOutline(media_type, self.type_text(content["schema"]), shown)


def _text(example: Any) -> str:
    return example if isinstance(example, str) else _json(example, "")


def _json(value: Any, indent: str) -> str:
    """As JSON, where what fits into a line is in one line."""
    line = json.dumps(value, ensure_ascii=False)
    if len(indent) + len(line) <= _LINE or not isinstance(value, dict | list) or not value:
        return line
    deeper = indent + "  "
    if isinstance(value, list):
        parts = [_json(part, deeper) for part in value]
        return "[\n" + ",\n".join(deeper + part for part in parts) + f"\n{indent}]"
    parts = [f"{json.dumps(name)}: {_json(part, deeper)}" for name, part in value.items()]
    return "{\n" + ",\n".join(deeper + part for part in parts) + f"\n{indent}}}"


def _values(values: list[Any]) -> str:
    listed = ", ".join(f"`{value}`" for value in values[:_MOST_VALUES])
    return (
        listed
        if len(values) <= _MOST_VALUES
        else f"one of {len(values)} values: {', '.join(f'`{value}`' for value in values[:3])}, …"
    )


def _bounds(schema: Json, least: str, most: str) -> str:
    match schema.get(least), schema.get(most):
        case None, None:
            return ""
        case None, high:
            return f", at most {high:,}"
        case low, None:
            return f", at least {low:,}"
        case low, high:
            return f" {low:,} to {high:,}"
    raise AssertionError("unreachable")
