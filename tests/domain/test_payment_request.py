"""The payment request never shows its secrets and enforces its bounds."""

from __future__ import annotations

import msgspec
import pytest
from rich.pretty import pretty_repr

from cashier.domain.payment_request import PaymentChoice, PaymentMeans, PaymentRequest

BODY = {
    "consult_token": "header.payload.signature",
    "order_id": "o_1001",
    "user_id": "u_1",
    "merchant_id": "m_1",
    "product": "STANDARD_CASHIER",
    "terminal": "APP",
    "method_id": "QUICK_PAY:c_2",
    "option_id": None,
    "promotion_ids": ["p_1"],
    "expected_payable": {"currency": "CNY", "value": 11_800},
    "card_token": "tok_secret",
    "auth_code": "281234567890123456",
    "device": {"ip": "203.0.113.7", "device_id": "d_1", "user_agent": "secret agent"},
    "return_url": "https://shop.example/back?session=secret",
}
REQUEST = msgspec.convert(BODY, PaymentRequest)


def test_the_request_body_is_a_choice_and_its_means() -> None:
    assert REQUEST.chosen == msgspec.convert(
        {name: BODY[name] for name in PaymentChoice.__struct_fields__ if name in BODY}, PaymentChoice
    )
    assert REQUEST.means == PaymentMeans(
        card_token="tok_secret", auth_code="281234567890123456", return_url=REQUEST.return_url
    )
    assert type(REQUEST.chosen) is PaymentChoice, "the consult token and the device stay behind"


@pytest.mark.parametrize("show", [repr, str, pretty_repr])
def test_secrets_are_never_shown(show: object) -> None:
    assert callable(show)
    for part in (REQUEST, REQUEST.means, REQUEST.device):
        shown = show(part)
        for secret in ("secret", "2812345", "203.0.113.7", "signature"):
            assert secret not in shown
    assert "card_token" in show(REQUEST.means)
    assert "o_1001" in show(REQUEST)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("order_id", "o 1"),
        ("method_id", ""),
        ("method_id", "m" * 129),
        ("method_id", "QUICK_PAY\n"),
        ("option_id", "\x00"),
        ("promotion_ids", ["p"] * 17),
        ("card_token", "tok 1"),
        ("auth_code", "２８"),
        ("return_url", "javascript:alert(1)"),
        ("return_url", "https://shop.example/\r\nSet-Cookie: a=b"),
        ("return_url", "https://" + "a" * 2041),
        ("expected_payable", {"currency": "CNY", "value": -1}),
        ("consult_token", ""),
    ],
)
def test_a_value_beyond_its_bounds_is_refused(field: str, value: object) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(BODY | {field: value}, PaymentRequest)
