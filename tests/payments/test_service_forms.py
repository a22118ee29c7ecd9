"""Risk, engine and acquirer as port objects and by adapters: the same payments as by functions."""

from __future__ import annotations

import pytest

from cashier.wiring import upstreams
from tests.payments.test_cancel_and_close import (
    test_a_cancel_that_the_engine_missed_is_repeated_by_a_later_query,
)
from tests.payments.test_challenges import (
    test_a_challenge_of_each_type_continues_the_same_payment,
    test_wrong_answers_are_counted_until_the_payment_fails_for_good,
)
from tests.payments.test_each_kind import test_a_kind_is_paid_through_to_the_acquirers_result
from tests.payments.test_unknown_outcomes import (
    test_a_submit_that_never_arrived_is_reversed_after_its_arrival_time_and_closed,
    test_a_submit_without_a_readable_answer_is_processing_and_not_repeated,
)
from tests.support.service_forms import as_port_object, by_adapter

pytestmark = pytest.mark.virtual_time

# Run below by pytest, with the fixture of this module.
SLICE = (
    test_a_cancel_that_the_engine_missed_is_repeated_by_a_later_query,
    test_a_challenge_of_each_type_continues_the_same_payment,
    test_a_kind_is_paid_through_to_the_acquirers_result,
    test_a_submit_that_never_arrived_is_reversed_after_its_arrival_time_and_closed,
    test_a_submit_without_a_readable_answer_is_processing_and_not_repeated,
    test_wrong_answers_are_counted_until_the_payment_fails_for_good,
)


@pytest.fixture(autouse=True, params=[as_port_object, by_adapter], ids=["port_object", "adapter"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstreams, "local_transport", request.param)
