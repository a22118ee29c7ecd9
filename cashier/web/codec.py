"""Decodes request bodies, names every invalid field, encodes consultations and Server-Timing. Pure.

The typed decoder stops at the first invalid field and quotes its value. So a refused body is
compared with its type once more: all invalid fields are reported, and no value is repeated.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from cashier.consultation.answer import Consultation
from cashier.domain.explanation.evidence import WhyRequest
from cashier.domain.order import USER_ID_REQUIRED, ConsultRequest, Product
from cashier.domain.page_session import SessionRequest
from cashier.domain.payment_request import PaymentChoice
from cashier.fanout.ask import SourceReport, SourceStatus
from cashier.web.problem import FieldProblem, ProblemCode, RequestRefused, invalid

_decoder = msgspec.json.Decoder(ConsultRequest)
_encoder = msgspec.json.Encoder()
# For naming the invalid fields. Accepts floats of any size, so that an out-of-range number is
# reported like every other invalid field.
_untyped = msgspec.json.Decoder(Any, float_hook=float)
_CONSULT_REQUEST = inspect.type_info(ConsultRequest)
# Bodies whose `__post_init__` is `require_payer`.
_WITH_PAYER = (ConsultRequest, PaymentChoice, WhyRequest, SessionRequest)
T = TypeVar("T")

# The largest number of allowed values that is listed in a message and searched for a similar one.
_MAX_LISTED = 16
# A longer value is no misspelling of an enum member, and comparing it would cost by its length.
_MAX_COMPARED = 40

_BYTE_ORDER_MARKS = ((b"\xef\xbb\xbf", "a byte order mark"), (b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"))
_NON_TOKEN = re.compile(r"[^A-Za-z0-9!#$%&'*+.^_`|~-]")
_STATUS_DESCRIPTIONS = {status: f';desc="{status.value}"' for status in SourceStatus}


def decode_request(body: bytes) -> ConsultRequest:
    """Raises `RequestRefused`: MALFORMED, or INVALID with every invalid field."""
    return decode(body, _decoder, _CONSULT_REQUEST)


def decode(body: bytes, decoder: msgspec.json.Decoder[T], type_info: inspect.Type) -> T:
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


def encode_consultation(consultation: Consultation, buffer: bytearray) -> bytes:
    """`buffer`: kept from answer to answer, because a new one grows and is copied a dozen times.

    Of one thread: another's answer must not come between the encoding and the copy.
    """
    _encoder.encode_into(consultation, buffer)
    return bytes(buffer)


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


def _refusal(body: bytes, error: Exception, type_info: inspect.Type) -> RequestRefused:
    return _invalid(body, type_info) if isinstance(error, msgspec.ValidationError) else _malformed(body, error)


def _invalid(body: bytes, type_info: inspect.Type) -> RequestRefused:
    """The typed decoder stops at the first invalid field: the rest may be malformed JSON."""
    try:
        value = _untyped.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        return _malformed(body, error)
    return invalid(*(tuple(_field_problems(type_info, value)) or (FieldProblem("", "INVALID", "is invalid"),)))


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


def _field_problems(
    type_info: inspect.Type, value: object, field: str = "", description: str = ""
) -> Iterator[FieldProblem]:
    """Compare a decoded JSON value with its msgspec type.

    `field` is the path so far, `description` the one that the type's metadata carries.
    """
    match type_info:
        case inspect.Metadata(type=inner, extra_json_schema=schema):
            yield from _field_problems(inner, value, field, (schema or {}).get("description", description))
        case inspect.UnionType(types=types):
            if value is not None or not any(isinstance(member, inspect.NoneType) for member in types):
                not_none = next(member for member in types if not isinstance(member, inspect.NoneType))
                yield from _field_problems(not_none, value, field, description)
        case inspect.StructType():
            yield from _object_problems(type_info, value, field)
        case inspect.EnumType(cls=cls):
            yield from _choice_problems([member.value for member in cls], value, field)
        case inspect.LiteralType(values=values):
            yield from _choice_problems([str(literal) for literal in values], value, field)
        case inspect.VarTupleType():
            yield from _list_problems(type_info, value, field)
        case inspect.StrType():
            yield from _text_problems(type_info, value, field, description)
        case inspect.BoolType() if not isinstance(value, bool):
            yield _wrong_type(field, "true or false", value)
        case inspect.IntType():
            yield from _number_problems(type_info, value, field)


def _object_problems(type_info: inspect.StructType, value: object, field: str) -> Iterator[FieldProblem]:
    if not isinstance(value, dict):
        yield _wrong_type(field, "an object", value)
        return
    # An explanation takes the order's own product where it names none.
    product = value.get("product", Product.SCAN if type_info.cls is WhyRequest else None)
    payer_missing = issubclass(type_info.cls, _WITH_PAYER) and value.get("user_id") is None and product != Product.SCAN
    for member in type_info.fields:
        path = f"{field}.{member.encode_name}" if field else member.encode_name
        if payer_missing and path == "user_id":
            yield FieldProblem(path, "MISSING", USER_ID_REQUIRED)
        elif member.encode_name in value:
            yield from _field_problems(member.type, value[member.encode_name], path)
        elif member.required:
            yield FieldProblem(path, "MISSING", "is required")


def _list_problems(type_info: inspect.VarTupleType, value: object, field: str) -> Iterator[FieldProblem]:
    if not isinstance(value, list):
        yield _wrong_type(field, "an array", value)
    elif type_info.max_length is not None and len(value) > type_info.max_length:
        yield FieldProblem(field, "TOO_LONG", f"must have at most {type_info.max_length} items")
    else:
        for index, item in enumerate(value):
            yield from _field_problems(type_info.item_type, item, f"{field}[{index}]")


def _choice_problems(allowed: Sequence[str], value: object, field: str) -> Iterator[FieldProblem]:
    if not isinstance(value, str):
        yield _wrong_type(field, "a string", value)
    elif value not in allowed:
        few = len(allowed) <= _MAX_LISTED
        listed = ", ".join(allowed) if few else f"{', '.join(allowed[:3])} … ({len(allowed)} values)"
        nearest = _nearest(value, allowed) if few else _upper_case_match(value, allowed)
        hint = f"; did you mean {nearest}?" if nearest else ""
        yield FieldProblem(field, "UNKNOWN_VALUE", f"must be one of {listed}{hint}")


def _nearest(value: str, allowed: Sequence[str]) -> str | None:
    if len(value) > _MAX_COMPARED:
        return None
    close = difflib.get_close_matches(value.upper().replace("-", "_").replace(" ", "_"), allowed, n=1)
    return close[0] if close else None


def _upper_case_match(value: str, allowed: Sequence[str]) -> str | None:
    upper = value[:_MAX_COMPARED].strip().upper()
    return upper if upper in allowed else None


def _text_problems(type_info: inspect.StrType, value: object, field: str, description: str) -> Iterator[FieldProblem]:
    if not isinstance(value, str):
        yield _wrong_type(field, "a string", value)
    elif type_info.min_length is not None and len(value) < type_info.min_length:
        yield FieldProblem(field, "TOO_SHORT", f"must have at least {_characters(type_info.min_length)}")
    elif type_info.max_length is not None and len(value) > type_info.max_length:
        yield FieldProblem(field, "TOO_LONG", f"must have at most {_characters(type_info.max_length)}")
    elif type_info.pattern is not None and re.search(type_info.pattern, value) is None:
        yield FieldProblem(
            field, "BAD_FORMAT", f"must be {description}" if description else f"must match {type_info.pattern}"
        )


def _number_problems(type_info: inspect.IntType, value: object, field: str) -> Iterator[FieldProblem]:
    if isinstance(value, float):
        yield FieldProblem(field, "WRONG_TYPE", "must be a whole number without fraction or exponent")
    elif isinstance(value, bool) or not isinstance(value, int):
        yield _wrong_type(field, "a whole number", value)
    elif (type_info.ge is not None and value < type_info.ge) or (type_info.le is not None and value > type_info.le):
        yield FieldProblem(field, "OUT_OF_RANGE", f"must be from {type_info.ge} to {type_info.le}")


def _characters(count: int) -> str:
    return "1 character" if count == 1 else f"{count} characters"


def _wrong_type(field: str, expected: str, value: object) -> FieldProblem:
    return FieldProblem(field, "WRONG_TYPE", f"must be {expected}, not {_json_type(value)}")


def _json_type(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"
