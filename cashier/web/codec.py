"""Decodes request bodies and encodes consultations and the Server-Timing header. No I/O."""

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
# For naming the invalid fields. Accepts floats of any size, so that an out-of-range number is
# reported like every other invalid field.
_untyped = msgspec.json.Decoder(Any, float_hook=float)
_CONSULT_REQUEST = msgspec.inspect.type_info(ConsultRequest)
T = TypeVar("T")

_BYTE_ORDER_MARKS = ((b"\xef\xbb\xbf", "a byte order mark"), (b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"))
_NON_TOKEN = re.compile(r"[^A-Za-z0-9!#$%&'*+.^_`|~-]")
_STATUS_DESCRIPTIONS = {status: f';desc="{status.value}"' for status in SourceStatus}


def decode_request(body: bytes) -> ConsultRequest:
    """Raises `RequestRefused`: MALFORMED, or INVALID with every invalid field."""
    return decode(body, _decoder, _CONSULT_REQUEST)


def decode(body: bytes, decoder: msgspec.json.Decoder[T], type_info: msgspec.inspect.Type) -> T:
    """Decode a body with `decoder`, whose type `type_info` describes. The last of duplicate keys
    counts.

    Raises `RequestRefused`: MALFORMED, or INVALID with every invalid field.
    """
    try:
        if not body.isascii():
            body.decode()
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _refusal(body, error, type_info) from None


def decode_json(body: bytes) -> Any:
    """Decode any JSON value. Raises `RequestRefused`: MALFORMED."""
    try:
        if not body.isascii():
            body.decode()
        return _untyped.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(body, error) from None


def encode_consultation(consultation: Consultation) -> bytes:
    return _encoder.encode(consultation)


def encode_numbered_consultation(seq: int, consultation: Consultation) -> bytes:
    """A consultation of a stream on one line, with `seq` as its first field."""
    return b'{"seq":%d,%b' % (seq, _encoder.encode(consultation)[1:])


def server_timing(elapsed_ms: float, sources: tuple[SourceReport, ...]) -> bytes:
    """The value of Server-Timing: the total, then every source, its name made a legal token."""
    parts = [f"total;dur={elapsed_ms:.1f}"]
    for source in sources:
        name = source.name if source.name.isidentifier() and source.name.isascii() else _NON_TOKEN.sub("_", source.name)
        parts.append(f"{name};dur={source.elapsed_ms:.1f}{_STATUS_DESCRIPTIONS[source.status]}")
    return ", ".join(parts).encode("ascii")


def _refusal(body: bytes, error: Exception, type_info: msgspec.inspect.Type) -> RequestRefused:
    return _invalid(body, type_info) if isinstance(error, msgspec.ValidationError) else _malformed(body, error)


def _invalid(body: bytes, type_info: msgspec.inspect.Type) -> RequestRefused:
    """The typed decoder stops at the first invalid field: the rest may be malformed JSON."""
    try:
        value = _untyped.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        return _malformed(body, error)
    return invalid(*(tuple(field_problems(type_info, value)) or (FieldProblem("", "INVALID", "is invalid"),)))


def _malformed(body: bytes, error: Exception) -> RequestRefused:
    return RequestRefused(ProblemCode.MALFORMED, _malformed_detail(body, error))


def _malformed_detail(body: bytes, error: Exception) -> str:
    if not body.strip():
        return "The body is empty; a JSON object is expected."
    for mark, name in _BYTE_ORDER_MARKS:
        if body.startswith(mark):
            return f"The body begins with {name}; plain UTF-8 is expected."
    if isinstance(error, RecursionError):
        return "The body is nested too deeply."
    if isinstance(error, UnicodeDecodeError):
        return f"The body is not UTF-8 (byte {error.start})."
    if isinstance(error, msgspec.ValidationError):
        return "The body contains a number that is out of range."
    # The decoder's message names a position and a kind of error, never a piece of the text.
    return f"The body is not JSON: {str(error).removeprefix('JSON is malformed: ')}."
