"""Whether generated tests draw new cases."""

from __future__ import annotations

import pytest


def draws_fresh_cases(config: pytest.Config) -> bool:
    """With `--proof`, unless `--fixed-seeds` is given too."""
    return bool(config.getoption("proof")) and not config.getoption("fixed_seeds")
