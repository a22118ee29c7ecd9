"""The OpenAPI 3.1 document of the upstream contract, built from the table and data files."""

from __future__ import annotations

import tomllib
from collections import deque
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any

import msgspec
from msgspec import Struct

from cashier.contract.examples import examples
from cashier.contract.failure_codes import failure_codes
from cashier.contract.operations import OPERATIONS, SOURCES, Operation
from cashier.domain.money import MAX_VALUE
from cashier.domain.order import ID_PATTERN, MAX_ORDER_VALUE, Product, Terminal
from cashier.domain.pay_method import Kind
from cashier.sources.batch_call import BatchSettings
from cashier.web.openapi.document_parts import Json, convert, decode_example, fill, named
from cashier.wire.http1 import Http1Settings
from cashier.wire.request_writer import CALLER
from cashier.wire.response_parser import MAX_INTERIM_RESPONSES

_REFERENCE = "#/components/schemas/{name}"
_NO_SUCH = r"^(NOT_FOUND|[\s\S]*(_NOT_FOUND|_UNKNOWN))(?![\s\S])"
_NOT_NULL = {"not": {"type": "null"}}
_SENT_IDS = {"properties": {name: {"pattern": ID_PATTERN} for name in ("payment_id", "order_id", "merchant_id")}}
# What the decoders check beyond the types of the fields, and of what is sent the form of ids.
_RULES: Mapping[str, Json] = {
    "Inquiry": _SENT_IDS,
    "Submission": _SENT_IDS,
    "VerificationRequest": {"properties": {"payment_id": {"pattern": ID_PATTERN}}},
    "ResendRequest": {"properties": {"payment_id": {"pattern": ID_PATTERN}}},
    "Order": {"properties": {"amount": {"properties": {"value": {"maximum": MAX_ORDER_VALUE}}}}},
    "NotFound": {"properties": {"code": {"anyOf": [{"pattern": _NO_SUCH}, {"type": "null"}]}}},
    "UnknownPayment": {"properties": {"code": {"pattern": _NO_SUCH}}},
    "Decision": {
        "if": {"properties": {"decision": {"const": "CHALLENGE"}}},
        "then": {"required": ["challenge"], "properties": {"challenge": _NOT_NULL}},
        "else": {"properties": {"challenge": {"type": "null"}}},
    },
    "EnginePayment": {
        "allOf": [
            {
                "if": {"properties": {"status": {"const": "ACTION_REQUIRED"}}},
                "then": {"required": ["next_action"], "properties": {"next_action": _NOT_NULL}},
            },
            {
                "if": {"properties": {"status": {"not": {"const": "FAILED"}}}},
                "then": {"properties": {"failure": {"type": "null"}}},
            },
        ]
    },
}
_RETRY_AFTER = {
    "Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 0}},
}


class _Otherwise(Struct, frozen=True, forbid_unknown_fields=True):
    overloaded: str
    failed: str
    other: str


class _OperationText(Struct, frozen=True, forbid_unknown_fields=True):
    summary: str
    answers: dict[str, str]
    otherwise: str
    description: str | None = None


class _SourceText(Struct, frozen=True, forbid_unknown_fields=True):
    summary: str
    description: str = ""
    batch_path: str | None = None


class _ContractText(Struct, frozen=True, forbid_unknown_fields=True):
    """contract.toml."""

    document: Json
    headers: dict[str, Json]
    parameters: dict[str, Json]
    otherwise: dict[str, _Otherwise]
    sources: dict[str, _SourceText]
    operations: dict[str, _OperationText]


def document(source: str | None = None) -> Json:
    """The document of all services, or of one source. ValueError for a name that is no source."""
    if source is not None and source not in SOURCES:
        raise ValueError(f"{source!r} is no source, but {', '.join(SOURCES)}")
    built = _Builder().document()
    return built if source is None else part_of(built, source)


def _values() -> dict[str, str | int]:
    """What the data may name as `${name}`."""
    bounds = Http1Settings()
    batch = BatchSettings(path="/")
    return {
        "caller": CALLER,
        "id_pattern": ID_PATTERN,
        "max_minor_units": MAX_VALUE,
        "max_body": f"{bounds.max_body_bytes >> 20} MiB",
        "max_head": f"{bounds.max_head_bytes >> 10} KiB",
        "max_headers": bounds.max_headers,
        "max_interim": MAX_INTERIM_RESPONSES,
        "batch_max": batch.max,
        "batch_wait_ms": batch.wait_ms,
        "kinds": ", ".join(f"`{kind}`" for kind in Kind),
        "products": ", ".join(f"`{product}`" for product in Product),
        "terminals": ", ".join(f"`{terminal}`" for terminal in Terminal),
        "failure_codes": _failure_table(),
    }


