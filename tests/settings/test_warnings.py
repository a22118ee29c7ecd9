"""Settings that are valid and can hardly be meant: a warning each, and the start goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cashier.settings.loader import configuration, load
from tests.settings.test_loader import services, source, table

EXAMPLE = Path(__file__).parent.parent.parent / "config/cashier.toml"
SECRET = "a-secret-of-at-least-thirty-two-bytes"


def test_the_example_has_no_warning() -> None:
    assert load(EXAMPLE).warnings == ()


@pytest.mark.parametrize(
    ("settings", "warning"),
    [
        (table(consult={"grace_ms": 150}), "[consult] grace_ms = 150 is not below deadline_ms = 150"),
        (table(consult={"grace_ms": 500}), "[consult] grace_ms = 500 is not below deadline_ms = 150"),
        (source(timeout_ms=1), "[sources.card] timeout_ms = 1: hardly any call over a network ends in time"),
        (table(accept={"look_ms": 1}), "[accept] look_ms = 1: hardly any call ends in time"),
        (
            services("risk", "engine", "acquirer") | {"server": {"drain_s": 14}},
            "[server] drain_s = 14 is shorter than a submit with the times of [accept], 15000 ms",
        ),
        (table(tokens={"secrets": [SECRET, SECRET]}), "[tokens] secrets holds the same secret twice"),
        (
            table(
                tokens={"secrets": [SECRET]},
                auth={"mode": "jwt", "issuer": "i", "audience": "a", "secret": SECRET},
            ),
            "[auth] secret is also in [tokens] secrets",
        ),
        (
            table(auth={"mode": "jwt", "issuer": "i", "audience": "a", "secret": SECRET, "leeway_s": 3600}),
            "[auth] leeway_s = 3600",
        ),
        (table(consult={"extra_calls_bps": 0}), "[consult] extra_calls_bps = 0 leaves order, "),
        (
            source(http1={"ca_file": "ca.pem"}),
            "[sources.card] http1.ca_file has no effect: no url begins with https://",
        ),
        (
            source(transport="aiohttp", aiohttp={"client_cert_file": "c.pem"}),
            "[sources.card] aiohttp.client_cert_file has no effect",
        ),
    ],
)
def test_a_setting_that_can_hardly_be_meant_is_a_warning(settings: dict[str, Any], warning: str) -> None:
    warnings = configuration(settings, "cashier.toml").warnings
    assert [text for text in warnings if text.startswith(warning)], warnings
    assert not any(SECRET in text for text in warnings)
