"""Tracing off costs nothing, and faults of its settings are found at the start."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from msgspec.structs import replace

from cashier import Cashier
from cashier.settings.loader import configuration
from cashier.settings.schema import ConfigurationError
from cashier.wire.transport import CallHeaders
from tests.telemetry.rig import rig
from tests.telemetry.test_consultation_traces import CALLER

_SOURCES = {
    name: {"url": "http://127.0.0.1:9"}
    for name in ("order", "merchant", "member", "card", "balance", "channel", "quota")
}
_OFF = f"""
import sys
from cashier import Cashier
cashier = Cashier(config={{"sources": {_SOURCES!r}, "tokens": {{"secrets": ["s" * 32]}}}})
assert cashier._parts.tracing is None
assert not [name for name in sys.modules if name.startswith(("opentelemetry", "google.protobuf"))]
"""


def configured(**telemetry: Any) -> Cashier:
    table = {"sources": _SOURCES, "tokens": {"secrets": ("s" * 32,)}, "telemetry": telemetry}
    return Cashier(config=configuration(table, "cashier.toml"))


def test_off_nothing_of_opentelemetry_is_imported() -> None:
    subprocess.run([sys.executable, "-c", _OFF], check=True, timeout=60)


def test_off_the_callers_header_is_passed_on_as_it_is() -> None:
    cashier = configured()
    assert cashier._consult_headers("r-1", CALLER) == CallHeaders("r-1", CALLER)
    assert cashier._consult_headers("r-1", "garbage") == CallHeaders("r-1")


def test_without_the_extra_the_url_is_a_fault_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "cashier.telemetry.otlp_encoder", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.proto.collector.trace.v1.trace_service_pb2", None)
    with pytest.raises(ConfigurationError) as refused:
        configured(otlp_url="http://127.0.0.1:4318")
    (fault,) = refused.value.faults
    assert "[telemetry] otlp_url" in fault
    assert "pip install 'cashier[otel]'" in fault


@pytest.mark.parametrize(
    "url", ["127.0.0.1:4318", "http://u:s3cret@collector", "http://u:s3cret%40collector", "ftp://collector"]
)
def test_a_url_that_cannot_be_used_is_a_fault_of_the_configuration(url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        configured(otlp_url=url)
    assert "[telemetry] otlp_url" in str(refused.value)
    assert "s3cret" not in str(refused.value)


async def test_the_name_of_the_service_is_configured() -> None:
    async with rig(service_name="checkout-eu") as shop:
        await shop.consult()
        spans = await shop.spans()
    assert {span.resource["service.name"] for span in spans} == {"checkout-eu"}


async def test_a_reload_applies_the_shares_and_names_what_takes_a_restart() -> None:
    async with rig(sample_bps=0, payment_sample_bps=0) as shop:
        config = shop.cashier.config
        other = replace(
            config.settings.telemetry, otlp_url="http://127.0.0.1:1", service_name="other", sample_bps=10_000
        )
        before = shop.cashier._consult_headers("r-1", None)
        sentences = shop.cashier.reload(replace(config, settings=replace(config.settings, telemetry=other)))
        after = shop.cashier._consult_headers("r-1", None)
    assert sentences == ("[telemetry] otlp_url has changed", "[telemetry] service_name has changed")
    assert (before.traceparent is None, after.traceparent is None) == (True, False)
