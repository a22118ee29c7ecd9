"""The table of all calls of the contract: request, body, answers and identity of each.

Paths, queries and headers are taken from the functions that make the requests: they are called with
placeholders in place of values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote

from msgspec import Struct

from cashier.consultation.source_table import SOURCE_SPECS, SourceSpec
from cashier.domain.engine_contract import EnginePayment, Submission
from cashier.domain.money import Money
from cashier.domain.order_result import OrderResult
from cashier.domain.pay_method import Kind
from cashier.domain.payment_request import Device
from cashier.domain.risk_contract import Inquiry
from cashier.sources.acquirer import result_request
from cashier.sources.engine import (
    BusyAnswer,
    KeyReusedAnswer,
    Reversal,
    UnknownPayment,
    look_up_request,
    reverse_request,
    submit_request,
)
from cashier.sources.risk import (
    Decision,
    ResendAnswer,
    ResendRequest,
    Verification,
    VerificationRequest,
    decide_request,
    resend_request,
    verify_request,
)
from cashier.sources.source import NotFound
from cashier.wire.transport import Request


class Operation(Struct, frozen=True, kw_only=True):
    """One call of one service.

    `name`: `read` for the sources of a consultation, else the method of the port that makes it.
    `path`: a template of `path_parameters`. `query`: names of the query's parameters, all sent.
    `headers`: those beyond the ones of every call, with templates as values. `body`: the struct of
    the request's body, None without one; `body_required` False: it may be left out. `repeatable`:
    it may be sent again, and may arrive more than once. `answers`: the struct of the body by the
    statuses that mean something of their own; None: the body is not read. `echoes`: by field of a
    200 the parameter or field of the request that it must equal; a field that is optional in the
    struct may be absent. `batch`: what each request of the batch form has; None: there is none.
    """

    source: str
    name: str
    method: str
    path: str
    path_parameters: tuple[str, ...]
    query: tuple[str, ...]
    headers: Mapping[str, str]
    body: type[Struct] | None
    body_required: bool
    repeatable: bool
    answers: Mapping[int, type[Struct] | None]
    echoes: Mapping[str, str]
    batch: tuple[str, ...] | None

    @property
    def operation_id(self) -> str:
        """Unique, such as `card_read` and `engine_submit`."""
        return f"{self.source}_{self.name}"

    @property
    def answer(self) -> type[Struct]:
        """The struct of a 200, which every call has."""
        answer = self.answers[200]
        if answer is None:
            raise ValueError(f"{self.operation_id} reads no body of a 200")
        return answer


# Templates in place of values: structs do not check what they are made with.
INPUTS: dict[str, Any] = {
    **{name: f"{{{name}}}" for name in ("order_id", "user_id", "merchant_id", "currency", "country")},
    "amount": Money("{currency}", "{value}"),  # type: ignore[arg-type]
}
_NOTHING = Money("CNY", 0)
_SUBMISSION = Submission(
    payment_id="{payment_id}",
    order_id="{order_id}",
    merchant_id="{merchant_id}",
    fingerprint="",
    amount=_NOTHING,
    legs=(),
    decision_id="",
    alternatives=(),
)
_INQUIRY = Inquiry(
    payment_id="{payment_id}",
    order_id="{order_id}",
    merchant_id="{merchant_id}",
    amount=_NOTHING,
    kind=Kind.FREE,
    device=Device(),
)
# The field of an answer that names its subject. The answer of `channel` names none.
_IDENTITIES = {
    "order": "order_id",
    "merchant": "merchant_id",
    "channel": None,
    **dict.fromkeys(("member", "card", "balance", "quota", "marketing"), "user_id"),
}


def _operation(
    source: str,
    name: str,
    request: Request,
    answers: Mapping[int, type[Struct] | None],
    *,
    echoes: Mapping[str, str],
    body: type[Struct] | None = None,
    body_required: bool = True,
    batch: tuple[str, ...] | None = None,
) -> Operation:
    path, _, query = unquote(request.target).partition("?")
    return Operation(
        source=source,
        name=name,
        method=request.method,
        path=path,
        path_parameters=tuple(part[1:-1] for part in path.split("/") if part.startswith("{")),
        query=tuple(name for name, _ in parse_qsl(query)),
        headers=dict(request.headers),
        body=body,
        body_required=body is not None and body_required,
        repeatable=request.safe,
        answers=answers,
        echoes=echoes,
        batch=batch,
    )


def _read(spec: SourceSpec) -> Operation:
    source = spec.source
    identity = _IDENTITIES[source.name]
    return _operation(
        source.name,
        "read",
        source.request(INPUTS),
        {200: source.answer_type, 404: NotFound},
        echoes={} if identity is None else {identity: identity},
        batch=None if source.parameters is None else tuple(source.parameters(INPUTS)),
    )


_PAYMENT = {"payment_id": "payment_id"}
_ATTEMPT = {"payment_id": "payment_id", "order_id": "order_id"}

OPERATIONS: tuple[Operation, ...] = (
    *map(_read, SOURCE_SPECS),
    _operation(
        "risk",
        "decide",
        decide_request(_INQUIRY),
        {200: Decision},
        echoes=_PAYMENT,
        body=Inquiry,
    ),
    _operation(
        "risk",
        "verify",
        verify_request("{challenge_id}", "", ""),
        {200: Verification, 404: NotFound},
        echoes=_PAYMENT,
        body=VerificationRequest,
    ),
    _operation(
        "risk",
        "resend",
        resend_request("{challenge_id}", ""),
        {200: ResendAnswer, 404: None},
        echoes=_PAYMENT,
        body=ResendRequest,
    ),
    _operation(
        "engine",
        "submit",
        submit_request(_SUBMISSION),
        {200: EnginePayment, 409: BusyAnswer, 422: KeyReusedAnswer},
        echoes=_ATTEMPT,
        body=Submission,
    ),
    _operation(
        "engine",
        "look_up",
        look_up_request("{payment_id}", "{order_id}"),
        {200: EnginePayment, 404: NotFound},
        echoes=_ATTEMPT,
    ),
    _operation(
        "engine",
        "reverse",
        reverse_request("{payment_id}", "{order_id}"),
        {200: EnginePayment, 404: UnknownPayment},
        echoes=_ATTEMPT,
        body=Reversal,
        body_required=False,
    ),
    _operation(
        "acquirer",
        "result",
        result_request("{order_id}"),
        {200: OrderResult, 404: NotFound},
        echoes={"order_id": "order_id"},
    ),
)
SOURCES: tuple[str, ...] = tuple(dict.fromkeys(operation.source for operation in OPERATIONS))
