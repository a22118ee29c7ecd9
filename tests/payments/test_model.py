"""Model test: random payers, retries, faults, crashes and clock jumps against two workers.

The ledger is audited after every step. By default a few fixed histories; `--proof` runs hundreds of
new ones.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from cashier.domain.payment_state import PaymentStatus
from tests.payments.model_machine import OBSERVED
from tests.payments.model_payers import PayerRules
from tests.payments.model_world_rules import WorldRules
from tests.support.seeds import draws_fresh_cases

# Histories within one seed are much alike.
SEEDS = 8
# What two thousand histories must reach, besides every status.
REACHED = (
    "money after FAILED",
    "money after CLOSED",
    "began: walk-in",
    "began: chosen coupons",
    "began: instalments",
    "began: free",
    "began: steps",
    "began: fee",
    "found",
    "asked to resume",
    "replaced",
    "channel changed",
    "reload",
    "rotation",
    "TOKEN_UNKNOWN_KEY",
    "stop",
    "OrderBusy",
    "RiskRejected",
    "ConsultChanged",
)


class PaymentMachine(PayerRules, WorldRules):
    """All rules."""


@pytest.mark.hypothesis
def test_no_history_breaks_a_guarantee(pytestconfig: pytest.Config) -> None:
    times: int = pytestconfig.getoption("proof")
    fresh = draws_fresh_cases(pytestconfig)
    histories = settings(
        max_examples=25 * times or 4,
        stateful_step_count=40,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )
    for number in range(SEEDS):
        run_state_machine_as_test(PaymentMachine if fresh else seed(number)(PaymentMachine), settings=histories)
    reached = (*PaymentStatus, *REACHED) if times >= 10 else PaymentStatus
    assert [what for what in reached if not OBSERVED[what]] == [], OBSERVED
