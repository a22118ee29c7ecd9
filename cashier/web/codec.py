"""Bytes to a question and an answer to bytes. Sees no sockets and no headers but those that it writes."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from cashier.consultation.flow import Consultation
from cashier.domain.order import ConsultRequest
from cashier.fanout.ask import SourceReport, SourceStatus
from cashier.web.problem import FieldProblem, ProblemCode, RequestRefused, invalid
from cashier.web.validation_errors import field_problems

_decoder = msgspec.json.Decoder(ConsultRequest)
_encoder = msgspec.json.Encoder()
# For naming faults. Floats of any size are taken as they are, because what is out of range is then named like every other fault.
_untyped = msgspec.json.Decoder(Any, float_hook=float)
_CONSULT_REQUEST = msgspec.inspect.type_info(ConsultRequest)
T = TypeVar("T")

_BYTE_ORDER_MARKS = ((b"\xef\xbb\xbf", "a byte order mark"), (b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"))
_NON_TOKEN = re.compile(r"[^A-Za-z0-9!#$%&'*+.^_`|~-]")
_STATUS_DESCRIPTIONS = {status: f';desc="{status.value}"' for status in SourceStatus}


def decode_request(body: bytes) -> ConsultRequest:
    """The question in a body. Raises `RequestRefused`: MALFORMED, or INVALID with every fault."""
    return decode(body, _decoder, _CONSULT_REQUEST)


def decode(body: bytes, decoder: msgspec.json.Decoder[T], kind: msgspec.inspect.Type) -> T:
    """What a body holds, by a decoder of that kind. Of a key that comes twice the last counts. Raises `RequestRefused`, as above."""
    try:
        if not body.isascii():
            body.decode()
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _refusal_of(body, error, kind) from None


def decode_json(body: bytes) -> Any:
    """The same without a type: whatever JSON it is. Raises `RequestRefused`: MALFORMED."""
    try:
        if not body.isascii():
            body.decode()
        return _untyped.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(body, error) from None


def encode_consultation(consultation: Consultation) -> bytes:
    return _encoder.encode(consultation)


def encode_numbered_consultation(seq: int, consultation: Consultation) -> bytes:
    """The same on one line, with the number of the answer in its stream as its first field."""
    return b'{"seq":%d,%b' % (seq, _encoder.encode(consultation)[1:])


def server_timing(elapsed_ms: float, sources: tuple[SourceReport, ...]) -> bytes:
    """The value of Server-Timing: the whole, then every source. Names are made legal tokens of the header."""
    parts = [f"total;dur={elapsed_ms:.1f}"]
    for source in sources:
        name = source.name if source.name.isidentifier() and source.name.isascii() else _NON_TOKEN.sub("_", source.name)
        parts.append(f"{name};dur={source.elapsed_ms:.1f}{_STATUS_DESCRIPTIONS[source.status]}")
    return ", ".join(parts).encode("ascii")


def _refusal_of(body: bytes, error: Exception, kind: msgspec.inspect.Type) -> RequestRefused:
    return _invalid(body, kind) if isinstance(error, msgspec.ValidationError) else _malformed(body, error)


def _invalid(body: bytes, kind: msgspec.inspect.Type) -> RequestRefused:
    """The decoder stops at its first complaint, so the rest of the body may still turn out to be no JSON."""
    try:
        value = _untyped.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        return _malformed(body, error)
    return invalid(*(tuple(field_problems(kind, value)) or (FieldProblem("", "INVALID", "breaks the contract"),)))


def _malformed(body: bytes, error: Exception) -> RequestRefused:
    return RequestRefused(ProblemCode.MALFORMED, _what_is_wrong(body, error))


def _what_is_wrong(body: bytes, error: Exception) -> str:
    if not body.strip():
        return "The body is empty; a JSON object is expected."
    for mark, called in _BYTE_ORDER_MARKS:
        if body.startswith(mark):
            return f"The body begins with {called}; plain UTF-8 is expected."
    if isinstance(error, RecursionError):
        return "The body is nested too deeply."
    if isinstance(error, UnicodeDecodeError):
        return f"The body is not UTF-8 (byte {error.start})."
    if isinstance(error, msgspec.ValidationError):
        return "The body holds a number beyond what can be read."
    # The decoder names a position and a sort of trouble here, never a piece of the text.
    return f"The body is not JSON: {str(error).removeprefix('JSON is malformed: ')}."
