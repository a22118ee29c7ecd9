"""Faults of `[operations]`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from cashier.settings.operations import OperationsSettings, operations_faults
from cashier.web.auth import AuthSettings
from cashier.web.server import ServerSettings


def faults(auth: AuthSettings | None = None, server: ServerSettings | None = None, **settings: Any) -> Iterator[str]:
    return operations_faults(OperationsSettings(**settings), auth or AuthSettings(), server or ServerSettings())


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"])
def test_loopback_needs_no_authentication(host: str) -> None:
    assert list(faults(host=host)) == []


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.1.2.3", "cashier.internal"])
def test_beyond_loopback_only_with_tokens(host: str) -> None:
    (fault,) = faults(host=host)
    assert 'set [auth] mode = "jwt"' in fault
    assert list(faults(AuthSettings(mode="none", insecure=True), host=host)) == [fault]
    assert list(faults(AuthSettings(mode="jwt"), host=host)) == []
    assert list(faults(host=host, enabled=False)) == []


def test_the_port_is_not_that_of_the_service() -> None:
    (fault,) = faults(port=8080)
    assert "is also the [server] port" in fault
    assert list(faults(server=ServerSettings(port=0), port=0)) == []
