"""The payment resource on the wire, and its texts."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from msgspec import structs

from cashier.domain.challenge_progress import ChallengeProgress, RiskChallengeTerms, next_challenge
from cashier.domain.next_action import Action, Await, DisplayCode, DisplayQr, DisplayVa, Redirect, Sdk, expiry
from cashier.domain.pay_method import Kind
from cashier.domain.payment_message import RETURN_PROMISES, MessageCode
from cashier.domain.payment_resource import Payment, RouteTaken, challenge, message
from cashier.domain.payment_state import PaymentStatus
from cashier.domain.text_form import Form
from cashier.domain.upstream_report import Arrived
from tests.domain.builders import CATALOG, cny

LATER = "2026-05-15T13:00:00Z"
AT = datetime(2026, 5, 15, 13, 0, tzinfo=UTC)
ACTIONS: list[tuple[dict[str, Any], type, datetime | None]] = [
    ({"type": "REDIRECT", "method": "GET", "url": "https://bank.example/"}, Redirect, None),
    (
        {"type": "REDIRECT", "method": "POST", "url": "https://b.example/", "fields": {"a": "1"}, "applink": "b://"},
        Redirect,
        None,
    ),
    ({"type": "DISPLAY_QR", "data": "https://q.example/1", "expires_at": LATER}, DisplayQr, AT),
    ({"type": "DISPLAY_CODE", "code": "12", "institution": "Alfamart", "expires_at": LATER}, DisplayCode, AT),
    (
        {
            "type": "DISPLAY_VA",
            "bank": "BCA",
            "account_no": "88",
            "account_name": "x",
            "amount": {"currency": "IDR", "value": 5},
        }
        | {"expires_at": LATER},
        DisplayVa,
        AT,
    ),
    ({"type": "SDK", "payload": {"prepay_id": "1"}}, Sdk, None),
    ({"type": "AWAIT", "poll_after_ms": 1_000, "until": LATER}, Await, AT),
]


@pytest.mark.parametrize(("written", "action_type", "ends_at"), ACTIONS)
def test_an_action_is_passed_on_unchanged(written: dict[str, Any], action_type: type, ends_at: datetime | None) -> None:
    read: Action = msgspec.json.decode(msgspec.json.encode(written), type=Action)
    assert type(read) is action_type
    assert msgspec.json.decode(msgspec.json.encode(read)) == written
    assert expiry(read) == ends_at


@pytest.mark.parametrize(
    "written",
    [{"type": "DANCE"}, {"type": "REDIRECT", "method": "PUT", "url": "x"}, {"type": "DISPLAY_QR", "data": "x"}],
)
def test_an_action_outside_the_contract_is_not_decoded(written: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(written, Action)


def test_a_payment_has_the_fields_of_the_contract() -> None:
    carried = ChallengeProgress(
        challenge_id="ch_1",
        type="SMS_OTP",
        render_value="138****1234",
        decision_id="d_1",
        started_at=0,
        expires_at=300,
        attempts=1,
        of=3,
    )
    payment = Payment(
        payment_id="pay_1",
        order_id="o_1",
        status=PaymentStatus.CHALLENGE,
        amount=cny(11_800),
        challenge=challenge(carried),
        next_action=None,
        route=RouteTaken(rule="cheapest_healthy"),
        message=message(MessageCode.CHALLENGE, Kind.CARD, CATALOG.texts["en"]),
        poll_after_ms=None,
        payment_token="t",
        expires_at=AT,
    )
    assert msgspec.json.decode(msgspec.json.encode(payment)) == {
        "payment_id": "pay_1",
        "order_id": "o_1",
        "status": "CHALLENGE",
        "amount": {"currency": "CNY", "value": 11_800},
        "challenge": {
            "challenge_id": "ch_1",
            "type": "SMS_OTP",
            "render_value": "138****1234",
            "trigger": "RISK",
            "attempts_left": 2,
            "expires_at": "1970-01-01T00:05:00Z",
        },
        "next_action": None,
        "route": {"rule": "cheapest_healthy"},
        "message": {"code": "CHALLENGE", "text": "Please verify your identity."},
        "poll_after_ms": None,
        "payment_token": "t",
        "expires_at": LATER,
        "received": None,
        "returned": None,
    }


@pytest.mark.parametrize("locale", CATALOG.texts)
@pytest.mark.parametrize("kind", Kind)
def test_every_message_has_a_text_in_every_locale(locale: str, kind: Kind) -> None:
    for code in MessageCode:
        rendered = message(code, kind, CATALOG.texts[locale])
        assert rendered.code is code
        assert rendered.text
        assert "{" not in rendered.text


@pytest.mark.parametrize(("locale", "promise"), [("en", "to where it came from"), ("zh-CN", "原路")])
def test_only_kinds_with_a_way_back_promise_it(locale: str, promise: str) -> None:
    for kind in Kind:
        promising = {code for code in MessageCode if promise in message(code, kind, CATALOG.texts[locale]).text}
        assert promising == (RETURN_PROMISES if kind not in (Kind.VA, Kind.OTC) else set())


@pytest.mark.parametrize(
    ("code", "received", "returned", "kind", "text"),
    [
        ("UNDERPAID", 50, 0, "VA", "已收到¥0.50，应付¥1.13，请补足¥0.63"),
        ("UNDERPAID", 80, 30, "VA", "已收到¥0.50，应付¥1.13，请补足¥0.63"),
        ("OVERPAID", 120, 7, "VA", "支付成功。多付的¥0.07请联系商家办理退款"),
        ("OVERPAID", 120, 7, "CARD", "支付成功。多付的¥0.07将在15个工作日内原路退回"),
        ("CLOSED_UNPAID", 120, 7, "VA", "交易已关闭，未扣款"),
    ],
)
def test_a_message_names_the_sums(code: str, received: int, returned: int, kind: str, text: str) -> None:
    arrived = Arrived(cny(received), cny(returned), cny(113))
    assert message(MessageCode(code), Kind(kind), CATALOG.texts["zh-CN"], arrived=arrived).text == text


@pytest.mark.parametrize(
    ("type_", "code", "left", "expected"),
    [
        ("SMS_OTP", MessageCode.CHALLENGE_WRONG, 2, "验证码错误，还可输入2次"),
        ("PASSWORD", MessageCode.CHALLENGE_WRONG, 1, "支付密码错误，还可输入1次"),
        ("BIOMETRIC", MessageCode.CHALLENGE_WRONG, 2, "指纹或面容不匹配，还可尝试2次"),
        ("THREE_DS", MessageCode.CHALLENGE_WRONG, 2, "银行验证未通过，还可尝试2次"),
        ("IRIS", MessageCode.CHALLENGE_WRONG, 2, "验证未通过，还可尝试2次"),
        ("SMS_OTP", MessageCode.CHALLENGE, 3, "请输入短信验证码"),
        ("IRIS", MessageCode.CHALLENGE, 3, "请完成身份验证"),
        ("PASSWORD", MessageCode.PROCESSING, 3, "支付处理中，请稍候"),
    ],
)
def test_a_payer_reads_what_was_wrong_and_how_many_attempts_are_left(
    type_: str, code: MessageCode, left: int, expected: str
) -> None:
    requested = RiskChallengeTerms("ch_1", type_, "", left, 300)
    progress = next_challenge(requested, "d_1", 0)
    assert message(code, Kind.QUICK_PAY, CATALOG.texts["zh-CN"], progress).text == expected


@pytest.mark.parametrize(("locale", "expected"), [("en", "within 15 working days"), ("zh-CN", "将在15个工作日内")])
def test_a_payer_of_a_closed_order_reads_when_the_money_comes_back(locale: str, expected: str) -> None:
    for code in (MessageCode.CLOSED_REFUNDING, MessageCode.PAID_TWICE_REFUNDING, MessageCode.CLOSED):
        assert expected in message(code, Kind.CARD, CATALOG.texts[locale]).text


def test_a_missing_message_is_a_fault_of_the_catalog() -> None:
    known = CATALOG.texts["en"].payments
    payments: dict[MessageCode, Any] = {**known}
    del payments[MessageCode.CLOSING]
    assert faults_of(payments) == ["texts: [en.payments] has no CLOSING"]


@pytest.mark.parametrize("code", sorted(RETURN_PROMISES))
@pytest.mark.parametrize("forms", ["It goes back.", {Form.GENERAL: "It goes back."}])
def test_a_promise_of_a_return_needs_a_text_without_it(code: MessageCode, forms: Any) -> None:
    assert faults_of({**CATALOG.texts["en"].payments, code: forms}) == [
        f"texts: [en.payments] {code} has no no_way_back, for money that cannot go back as it came"
    ]


def test_an_unknown_placeholder_in_a_message_is_a_fault_of_the_catalog() -> None:
    (fault,) = faults_of({**CATALOG.texts["en"].payments, MessageCode.UNDERPAID: "{amount} came"})
    assert fault.startswith("texts: [en.payments] UNDERPAID: '{amount} came' cannot be filled in")


def faults_of(payments: dict[MessageCode, Any]) -> list[str]:
    english = structs.replace(CATALOG.texts["en"], payments=payments)
    return structs.replace(CATALOG, texts={**CATALOG.texts, "en": english}).faults()
