"""Model test: random payers, retries, faults, crashes and clock jumps against two workers.

The ledger is audited after every step. By default a few fixed histories; `--proof` runs hundreds of
new ones.
"""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from cashier.domain.payment_state import PaymentStatus
from cashier.sandbox.weather import PaymentFault
from tests.payments.model_machine import OBSERVED
from tests.payments.model_payers import PayerRules
from tests.payments.model_requests import Tampering, new_submit
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


@pytest.mark.parametrize("with_store", [False, True])
def test_the_model_allows_two_bodies_of_one_key_that_both_get_no_answer(*, with_store: bool) -> None:
    """Drawn histories seldom get there.

    The second body is refused if its worker can know of the first. Else it is PROCESSING until a
    query tells that the engine has the first one.
    """
    machine = PaymentMachine()
    machine.begins(0, with_store, True, ["indonesian_shop"])
    offers = (new_submit(machine.offers[0], method, "key", 0, Tampering.HONEST) for method in count())
    number = next(method for method, submit in enumerate(offers) if submit and submit.request.method_id == "VA")
    for worker, fault, bank in (
        (1, PaymentFault.ARRIVES_LATE, Tampering.HONEST),
        (0, PaymentFault.SWALLOW, Tampering.OPTION),
    ):
        machine.submits_new([("engine", "submit", fault, 1)], 0, number, 0, 0, bank, worker, "waits")
        machine.every_report_is_right()
        machine.time_passes(0.1)
    machine.teardown()
    first, second = machine.submits[:2]
    attempt = machine.world.engine.attempt(first.payment_id)
    assert first.payment_id == second.payment_id
    assert attempt is not None
    assert attempt.submission.fingerprint == first.fingerprint != second.fingerprint


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
