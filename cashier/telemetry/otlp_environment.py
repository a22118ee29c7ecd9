"""What the standard variables of OpenTelemetry add: headers with secrets, attributes of the pod.

https://opentelemetry.io/docs/specs/otel/protocol/exporter/
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from urllib.parse import unquote

from cashier.telemetry.span import Attributes

HEADERS_VARIABLES = ("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS")
ATTRIBUTES_VARIABLE = "OTEL_RESOURCE_ATTRIBUTES"


def otlp_headers(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The headers of each export, such as `authorization`. Never log them."""
    return {
        name.lower(): value for variable in HEADERS_VARIABLES for name, value in _pairs(environment.get(variable, ""))
    }


def resource_attributes(service_name: str, version: str, environment: Mapping[str, str] = os.environ) -> Attributes:
    """What all spans of this process have in common."""
    host, pid = socket.gethostname(), os.getpid()
    return {
        **dict(_pairs(environment.get(ATTRIBUTES_VARIABLE, ""))),
        "service.name": service_name,
        "service.version": version,
        "service.instance.id": f"{host}:{pid}",
        "host.name": host,
        "process.pid": pid,
    }


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    """Of `key=value,key=value`, percent-encoded. What is no pair is left out."""
    for pair in text.split(","):
        key, separator, value = pair.partition("=")
        if separator and key.strip():
            yield unquote(key.strip()), unquote(value.strip())
