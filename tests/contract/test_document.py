"""The document of the contract says what the decoders do, field by field."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator, FormatChecker  # type: ignore[import-untyped]
from openapi_spec_validator import validate
from typer.testing import CliRunner

import cashier.contract
from cashier.cli.commands import cli
from cashier.contract import OPERATIONS
from cashier.contract import document as builder
from cashier.contract import examples as example_data
from cashier.contract.document import document
from cashier.contract.failure_codes import failure_codes
from cashier.contract.markdown import markdown
from cashier.domain.status_resolution import CLOSED_CODES
from cashier.sources.batch_call import BatchWireUpstream
from cashier.wire.http1 import Http1Client
from cashier.wire.transport import Response
from tests.contract.test_operations import SOURCES as PARSERS

DOCUMENT = document()
EXAMPLES = example_data.examples()
CHECKER = FormatChecker()
# By struct of a body: an example of it.
BODIES: dict[type[msgspec.Struct], Any] = {
    struct: EXAMPLES[operation.operation_id][name]
    for operation in OPERATIONS
    for name, struct in (("body", operation.body), *((str(code), each) for code, each in operation.answers.items()))
    if struct is not None
}
ANSWERS = {struct: body for struct, body in BODIES.items() if not any(struct is each.body for each in OPERATIONS)}


WRONG: tuple[Any, ...] = (None, 3.5, [], {}, "", -1)


def accepted_by_schema(struct: type[msgspec.Struct], body: Any) -> bool:
    root = {"$ref": f"#/components/schemas/{struct.__name__}", "components": DOCUMENT["components"]}
    return bool(Draft202012Validator(root, format_checker=CHECKER).is_valid(body))


def accepted_by_decoder(struct: type[msgspec.Struct], body: Any) -> bool:
    try:
        msgspec.json.decode(json.dumps(body).encode(), type=struct)
    except msgspec.ValidationError:
        return False
    return True


def structs(found: msgspec.inspect.Type) -> Iterator[msgspec.inspect.StructType]:
    if isinstance(found, msgspec.inspect.StructType):
        yield found
        for field in found.fields:
            yield from structs(field.type)
    for part in getattr(found, "types", ()):
        yield from structs(part)
    for name in ("type", "item_type", "value_type"):
        if isinstance(part := getattr(found, name, None), msgspec.inspect.Type):
            yield from structs(part)


STRUCTS = {each.cls: each for body in BODIES for each in structs(msgspec.inspect.type_info(body))}


def test_the_document_is_valid_openapi() -> None:
    validate(DOCUMENT)
    validate(document("engine"))


def test_each_operation_is_in_the_document_and_each_other_path_is_a_batch_form() -> None:
    documented = {
        (each["operationId"], method.upper(), path)
        for path, methods in DOCUMENT["paths"].items()
        for method, each in methods.items()
    }
    known = {(each.operation_id, each.method, each.path) for each in OPERATIONS}
    assert known <= documented
    batches = {f"{each.source}_batch" for each in OPERATIONS if each.batch is not None}
    assert {operation_id for operation_id, _, _ in documented - known} == batches


def test_each_operation_has_the_parameters_headers_and_statuses_of_the_table() -> None:
    for operation in OPERATIONS:
        built = DOCUMENT["paths"][operation.path][operation.method.lower()]
        parameters = {(each["in"], each["name"]) for each in built["parameters"]}
        always = {
            ("header", name) for name in ("X-Request-Id", "X-Caller", "X-Deadline-Ms", "traceparent", "tracestate")
        }
        own = {("path", name) for name in operation.path_parameters} | {("query", name) for name in operation.query}
        assert parameters == always | own | {("header", name) for name in operation.headers}
        assert ("requestBody" in built) is (operation.body is not None)
        others = {"429", "503", "5XX", "default"}
        assert built["responses"].keys() == {str(status) for status in operation.answers} | others
        assert built["responses"]["429"]["headers"].keys() == {"Retry-After"}


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: struct.__name__)
def test_each_field_of_a_struct_is_in_its_schema_and_back(struct: type[msgspec.Struct]) -> None:
    schema = DOCUMENT["components"]["schemas"][struct.__name__]
    tag = {STRUCTS[struct].tag_field} - {None}
    assert schema["properties"].keys() - tag == {field.encode_name for field in STRUCTS[struct].fields}
    required = {field.encode_name for field in STRUCTS[struct].fields if field.required}
    assert set(schema.get("required", ())) - tag == required
    for field, part in schema["properties"].items():
        assert part["description"]
        if field not in required | tag:
            assert "absent" in part["description"].lower(), f"what the absence of {field} means"


@pytest.mark.parametrize("struct", ANSWERS, ids=lambda struct: struct.__name__)
def test_schema_and_decoder_accept_and_refuse_the_same_answers(struct: type[msgspec.Struct]) -> None:
    example = ANSWERS[struct]
    bodies = [example, example | {"later": {"field": 1}}, [], "text", None]
    for field in msgspec.structs.fields(struct):
        name = field.encode_name
        bodies += [example | {name: value} for value in WRONG]
        bodies.append({key: value for key, value in example.items() if key != name})
    if struct.__name__ in ("NotFound", "UnknownPayment"):  # their codes are judged after decoding
        bodies = [body for body in bodies if not isinstance(body, dict) or body.get("code") == example["code"]]
    for body in bodies:
        assert accepted_by_schema(struct, body) is accepted_by_decoder(struct, body), body


def changed(body: Any, path: tuple[str | int, ...], value: Any) -> Any:
    made = copy.deepcopy(body)
    place = made
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return made


@pytest.mark.parametrize(
    ("operation_id", "path", "value"),
    [
        ("order_read", ("amount", "value"), 2**52),
        ("order_read", ("amount", "currency"), "XTS"),
        ("order_read", ("expires_at",), "2031-05-01T12:30:00"),
        ("order_read", ("country",), "CHN"),
        ("card_read", ("cards", 0, "last4"), "12345"),
        ("card_read", ("cards", 0, "expiry"), "05/31"),
        ("card_read", ("cards",), [EXAMPLES["card_read"]["200"]["cards"][0]] * 257),
        ("channel_read", ("channels", 0, "success_bps"), 10_001),
        ("channel_read", ("channels", 0, "step"), 0),
        ("channel_read", ("channels", 1, "terms", 0, "count"), 1),
        ("quota_read", ("quotas", 0, "daily", "used", "value"), -1),
        ("marketing_read", ("promotions", 1, "percent_off_bps"), -1),
        ("risk_decide", ("challenge",), None),
        ("risk_decide", ("decision",), "ACCEPT"),
        ("risk_decide", ("challenge", "attempts_left"), 101),
        ("risk_resend", ("resend_after_s",), 3_601),
        ("engine_submit", ("next_action",), None),
        ("engine_submit", ("next_action", "url"), "javascript:alert(1)"),
        ("engine_submit", ("next_action", "type"), "JUMP"),
        ("engine_submit", ("failure",), {"code": "DECLINED", "text": ""}),
        ("engine_submit", ("status",), "DONE"),
        ("acquirer_result", ("payment_id",), "two words"),
    ],
)
def test_schema_and_decoder_refuse_what_breaks_a_rule(
    operation_id: str, path: tuple[str | int, ...], value: Any
) -> None:
    struct = next(each.answer for each in OPERATIONS if each.operation_id == operation_id)
    body = changed(EXAMPLES[operation_id]["200"], path, value)
    assert (accepted_by_schema(struct, body), accepted_by_decoder(struct, body)) == (False, False)


@pytest.mark.parametrize(
    ("code", "known"),
    [
        ("NOT_FOUND", True),
        ("CARD_NOT_FOUND", True),
        ("USER_UNKNOWN", True),
        ("NO_SUCH_PATH", False),
        ("NOT_FOUND\n", False),
    ],
)
def test_the_schema_of_a_404_accepts_the_codes_that_say_there_is_none(code: str, known: bool) -> None:
    for name in ("NotFound", "UnknownPayment"):
        struct = next(each for each in ANSWERS if each.__name__ == name)
        assert accepted_by_schema(struct, {"code": code}) is known


def test_all_examples_match_their_schemas() -> None:
    contents = [
        content
        for path in DOCUMENT["paths"].values()
        for operation in path.values()
        for holder in (operation.get("requestBody", {}), *operation["responses"].values())
        for content in holder.get("content", {}).values()
    ]
    assert len(contents) > 40
    for content in contents:
        Draft202012Validator(
            content["schema"] | {"components": DOCUMENT["components"]}, format_checker=CHECKER
        ).validate(content["example"])
    for path in DOCUMENT["paths"].values():
        for parameter in (each for operation in path.values() for each in operation["parameters"]):
            Draft202012Validator(parameter["schema"]).validate(parameter["example"])


def test_the_examples_of_the_batch_form_are_read_as_single_answers() -> None:
    for operation in (each for each in OPERATIONS if each.batch is not None):
        [path] = [path for path, each in DOCUMENT["paths"].items() if f"{operation.source}_batch" in str(each)]
        post = DOCUMENT["paths"][path]["post"]
        asked = post["requestBody"]["content"]["application/json"]["example"]["requests"]
        answered = post["responses"]["200"]["content"]["application/json"]["example"]
        batch = BatchWireUpstream(PARSERS[operation.source], Http1Client(["http://127.0.0.1:1"]), path)
        outcomes = batch._outcomes(Response(200, json.dumps(answered).encode()), asked)
        assert isinstance(outcomes, list)
        assert [not_found for _, not_found, _ in outcomes] == [False, True]


def test_the_page_in_the_repository_is_what_the_command_prints() -> None:
    page = (Path(cashier.contract.__file__).parent / "README.md").read_text("utf-8")
    assert page == CliRunner().invoke(cli, ["contract", "--markdown"]).output


def test_the_command_prints_one_source_and_refuses_an_unknown_one() -> None:
    run = CliRunner()
    printed = json.loads(run.invoke(cli, ["contract", "--openapi", "--source", "card"]).output)
    assert list(printed["paths"]) == ["/members/{user_id}/cards", "/batch/cards"]
    assert next(iter(printed["components"]["schemas"])) == "Cards"
    assert "ChannelRow" not in printed["components"]["schemas"]
    text = run.invoke(cli, ["contract", "--markdown", "--source", "quota"]).output
    assert "\n## quota\n" in text
    assert "\n## card\n" not in text
    assert "| `quota` | `user_id`, `currency` |" in text
    assert "| `card` | `user_id` |" not in text
    assert "What the sources are asked" not in markdown("engine")
    for arguments in ((), ("--openapi", "--markdown"), ("--openapi", "--source", "cards")):
        result = run.invoke(cli, ["contract", *arguments])
        assert result.exit_code == 1
        assert result.output.count("\n") == 1


def test_the_markdown_has_every_field_status_and_example() -> None:
    text = markdown()
    for name, schema in DOCUMENT["components"]["schemas"].items():
        if "properties" in schema:
            section = text.partition(f"#### `{name}` fields\n")[2].partition("\n#")[0]
            assert all(f"| `{field}` |" in section for field in schema["properties"]), name
    for operation in OPERATIONS:
        assert f"### `{operation.method} {operation.path}`\n" in text


def test_the_table_of_failure_codes_says_what_becomes_of_each() -> None:
    codes = {each.code: each for each in failure_codes()}
    assert {code for code, each in codes.items() if each.status == "CLOSED"} == CLOSED_CODES
    assert codes["CHANNEL_TIMEOUT"].blames_channel == "yes"
    assert codes["INSTRUMENT_DECLINED"].message == "INSTRUMENT_DECLINED"
    assert codes["DECLINED"].drops == ()
    assert "half" not in {each.blames_channel for each in codes.values()}, "a known code is attributed"


PACKAGED = resources.files("cashier.contract")
FILES = ("contract.toml", "fields.toml", "examples.json", "rules.md")


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("contract.toml", "[operations.card_read]", "[operations.cards]", "no operation is named 'card_read'"),
        ("contract.toml", 'otherwise = "submit"', 'otherwise = "sumbit"', "no meaning of other statuses is named"),
        ("contract.toml", "409 = ", "410 = ", "engine_submit: answers other than"),
        ("contract.toml", 'batch_path = "/batch/cards"\n', "", "card has a batch form, and no batch_path"),
        ("contract.toml", "[parameters.country]", "[parameters.land]", "no parameter is named 'country'"),
        ("fields.toml", "last4 = ", "last_4 = ", "not the fields of Card: "),
        ("fields.toml", "[Period]", "[Term]", "not the structs of the contract"),
        ("examples.json", '"last4"', '"tail"', "card_read 200: .*missing required field `last4`"),
        ("examples.json", '"single_max"', '"max"', "card_read 200: not as Cards is encoded"),
        ("rules.md", "${max_body}", "${body}", "no value is named 'body'"),
    ],
)
def test_a_wrong_name_in_the_data_fails_when_the_document_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, old: str, new: str, message: str
) -> None:
    for name in FILES:
        shutil.copy(str(PACKAGED.joinpath(name)), tmp_path)
    original = (tmp_path / file).read_text("utf-8")
    assert old in original
    (tmp_path / file).write_text(original.replace(old, new), "utf-8")
    for module in (builder, example_data):
        monkeypatch.setattr(module, "resources", SimpleNamespace(files=lambda _: tmp_path))
    with pytest.raises(ValueError, match=message):
        document()
