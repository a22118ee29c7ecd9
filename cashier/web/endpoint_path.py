"""The paths of all endpoints, as metrics and the access log name them: parameters by name."""

from __future__ import annotations

import re
from collections.abc import Iterable

CONSULT_PATH = "/v1/consult"
OTHER = "other"
_PAYMENT = "/v1/payments/{payment_id}"
API_PATHS = (
    CONSULT_PATH,
    "/v1/payments",
    _PAYMENT,
    *(
        f"{_PAYMENT}/{operation}"
        for operation in ("challenge", "challenge/resend", "cancel", "events", "stream-ticket", "resume", "replace")
    ),
    "/v1/orders/{order_id}/payment",
    "/v1/cashier-sessions",
    "/v1/till-sessions",
    "/v1/invalidate",
    "/v1/why",
    "/healthz",
    "/readyz",
    "/openapi.json",
    "/docs",
)
_PAGE, _EMBEDDED = "/cashier/{order_id}", "/cashier-embed/{order_id}"
_TILL = "/cashier-till/{merchant_id}/{terminal_id}"
_SALE = f"{_TILL}/sales/{{order_id}}"
_PAGE_STEPS = (
    "pay", "payment", "challenge", "challenge/resend", "cancel", "replace", "return", "card", "card/return",
    "methods", "events",
)  # fmt: skip
_EMBEDDED_STEPS = (
    "frame", "methods", "pay", "payment", "challenge", "challenge/resend", "cancel", "replace", "events",
)  # fmt: skip
PAGE_PATHS = (
    _PAGE,
    *(f"{_PAGE}/{step}" for step in _PAGE_STEPS),
    "/cashier.js",
    "/cashier-assets/{name}",
    _EMBEDDED,
    *(f"{_EMBEDDED}/{step}" for step in _EMBEDDED_STEPS),
    _TILL,
    f"{_TILL}/code",
    f"{_TILL}/sales",
    _SALE,
    *(f"{_SALE}/{step}" for step in ("scan", "code", "cancel", "events")),
    "/cashier-code/{merchant_id}",
)
ENDPOINT_PATHS = (*API_PATHS, *PAGE_PATHS)


def _by_shape(paths: Iterable[str]) -> dict[int, list[tuple[re.Pattern[bytes], str]]]:
    """By their number of slashes, which leaves few to try."""
    found: dict[int, list[tuple[re.Pattern[bytes], str]]] = {}
    for path in paths:
        pattern = re.sub("{.*?}", "[^/]+", re.escape(path).replace("\\{", "{").replace("\\}", "}"))
        found.setdefault(path.count("/"), []).append((re.compile(pattern.encode()), path))
    return found


_EXACT = {path.encode(): path for path in ENDPOINT_PATHS if "{" not in path}
_WITH_PARAMETERS = _by_shape(path for path in ENDPOINT_PATHS if "{" in path)


def endpoint_path(target: bytes) -> str:
    """The path of the endpoint that a request target leads to; else `OTHER`."""
    path = target.partition(b"?")[0]
    exact = _EXACT.get(path)
    if exact is not None:
        return exact
    for pattern, name in _WITH_PARAMETERS.get(path.count(b"/"), ()):
        if pattern.fullmatch(path):
            return name
    return OTHER
