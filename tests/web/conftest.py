"""The fixture of one running server, shared by all tests that do not stop it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.web.server_process import ServerProcess, running_server


@pytest.fixture(scope="session")
def server() -> Iterator[ServerProcess]:
    with running_server() as running:
        yield running
