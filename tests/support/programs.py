"""Programs that a test needs and a machine may lack."""

from __future__ import annotations

import shutil

import pytest


def required_program(request: pytest.FixtureRequest, name: str) -> str:
    """Its path. Without it the test is skipped, or fails with `--require-programs`."""
    path = shutil.which(name)
    if path is None:
        reason = f"{name} is not installed"
        (pytest.fail if request.config.getoption("--require-programs") else pytest.skip)(reason)
    assert path is not None
    return path
