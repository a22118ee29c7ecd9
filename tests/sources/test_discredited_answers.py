"""Every answer that its source refuses is reported to the connection that delivered it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cashier.domain.engine_contract import OutcomeUnknown
from cashier.source_errors import Garbled, Overloaded, SourceError, Unanswered, Unreachable, WrongIdentity
from cashier.sources.acquirer import parse_result
from cashier.sources.batch_call import BatchWireUpstream
from cashier.sources.engine import parse_look_up, parse_reverse, parse_submit
from cashier.sources.member import MEMBER
from cashier.sources.risk import parse_decision, parse_verification
from cashier.sources.source import parse_response
from cashier.wire.in_process import InProcessTransport
from cashier.wire.transport import Response


class Connection:
    def __init__(self) -> None:
        self.errors: list[SourceError] = []

    def discredit(self, error: SourceError) -> bool:
        self.errors.append(error)
        return True


async def _unused(_request: Any) -> Response:
    raise AssertionError("no call is made")


def batch_of_two(response: Response) -> Any:
    upstream = BatchWireUpstream(MEMBER, InProcessTransport(_unused), "/batch")
    return upstream._outcomes(response, [{"user_id": "u_1"}, {"user_id": "u_2"}])


OTHER_PAYMENT = b'{"payment_id":"pay_2","status":"PROCESSING"}'
SOURCES: dict[str, tuple[Callable[[Response], Any], bytes]] = {
    "member": (
        lambda response: parse_response(MEMBER, response, {"user_id": "u_1"}),
        b'{"user_id":"u_2","status":"ACTIVE","country":"CN","kyc_level":1,"usage":[]}',
    ),
    "batch": (
        batch_of_two,
        b'{"answers":[{"ok":{"user_id":"u_2","status":"ACTIVE","country":"CN","kyc_level":1,"usage":[]}},'
        b'{"error":{"status":404}}]}',
    ),
    "submit": (lambda response: parse_submit(response, "pay_1", "o_1"), OTHER_PAYMENT),
    "look-up": (lambda response: parse_look_up(response, "pay_1", "o_1"), OTHER_PAYMENT),
    "reverse": (lambda response: parse_reverse(response, "pay_1", "o_1"), OTHER_PAYMENT),
    "result": (lambda response: parse_result(response, "o_1"), b'{"order_id":"o_2","status":"PENDING"}'),
    "decision": (
        lambda response: parse_decision(response, "pay_1"),
        b'{"decision":"ACCEPT","decision_id":"d_1","payment_id":"pay_2"}',
    ),
    "verification": (
        lambda response: parse_verification(response, "pay_1"),
        b'{"status":"PASSED","attempts_left":1,"payment_id":"pay_2"}',
    ),
}


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, None, WrongIdentity),
        (200, b"<html>", Garbled),
        (400, b"", Garbled),
        (500, b"", Unreachable),
        (503, b"", Overloaded),
    ],
    ids=["another subject", "no JSON", "400", "500", "503"],
)
def test_a_refused_answer_is_reported_to_its_connection(
    name: str, status: int, body: bytes | None, kind: type[SourceError]
) -> None:
    parse, of_another = SOURCES[name]
    connection = Connection()
    outcome = parse(Response(status, of_another if body is None else body, None, connection))
    assert [type(error) for error in connection.errors] == [kind]
    if isinstance(outcome, Unanswered | OutcomeUnknown):
        assert outcome.error is connection.errors[0]
    assert connection.errors[0].elsewhere


@pytest.mark.parametrize(
    ("name", "status", "body"),
    [
        ("member", 200, b'{"user_id":"u_1","status":"ACTIVE","country":"CN","kyc_level":1,"usage":[]}'),
        ("member", 404, b""),
        ("look-up", 404, b""),
        ("submit", 409, b'{"code":"ORDER_BUSY","payment_id":"pay_2"}'),
        ("submit", 422, b'{"code":"KEY_REUSED"}'),
        ("decision", 200, b'{"decision":"ACCEPT","decision_id":"d_1"}'),
        ("verification", 404, b'{"code":"CHALLENGE_NOT_FOUND"}'),
    ],
)
def test_an_accepted_answer_is_not(name: str, status: int, body: bytes) -> None:
    connection = Connection()
    SOURCES[name][0](Response(status, body, None, connection))
    assert connection.errors == []
