"""The paths of all endpoints, as metrics and the access log name them: parameters by name."""

from __future__ import annotations

import re

CONSULT_PATH = "/v1/consult"
OTHER = "other"
_PAYMENT_PATH = "/v1/payments/{payment_id}"
ENDPOINT_PATHS = (
    CONSULT_PATH,
    "/v1/payments",
    _PAYMENT_PATH,
    *(
        f"{_PAYMENT_PATH}/{operation}"
        for operation in ("challenge", "cancel", "events", "stream-ticket", "resume", "replace")
    ),
    "/v1/orders/{order_id}/payment",
    "/v1/invalidate",
    "/v1/why",
    "/healthz",
    "/readyz",
    "/openapi.json",
)
# In each path with a parameter, its place among what the slashes separate.
_PARAMETER_AT = 3
_KNOWN = {re.sub("{.*?}", "*", path).encode(): path for path in ENDPOINT_PATHS}


def endpoint_path(target: bytes) -> str:
    """The path of the endpoint that a request target leads to; else `OTHER`."""
    path = target.partition(b"?")[0]
    if path not in _KNOWN:
        parts = path.split(b"/")
        if len(parts) > _PARAMETER_AT and parts[_PARAMETER_AT]:
            parts[_PARAMETER_AT] = b"*"
            path = b"/".join(parts)
    return _KNOWN.get(path, OTHER)
