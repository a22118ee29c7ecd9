"""Builds the document from operations.toml, examples.json and the code.

Schemas come from the structs, limits and patterns from their constants, problem responses from
`ProblemCode`. A name that the data lacks, or that the code does not know, is a `ValueError`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, TypeVar

import msgspec
import orjson
from msgspec import Struct

from cashier.consultation.answer import Consultation
from cashier.domain.challenge_progress import MAX_RESENDS
from cashier.domain.explanation.evidence import WhyRequest
from cashier.domain.explanation.schema import Explanation
from cashier.domain.money import MAX_VALUE
from cashier.domain.offer_diff import Change
from cashier.domain.order import ID_PATTERN, ConsultRequest
from cashier.domain.page_session import PageSession, SessionRequest, TillRequest
from cashier.domain.payment_id import PAYMENT_ID
from cashier.domain.payment_request import IDEMPOTENCY_KEY, AttemptRequest, PaymentRequest
from cashier.domain.payment_resource import ChallengeSent, FoundPayment, Payment, StreamTicket
from cashier.fanout.ask import SourceReport
from cashier.fanout.l2.interface import Invalidated
from cashier.payments.attempt_recovery import ReplacedPayment
from cashier.payments.errors import (
    CheckUnavailable,
    ConsultChanged,
    EngineUnavailable,
    InFlight,
    KeyReused,
    NotResendable,
    NotResumable,
    OrderBusy,
    RiskRejected,
    StatusUnavailable,
    TooManyPayments,
)
from cashier.payments.settings import LONGEST_WAIT_MS
from cashier.web.caller import TokenScope
from cashier.web.health import Liveness, ReadinessReport
from cashier.web.invalidate_endpoint import Invalidation
from cashier.web.openapi.document_parts import convert, decode_example, fill, named
from cashier.web.payment_problems import refusal_for
from cashier.web.payment_requests import KEY_HEADER, TOKEN_HEADER, Cancellation, ChallengeAnswer
from cashier.web.problem import STATUS_AND_TITLE, FieldProblem, Problem, ProblemCode, invalid, make_problem
from cashier.web.request_headers import MAX_TIMEOUT_MS
from cashier.web.sse import HEARTBEAT_S

_STRUCTS: dict[str, type[Struct]] = {
    struct.__name__: struct
    for struct in (
        ConsultRequest,
        Consultation,
        Problem,
        Invalidation,
        Invalidated,
        WhyRequest,
        Explanation,
        SessionRequest,
        TillRequest,
        PageSession,
        PaymentRequest,
        ChallengeAnswer,
        Cancellation,
        ChallengeSent,
        Payment,
        StreamTicket,
        AttemptRequest,
        FoundPayment,
        ReplacedPayment,
        Liveness,
        ReadinessReport,
    )
}
# The problems of an operation, by what it does. `any` belongs to all that have a scope.
_PROBLEM_GROUPS: dict[str, tuple[ProblemCode, ...]] = {
    "any": (ProblemCode.INVALID, ProblemCode.INTERNAL, ProblemCode.NOT_READY),
    "page": (ProblemCode.ORIGIN_NOT_ALLOWED,),
    "operator": (ProblemCode.FORBIDDEN, ProblemCode.OVERLOADED),
    "own": (ProblemCode.CALLER_MISMATCH, ProblemCode.ORIGIN_NOT_ALLOWED),
    "body": (
        ProblemCode.MALFORMED,
        ProblemCode.BODY_TIMEOUT,
        ProblemCode.TOO_LARGE,
        ProblemCode.UNSUPPORTED_MEDIA_TYPE,
    ),
    "ignored_body": (ProblemCode.TOO_LARGE, ProblemCode.BODY_TIMEOUT),
    "consult": (ProblemCode.ORDER_UNKNOWN, ProblemCode.OVERLOADED, ProblemCode.REQUIRED_SOURCE_UNAVAILABLE),
    "limited": (ProblemCode.RATE_LIMITED,),
    "payments": (ProblemCode.PAYMENTS_NOT_CONFIGURED,),
    "pages": (ProblemCode.PAGES_NOT_CONFIGURED,),
    "token": (
        ProblemCode.TOKEN_MALFORMED,
        ProblemCode.TOKEN_TAMPERED,
        ProblemCode.TOKEN_UNKNOWN_KEY,
        ProblemCode.TOKEN_WRONG_TYPE,
        ProblemCode.TOKEN_EXPIRED,
    ),
    "offer": (ProblemCode.TOKEN_OTHER_ORDER, ProblemCode.TOKEN_OTHER_USER),
    "address": (ProblemCode.NOT_FOUND, ProblemCode.TOKEN_OTHER_PAYMENT),
    "query": (ProblemCode.KEY_REUSED, ProblemCode.OVERLOADED),
    "attempt": (
        ProblemCode.PAYER_REQUIRED,
        ProblemCode.NOT_FOUND,
        ProblemCode.ORDER_UNKNOWN,
        ProblemCode.NOT_RESUMABLE,
        ProblemCode.IN_FLIGHT,
        ProblemCode.STATUS_UNAVAILABLE,
        ProblemCode.OVERLOADED,
    ),
    "busy": (ProblemCode.ORDER_BUSY,),
    "resend": (ProblemCode.NOT_RESENDABLE, ProblemCode.CHECK_UNAVAILABLE, ProblemCode.OVERLOADED),
    "progress": (
        ProblemCode.RISK_REJECTED,
        ProblemCode.ORDER_UNKNOWN,
        ProblemCode.CONSULT_CHANGED,
        ProblemCode.ORDER_BUSY,
        ProblemCode.IN_FLIGHT,
        ProblemCode.KEY_REUSED,
        ProblemCode.CHECK_UNAVAILABLE,
        ProblemCode.ENGINE_UNAVAILABLE,
        ProblemCode.OVERLOADED,
    ),
}
_SECURED = (ProblemCode.UNAUTHENTICATED, ProblemCode.FORBIDDEN)
# A response has the header if all its codes do.
_PROBLEM_HEADERS = {
    ProblemCode.METHOD_NOT_ALLOWED: "allow",
    **dict.fromkeys(_SECURED, "www-authenticate"),
    **dict.fromkeys(
        (
            ProblemCode.REQUIRED_SOURCE_UNAVAILABLE,
            ProblemCode.NOT_READY,
            ProblemCode.OVERLOADED,
            ProblemCode.RATE_LIMITED,
            ProblemCode.IN_FLIGHT,
            ProblemCode.CHECK_UNAVAILABLE,
            ProblemCode.STATUS_UNAVAILABLE,
            ProblemCode.ENGINE_UNAVAILABLE,
        ),
        "retry-after",
    ),
}

Json = dict[str, Any]
S = TypeVar("S", bound=Struct)


class _Body(Struct, frozen=True, forbid_unknown_fields=True):
    schema: str
    example: str
    required: bool = True


class _Response(Struct, frozen=True, forbid_unknown_fields=True):
    """`schema`: the name of a struct, or a schema, of a body of this type."""

    description: str
    schema: str | Json | None = None
    media_type: str = "application/json"
    example: str | None = None
    events: str | None = None
    headers: tuple[str, ...] = ()


class _Operation(Struct, frozen=True, forbid_unknown_fields=True):
    operation_id: str
    summary: str
    headers: tuple[str, ...]
    responses: dict[str, _Response]
    description: str | None = None
    parameters: tuple[str, ...] = ()
    body: _Body | None = None
    problems: tuple[str, ...] = ()
    invalid: FieldProblem | None = None
    scope: TokenScope | None = None
    bearer_optional: bool = False


class _Operations(Struct, frozen=True, forbid_unknown_fields=True):
    """operations.toml. Each of `operations`, by path and method, is an `_Operation`."""

    document: Json
    bearer: Json
    headers: dict[str, Json]
    parameters: dict[str, Json]
    events: dict[str, Json]
    operations: dict[str, dict[str, Json]]


def document(body_limit_bytes: int, *, secured: bool) -> bytes:
    """The document as JSON. `secured`: the API requires a bearer token."""
    folder = resources.files("cashier.web.openapi")
    values = _values(body_limit_bytes, secured=secured)
    raw = fill(tomllib.loads(folder.joinpath("operations.toml").read_text("utf-8")), values)
    data = convert("operations.toml", raw, _Operations)
    examples = orjson.loads(folder.joinpath("examples.json").read_bytes())
    return orjson.dumps(_Builder(data, examples, secured=secured).document())


def _values(body_limit_bytes: int, *, secured: bool) -> dict[str, str | int]:
    """What the data may name as `${name}`."""
    return {
        "body_limit_bytes": body_limit_bytes,
        "max_timeout_ms": MAX_TIMEOUT_MS,
        "max_minor_units": MAX_VALUE,
        "longest_wait_ms": LONGEST_WAIT_MS,
        "max_resends": MAX_RESENDS,
        "heartbeat_s": int(HEARTBEAT_S),
        "key_header": KEY_HEADER,
        "token_header": TOKEN_HEADER,
        # `(?![\s\S])` is the end of the text in Python and in JavaScript alike.
        "idempotency_key_pattern": rf"^{IDEMPOTENCY_KEY}(?![\s\S])",
        "id_pattern": ID_PATTERN,
        "payment_id_pattern": rf"^{PAYMENT_ID}(?![\s\S])",
        # Without authentication of callers, Authorization may carry the payment token.
        "bearer_instead": "" if secured else " `Authorization: Bearer` is accepted instead.",
    }


def _plain_problem(code: ProblemCode) -> Problem:
    return make_problem(code, f"{STATUS_AND_TITLE[code][1]}.")


class _Builder:
    def __init__(self, data: _Operations, examples: Mapping[str, Json], *, secured: bool) -> None:
        self._data = data
        self._examples = examples
        self._secured = secured
        references, self._schemas = msgspec.json.schema_components(
            _STRUCTS.values(), ref_template="#/components/schemas/{name}"
        )
        self._references = dict(zip(_STRUCTS, references, strict=True))
        # A constraint that the struct's type cannot express.
        self._schemas["Invalidation"]["oneOf"] = [{"required": ["key"]}, {"required": ["prefix"]}]
        self._payment_problems = self._payment_problem_examples()

    def document(self) -> Json:
        components: Json = {"schemas": self._schemas, "headers": self._data.headers}
        if self._secured:
            components["securitySchemes"] = {"bearer": self._data.bearer}
        paths = {
            path: {
                method: self._operation(convert(f"operations.toml: {method} {path}", operation, _Operation))
                for method, operation in operations.items()
            }
            for path, operations in self._data.operations.items()
        }
        return {**self._data.document, "paths": paths, "components": components}

    def _operation(self, operation: _Operation) -> Json:
        built: Json = {"operationId": operation.operation_id, "summary": operation.summary}
        if operation.description is not None:
            built["description"] = operation.description
        if operation.parameters:
            built["parameters"] = [named("parameter", self._data.parameters, name) for name in operation.parameters]
        if operation.body is not None:
            body = {"application/json": self._content(operation.body.schema, operation.body.example)}
            built["requestBody"] = {"required": operation.body.required, "content": body}
        if operation.scope is None:
            built["security"] = []
        elif self._secured:
            # OpenAPI 3.1: the roles that the operation requires.
            built["security"] = [{"bearer": [operation.scope]}, *([{}] if operation.bearer_optional else [])]
        responses = {
            status: self._response(response, operation.headers) for status, response in operation.responses.items()
        }
        return built | {"responses": responses | self._problem_responses(operation)}

    def _response(self, response: _Response, common_headers: Sequence[str]) -> Json:
        content: Json = {}
        if response.schema is not None:
            media_type = "application/problem+json" if response.schema == "Problem" else response.media_type
            content[media_type] = self._content(response.schema, response.example)
        if response.events is not None:
            content["text/event-stream"] = named("stream", self._data.events, response.events)
        headers = self._headers((*common_headers, *response.headers))
        return {"description": response.description, "headers": headers, "content": content}

    def _content(self, schema: str | Json, example: str | None) -> Json:
        if not isinstance(schema, str):
            return {"schema": schema}
        content: Json = {"schema": named("schema", self._references, schema)}
        if example is not None:
            content["example"] = named("example", self._examples, example)
            decode_example(example, content["example"], _STRUCTS[schema])
        return content

    def _headers(self, names: Sequence[str]) -> Json:
        for name in names:
            named("header", self._data.headers, name)
        return {name: {"$ref": f"#/components/headers/{name}"} for name in names}

    def _problem_responses(self, operation: _Operation) -> Json:
        """By status. A response has an example per code."""
        codes = [code for group in operation.problems for code in named("group of problems", _PROBLEM_GROUPS, group)]
        # What the path answers to other methods. OpenAPI has no responses of a path.
        codes.append(ProblemCode.METHOD_NOT_ALLOWED)
        if self._secured and operation.scope is not None:
            codes += _SECURED
        elif not self._secured:
            codes = [code for code in codes if code is not ProblemCode.CALLER_MISMATCH]
        examples = dict(self._payment_problems) if "payments" in operation.problems else {}
        if operation.invalid is not None:
            examples[ProblemCode.INVALID] = invalid(operation.invalid).problem
        responses: Json = {}
        for status in sorted({STATUS_AND_TITLE[code][0] for code in codes}):
            of_status = [code for code in codes if STATUS_AND_TITLE[code][0] == status]
            headers = {_PROBLEM_HEADERS.get(code) for code in of_status}
            extra = headers.pop() if len(headers) == 1 else None
            content = {
                "schema": self._references["Problem"],
                "examples": {
                    code.value: {"value": msgspec.to_builtins(examples.get(code) or _plain_problem(code))}
                    for code in of_status
                },
            }
            responses[str(status)] = {
                "description": "; ".join(STATUS_AND_TITLE[code][1] for code in of_status),
                "headers": self._headers((*operation.headers, *([extra] if extra else []))),
                "content": {"application/problem+json": content},
            }
        return responses

    def _payment_problem_examples(self) -> dict[ProblemCode, Problem]:
        """As the endpoints send them: their details say more than their titles."""
        consultation = self._decode("consultation", Consultation)
        silent = self._decode("silent_source", SourceReport)
        found = self._decode("found_payment", FoundPayment)
        errors = (
            ConsultChanged((self._decode("change", Change),), consultation),
            OrderBusy(found.payment_id, found.next_action, found.expires_at),
            NotResumable("user_id"),
            NotResendable("the risk service does not offer it for this challenge"),
            StatusUnavailable(("engine",)),
            InFlight(),
            KeyReused(),
            RiskRejected(None),
            CheckUnavailable((silent.name,), (silent,)),
            EngineUnavailable(),
            TooManyPayments(),
        )
        refusals = (refusal for error in errors if (refusal := refusal_for(error)) is not None)
        return {refusal.problem.code: refusal.problem for refusal in refusals}

    def _decode(self, name: str, struct: type[S]) -> S:
        return decode_example(name, named("example", self._examples, name), struct)
