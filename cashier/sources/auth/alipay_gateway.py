"""RSA2 of Alipay's gateway: signed forms, and answers whose node is signed as it was sent.

https://opendocs.alipay.com/common/02kf5q and https://opendocs.alipay.com/common/02mse7.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, urlencode

import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from msgspec import Raw, Struct
from msgspec.structs import replace

from cashier.source_errors import FailureReason, Garbled, SourceError
from cashier.sources.auth.authenticator import not_sent, with_headers
from cashier.sources.auth.rsa_keys import is_signed, signature
from cashier.sources.auth.secret import Secret
from cashier.sources.source import error_of_response
from cashier.wire.transport import Request, Response

FORM_MEDIA_TYPE = "application/x-www-form-urlencoded"
# The gateway compares times with its own clock, in China without daylight saving time.
_CHINA = timezone(timedelta(hours=8))
_METHOD = re.compile(r"[a-z0-9_]+(?:\.[a-z0-9_]+)+")
_CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_decode_nodes = msgspec.json.Decoder(dict[str, Raw]).decode


class _Refusal(Struct, frozen=True):
    code: Any = None
    sub_code: Any = None


def sorted_text(parameters: Mapping[str, str]) -> bytes:
    """What is signed: all parameters but `sign` and empty ones, by name, not encoded."""
    pairs = sorted((name, value) for name, value in parameters.items() if value and name != "sign")
    return "&".join(f"{name}={value}" for name, value in pairs).encode()


class AlipayGateway:
    """An `Authenticator` of requests with the parameter `method`, in the query or in a form.

    The adapter gives `method`, `biz_content` and others; all that is common is added here, to the
    query. It gets the verified node of an answer, and nothing else of it.
    """

    slow, reads_headers = True, False

    def __init__(
        self,
        app_id: str,
        key: Secret[RSAPrivateKey],
        gateway_key: Secret[RSAPublicKey],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._app_id = app_id
        self._key = key
        self._gateway_key = gateway_key
        self._now = now

    def authenticate(self, request: Request) -> Request:
        path, _, query = request.target.partition("?")
        in_query, in_form = _parameters(query), _parameters(_form(request))
        if in_query.keys() & in_form.keys():
            raise _wrong_request("names a parameter twice")
        added = {
            "app_id": self._app_id,
            "format": "JSON",
            "charset": "utf-8",
            "sign_type": "RSA2",
            "timestamp": datetime.fromtimestamp(self._now(), UTC).astimezone(_CHINA).strftime("%Y-%m-%d %H:%M:%S"),
            "version": "1.0",
        }
        if (added.keys() | {"sign"}) & (in_query.keys() | in_form.keys()):
            raise _wrong_request(f"sets one of {', '.join(added)} and sign, which auth.rsa2 sets")
        _method(in_query | in_form)
        parameters = in_query | added
        sign = signature(self._key.value, sorted_text(parameters | in_form))
        target = f"{path}?{urlencode(parameters | {'sign': sign})}"
        form = urlencode(in_form).encode("ascii")
        return with_headers(request, (), target=target, body=form, renew=partial(self.authenticate, request))

    def judge(self, request: Request, response: Response) -> Response | SourceError:
        if response.status != 200:
            return error_of_response(response)
        method = _method(_parameters(request.target.partition("?")[2]) | _parameters(_form(request)))
        try:
            nodes = _decode_nodes(response.body)
            sign = msgspec.json.decode(nodes["sign"], type=str) if "sign" in nodes else ""
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return _forged(response, "an answer that is no JSON object")
        name = f"{method.replace('.', '_')}_response"
        if name not in nodes:
            name = "error_response"
        node = bytes(nodes.get(name, b""))
        if not node:
            return _forged(response, f"an answer without {method.replace('.', '_')}_response")
        if not is_signed(self._gateway_key.value, node, sign):
            what = "a wrongly signed answer" if sign else "an unsigned answer"
            return _forged(response, f"{what}{_codes(node)}")
        return replace(response, body=b'{"%b":%b}' % (name.encode(), node))

    def __repr__(self) -> str:
        return f"<AlipayGateway {self._app_id}>"


def _form(request: Request) -> str:
    """The body as a form. Raises `SourceError` for a body that is something else."""
    if not request.body:
        return ""
    media_types = [value for name, value in request.headers if name.lower() == "content-type"]
    if not media_types or not media_types[0].startswith(FORM_MEDIA_TYPE):
        raise _wrong_request(f"has a body, but no header Content-Type: {FORM_MEDIA_TYPE}")
    try:
        return request.body.decode("ascii")
    except UnicodeDecodeError:
        raise _wrong_request("has a form that is not percent-encoded") from None


def _parameters(encoded: str) -> dict[str, str]:
    """Raises `SourceError` for what has no unique text form."""
    try:
        pairs = parse_qsl(encoded, keep_blank_values=True, strict_parsing=bool(encoded), errors="strict")
    except ValueError:
        raise _wrong_request("has parameters that are not percent-encoded UTF-8") from None
    parameters = dict(pairs)
    if len(parameters) < len(pairs):
        raise _wrong_request("names a parameter twice")
    return parameters


def _method(parameters: Mapping[str, str]) -> str:
    method = parameters.get("method", "")
    if not _METHOD.fullmatch(method):
        raise _wrong_request("has no parameter method, such as alipay.trade.query")
    return method


def _wrong_request(fault: str) -> SourceError:
    return not_sent(f"a request of the adapter {fault}", FailureReason.ADAPTER)


def _forged(response: Response, what: str) -> SourceError:
    forged = Garbled(f"{what}: it may be forged, and counts as none", reason=FailureReason.SIGNATURE)
    return response.discredit(forged)


def _codes(node: bytes) -> str:
    """The gateway signs no refusal of a request whose own signature it cannot verify."""
    try:
        refusal = msgspec.json.decode(node, type=_Refusal)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    codes = [code for code in (refusal.code, refusal.sub_code) if isinstance(code, str) and _CODE.fullmatch(code)]
    return f" with code {' '.join(codes)}" if codes else ""
