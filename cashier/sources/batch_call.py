"""The batch form of a source: one POST with the parameters of many requests, one part per answer.

A part is judged like the answer to a single call, and a bad part affects its own key only. An error
of the whole call affects all keys.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Protocol

import msgspec
from msgspec import Meta, Raw, Struct

from cashier.fanout.ask import Known
from cashier.fanout.batch import BatchPolicy, OnBatchOutcomes, Outcome
from cashier.fanout.upstream_protocol import UpstreamCall
from cashier.source_errors import FailureReason, Garbled, SourceError, WrongIdentity
from cashier.sources.source import Inputs, error_of_response, error_of_status, parse_answer, parse_or_error
from cashier.wire.transport import Request, Response, Transport


class BatchSettings(BatchPolicy, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`path`: the batch endpoint, appended to the source's URL."""

    path: Annotated[str, Meta(pattern=r"^/[!-\"$-~]*(?![\s\S])")]


class BatchAnswer(Struct, frozen=True):
    answers: list[Raw]


class BatchPart(Struct, frozen=True):
    """Has one of the two."""

    ok: Raw = Raw()
    error: Raw = Raw()


class BatchError(Struct, frozen=True):
    status: int


_encode = msgspec.json.Encoder().encode
_decode_answer = msgspec.json.Decoder(BatchAnswer).decode
_decode_part = msgspec.json.Decoder(BatchPart).decode
_decode_error = msgspec.json.Decoder(BatchError).decode
_ABSENT = (b"", b"null")
_STATUSES = frozenset((404,))


class BatchParser(Protocol):
    """A source with a batch form. `parameters`: what that takes for one request; None: none."""

    @property
    def parameters(self) -> Callable[[Inputs], Any] | None: ...

    def parse(self, status: int, body: bytes, inputs: Inputs) -> Any:
        """See `ContractParser`."""


class BatchWireUpstream:
    """A `BatchUpstream`: the batch form of a source over a transport.

    ValueError for a source without `parameters`.
    """

    __slots__ = ("_parameters", "_parse", "_path", "_send", "_statuses", "addresses")

    def __init__(self, source: BatchParser, transport: Transport, path: str) -> None:
        parameters = source.parameters
        if parameters is None:
            raise ValueError("batch: this source has no batch form, because it has no function parameters(asked)")
        self.addresses = transport.addresses
        self._parameters = parameters
        self._parse = source.parse
        self._statuses: frozenset[int] = _STATUSES
        self._path = path
        self._send = transport.send

    def call_many(
        self, many: Sequence[Known], call_headers: Any, budget_ms: int, on_outcomes: OnBatchOutcomes, avoid: int = 0
    ) -> UpstreamCall:
        def on_response(response: Response | SourceError) -> None:
            on_outcomes(self._outcomes(response, many))

        body = _encode({"requests": [self._parameters(known) for known in many]})
        return self._send(Request(self._path, "POST", body), call_headers, budget_ms, on_response, avoid)

    def parse_stored(self, not_found: bool, body: bytes, known: Known) -> Any:
        return parse_or_error(self._parse, 404 if not_found else 200, body, known)

    def _outcomes(self, response: Response | SourceError, many: Sequence[Known]) -> Sequence[Outcome] | SourceError:
        if isinstance(response, SourceError):
            return response
        if response.status != 200:  # a 404 of the call says nothing about any key
            return error_of_response(response)
        answer = parse_answer(response, _decode_answer, response.body)
        if isinstance(answer, SourceError):
            return answer
        parts = answer.answers
        if len(parts) != len(many):  # parts can no longer be matched to requests
            unmatched = f"{len(parts)} answers to {len(many)} requests"
            return response.discredit(Garbled(unmatched, reason=FailureReason.FIELD))
        outcomes = [self._outcome(part, known) for part, known in zip(parts, many, strict=True)]
        wrong = [outcome for outcome, _, _ in outcomes if isinstance(outcome, WrongIdentity)]
        if wrong:
            response.discredit(wrong[0])
            for error in wrong:
                error.elsewhere = wrong[0].elsewhere
        return outcomes

    def _outcome(self, raw: Raw, known: Known) -> Outcome:
        outcome = parse_or_error(self._parse_part, raw, known)
        return (outcome, False, None) if isinstance(outcome, SourceError) else outcome

    def _parse_part(self, raw: Raw, known: Known) -> Outcome:
        part = _decode_part(raw)
        error = bytes(part.error)
        if error in _ABSENT:
            body = bytes(part.ok)  # a copy, because a view would keep the bytes of all parts alive
            return self._read(200, body, known)
        status = _decode_error(error).status
        if status in self._statuses:
            return self._read(status, error, known)
        raise error_of_status(status, None)

    def _read(self, status: int, body: bytes, known: Known) -> Outcome:
        return self._parse(status, body, known), status == 404, body
