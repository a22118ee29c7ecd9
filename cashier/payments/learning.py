"""What acceptance learns about facts, passed on so that no consultation offers from older ones.

Never waits: `forget` returns at once. Each payment teaches the same lesson once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from cashier.domain.learned_facts import FactGroup, FactGroups, learned_from_changes, learned_from_failure
from cashier.domain.order import ConsultRequest
from cashier.domain.payment_state import PaymentStatus
from cashier.domain.upstream_report import EngineReport, EngineReportStatus
from cashier.payments.attempt import Attempt, attempt_from_token
from cashier.payments.errors import ConsultChanged
from cashier.payments.payment_metrics import PaymentMetrics
from cashier.payments.policy import Operation
from cashier.tokens.payment_state_token import PaymentClaims

# Every query of an ended payment finds the same end again.
MAX_ENDED = 50_000
_HOLDINGS = frozenset({FactGroup.HOLDINGS})

# Drops what a consultation has kept of these facts, for payer, merchant and market of the request.
ForgetFacts = Callable[[FactGroups, ConsultRequest], None]


class Learning:
    """`lessons` counts those that were passed on."""

    def __init__(self, forget: ForgetFacts, counts: PaymentMetrics | None = None) -> None:
        self._forget = forget
        self._ended: OrderedDict[tuple[str, PaymentStatus], None] = OrderedDict()
        self._counts = counts or PaymentMetrics()

    def __repr__(self) -> str:
        return f"<Learning lessons={self._counts.lessons.value}>"

    def from_refusal(self, attempt: Attempt, changed: ConsultChanged) -> None:
        """The accepted offer no longer holds."""
        blocked = changed.consultation.blocked
        self._pass_on(learned_from_changes(changed.changes, None if blocked is None else blocked.code), attempt)

    def from_submit(self, attempt: Attempt) -> None:
        """The engine may have taken or reserved something."""
        self._pass_on(_HOLDINGS, attempt)

    def from_end(
        self, claims: PaymentClaims, operation: Operation, status: PaymentStatus, engine: EngineReport
    ) -> None:
        """The payment is over: what it took is gone or is back, and a failure has a reason."""
        if claims.sent_at is None or (claims.payment_id, status) in self._ended:
            return
        self._ended[claims.payment_id, status] = None
        if len(self._ended) > MAX_ENDED:
            self._ended.popitem(last=False)
        failed = engine.status is EngineReportStatus.FAILED
        learned = _HOLDINGS | learned_from_failure(engine.failure_code or "") if failed else _HOLDINGS
        self._pass_on(learned, attempt_from_token(claims, operation))

    def _pass_on(self, learned: FactGroups, attempt: Attempt) -> None:
        if learned:
            self._counts.lessons.add()
            self._forget(learned, attempt.consult_request(with_claims=True))