def _failure_table() -> str:
    rows = ["| code | status | message | counts against the channel | drops |", "|---|---|---|---|---|"]
    for each in failure_codes():
        drops = ", ".join(each.drops) or "–"
        rows.append(f"| `{each.code}` | `{each.status}` | `{each.message}` | {each.blames_channel} | {drops} |")
    return "\n".join(rows)


class _Builder:
    def __init__(self) -> None:
        folder = resources.files("cashier.contract")
        values = _values()
        raw = fill(tomllib.loads(folder.joinpath("contract.toml").read_text("utf-8")), values)
        self._text = convert("contract.toml", raw, _ContractText)
        self._rules = fill(folder.joinpath("rules.md").read_text("utf-8"), values)
        self._fields = tomllib.loads(folder.joinpath("fields.toml").read_text("utf-8"))
        self._examples = examples()
        self._schemas = self._described_schemas()

    def document(self) -> Json:
        paths: dict[str, Json] = {}
        for operation in OPERATIONS:
            paths.setdefault(operation.path, {})[operation.method.lower()] = self._operation(operation)
            if operation.batch is not None:
                paths[self._batch_path(operation)] = {"post": self._batch(operation)}
        info = self._text.document["info"] | {"description": self._rules}
        return {
            **self._text.document,
            "info": info,
            "tags": [self._tag(source) for source in SOURCES],
            "paths": paths,
            "components": {"schemas": self._schemas},
        }

    def _tag(self, source: str) -> Json:
        text = named("source", self._text.sources, source)
        return {"name": source, "description": "\n\n".join(filter(None, (text.summary, text.description.strip())))}

    def _operation(self, operation: Operation) -> Json:
        text = named("operation", self._text.operations, operation.operation_id)
        built: Json = {"operationId": operation.operation_id, "tags": [operation.source], "summary": text.summary}
        if text.description is not None:
            built["description"] = text.description
        built["parameters"] = [*self._parameters(operation), *self._call_headers()]
        if operation.body is not None:
            content = self._content(operation.operation_id, "body", operation.body)
            built["requestBody"] = {"required": operation.body_required, "content": content}
        if {str(status) for status in operation.answers} != text.answers.keys():
            raise ValueError(f"contract.toml: {operation.operation_id}: answers other than {list(operation.answers)}")
        answers = {str(status): self._answer(operation, status, struct) for status, struct in operation.answers.items()}
        return built | {"responses": answers | self._otherwise(text)}

    def _parameters(self, operation: Operation) -> Iterator[Json]:
        places = dict.fromkeys(operation.path_parameters, "path")
        places |= dict.fromkeys(operation.query, "query") | dict.fromkeys(operation.headers, "header")
        for name, place in places.items():
            yield {"name": name, "in": place, "required": True, **named("parameter", self._text.parameters, name)}

    def _call_headers(self) -> Iterator[Json]:
        for name, header in self._text.headers.items():
            yield {"name": name, "in": "header", **header}

    def _answer(self, operation: Operation, status: int, struct: type[Struct] | None) -> Json:
        text = self._text.operations[operation.operation_id].answers[str(status)]
        if struct is None:
            return {"description": text}
        return {"description": text, "content": self._content(operation.operation_id, str(status), struct)}

    def _otherwise(self, text: _OperationText) -> Json:
        otherwise = named("meaning of other statuses", self._text.otherwise, text.otherwise)
        overloaded = {"description": otherwise.overloaded, "headers": _RETRY_AFTER}
        return {
            "429": overloaded,
            "503": overloaded,
            "5XX": {"description": otherwise.failed},
            "default": {"description": otherwise.other},
        }

    def _content(self, operation_id: str, name: str, struct: type[Struct]) -> Json:
        example = named("example", named("example", self._examples, operation_id), name)
        decode_example(f"{operation_id} {name}", example, struct)
        reference = {"$ref": _REFERENCE.format(name=struct.__name__)}
        return {"application/json": {"schema": reference, "example": example}}

    def _batch_path(self, operation: Operation) -> str:
        path = named("source", self._text.sources, operation.source).batch_path
        if path is None:
            raise ValueError(f"contract.toml: {operation.source} has a batch form, and no batch_path")
        return path

    def _batch(self, operation: Operation) -> Json:
        """The batch form of a read. Its example has an answer of each form."""
        parameters = {name: self._text.parameters[name] for name in operation.batch or ()}
        single = self._examples[operation.operation_id]
        request: Json = {name: parameter["example"] for name, parameter in parameters.items()}
        part = {"oneOf": [_object({"ok": _reference(operation.answer)}), _object({"error": _BATCH_ERROR})]}
        asked = _object({name: parameter["schema"] for name, parameter in parameters.items()})
        body = {
            "schema": _object({"requests": {"type": "array", "minItems": 1, "items": asked}}),
            "example": {"requests": [request, request]},
        }
        answer = {
            "schema": _object({"answers": {"type": "array", "items": part}}),
            "example": {"answers": [{"ok": single["200"]}, {"error": {"status": 404, **single["404"]}}]},
        }
        text = self._text.operations[operation.operation_id]
        return {
            "operationId": f"{operation.source}_batch",
            "tags": [operation.source],
            "summary": f"{text.summary} Several at once: the batch form.",
            "description": "Optional. The path is the service's choice: `batch.path` in the configuration.",
            "parameters": [*self._call_headers()],
            "requestBody": {"required": True, "content": {"application/json": body}},
            "responses": {
                "200": {
                    "description": "One answer for each request, in their order.",
                    "content": {"application/json": answer},
                },
                **self._otherwise(text),
            },
        }

    def _described_schemas(self) -> dict[str, Json]:
        structs = dict.fromkeys(struct for each in OPERATIONS for struct in (each.body, *each.answers.values()))
        _, schemas = msgspec.json.schema_components(filter(None, structs), ref_template=_REFERENCE)
        with_fields = {name for name, schema in schemas.items() if "properties" in schema}
        if with_fields != self._fields.keys():
            raise ValueError(f"fields.toml: not the structs of the contract: {with_fields ^ self._fields.keys()}")
        return {name: self._described(name, schema) for name, schema in sorted(schemas.items())}

    def _described(self, name: str, schema: Json) -> Json:
        """With the text of each field. Docstrings are for readers of the code and left out."""
        schema = {key: value for key, value in schema.items() if key != "description"}
        if "properties" not in schema:
            return schema
        texts, properties = self._fields[name], schema["properties"]
        if properties.keys() != texts.keys():
            raise ValueError(f"fields.toml: not the fields of {name}: {properties.keys() ^ texts.keys()}")
        # The description of a type is its title here.
        titles = {field: {"title": part["description"]} for field, part in properties.items() if "description" in part}
        schema["properties"] = {
            field: part | titles.get(field, {}) | {"description": texts[field]} for field, part in properties.items()
        }
        return schema | ({"allOf": [_RULES[name]]} if name in _RULES else {})


