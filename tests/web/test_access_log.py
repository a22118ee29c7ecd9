"""The access log names endpoints, never what a caller put into a path."""

from __future__ import annotations

import pytest

from cashier.web.endpoint_path import endpoint_path


@pytest.mark.parametrize(
    ("target", "endpoint"),
    [
        (b"/v1/consult", "/v1/consult"),
        (b"/healthz?x=u_1", "/healthz"),
        (b"/v1/payments", "/v1/payments"),
        (b"/v1/payments/pay_1?wait_ms=5", "/v1/payments/{payment_id}"),
        (b"/v1/payments/4111111111111111/events?ticket=t", "/v1/payments/{payment_id}/events"),
        (b"/v1/payments/4111111111111111/challenge/resend", "/v1/payments/{payment_id}/challenge/resend"),
        (b"/v1/payments/pay_1/4111111111111111", "other"),
        (b"/v1/orders/o_1/payment?user_id=u_1", "/v1/orders/{order_id}/payment"),
        (b"/v1/cashier-sessions", "/v1/cashier-sessions"),
        (b"/cashier/o_1?token=secret", "/cashier/{order_id}"),
        (b"/cashier/o_1/card/return?card_token=secret", "/cashier/{order_id}/card/return"),
        (b"/cashier/o_1/return?state=secret", "/cashier/{order_id}/return"),
        (b"/cashier/o_1/secret", "other"),
        (b"/v1/till-sessions", "/v1/till-sessions"),
        (b"/cashier-till/m_1/t_1?token=secret", "/cashier-till/{merchant_id}/{terminal_id}"),
        (b"/cashier-till/m_1/t_1/code", "/cashier-till/{merchant_id}/{terminal_id}/code"),
        (b"/cashier-till/m_1/t_1/sales", "/cashier-till/{merchant_id}/{terminal_id}/sales"),
        (b"/cashier-till/m_1/t_1/sales/o_1", "/cashier-till/{merchant_id}/{terminal_id}/sales/{order_id}"),
        (b"/cashier-till/m_1/t_1/sales/o_1/scan", "/cashier-till/{merchant_id}/{terminal_id}/sales/{order_id}/scan"),
        (b"/cashier-till/m_1/t_1/sales/o_1/secret", "other"),
        (b"/cashier-till/m_1/t_1/code/o_1", "other"),
        (b"/cashier-till/m_1/t_1/secret", "other"),
        (b"/cashier-code/m_1", "/cashier-code/{merchant_id}"),
        (b"/cashier-assets/0123456789ab.page.css", "/cashier-assets/{name}"),
        (b"/v1/consult/u_1", "other"),
        (b"/v1/payments/", "other"),
        (b"/v1/payments//events", "other"),
        (b"/v1/orders/o_1", "other"),
        (b"http://u_1/v1/consult", "other"),
        (b"/u_1", "other"),
    ],
)
def test_an_endpoint_has_names_in_the_place_of_values(target: bytes, endpoint: str) -> None:
    assert endpoint_path(target) == endpoint