_BATCH_ERROR: Json = {
    "type": "object",
    "required": ["status"],
    "properties": {
        "status": {"type": "integer", "description": "the status of a single call"},
        "code": {"type": "string", "description": "as in the body of a 404"},
    },
}


def _object(properties: Json) -> Json:
    return {"type": "object", "required": list(properties), "properties": properties}


def _reference(struct: type[Struct]) -> Json:
    return {"$ref": _REFERENCE.format(name=struct.__name__)}


def part_of(whole: Json, source: str) -> Json:
    """The part of the document that is about one source, its schemas in the order of their use."""
    paths = {
        path: kept
        for path, operations in whole["paths"].items()
        if (kept := {method: each for method, each in operations.items() if source in each["tags"]})
    }
    schemas, reached = whole["components"]["schemas"], dict[str, Json]()
    waiting = deque(_references(paths))
    while waiting:
        name = waiting.popleft()
        if name not in reached:
            reached[name] = schemas[name]
            waiting += _references(schemas[name])
    tags = [tag for tag in whole["tags"] if tag["name"] == source]
    return whole | {"tags": tags, "paths": paths, "components": {"schemas": reached}}


def _references(part: Any) -> Iterator[str]:
    match part:
        case dict():
            if isinstance(part.get("$ref"), str):
                yield part["$ref"].rpartition("/")[2]
            for value in part.values():
                yield from _references(value)
        case list():
            for value in part:
                yield from _references(value)
