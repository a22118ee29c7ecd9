"""An example consultation for the OpenAPI document, built from the structs to stay valid."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from cashier.consultation.flow import Consultation, OrderSummary
from cashier.domain.money import Money
from cashier.domain.order import ConsultRequest, Product, Terminal
from cashier.domain.pay_method import (
    Amounts,
    Availability,
    Discount,
    Health,
    Instrument,
    Kind,
    Limits,
    NextAction,
    PayMethod,
)
from cashier.fanout.ask import Importance, SourceReport, SourceStatus

_AT = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
_ORDER = Money("CNY", 12_800)

_REQUEST = ConsultRequest(
    order_id="o_1001",
    user_id="u_1",
    merchant_id="m_1",
    product=Product.STANDARD_CASHIER,
    terminal=Terminal.APP,
    amount=_ORDER,
    country="CN",
    locale="zh-CN",
    deadline_ms=150,
)
_METHOD = PayMethod(
    method_id="QUICK_PAY:c_2",
    kind=Kind.QUICK_PAY,
    title="CMB credit card (1014)",
    icon="bank/cmb",
    instrument=Instrument(id="c_2", bank="CMB", bank_name="CMB Bank", last4="1014", type="CREDIT", brand="UNIONPAY"),
    availability=Availability.AVAILABLE,
    reason=None,
    amount=Amounts(
        _ORDER, Money("CNY", 0), (Discount("p_1", "10 off 100", Money("CNY", 1_000)),), Money("CNY", 11_800)
    ),
    limits=Limits(Money("CNY", 2_000_000), Money("CNY", 4_880_000), Money("CNY", 19_100_000)),
    options=(),
    health=Health.UP,
    preferred=True,
    rank=1,
    rank_reasons=("LAST_USED", "SAVES:1000"),
    next_action=NextAction.CHALLENGE,
    required_fields=(),
    expires_in_s=None,
)
CONSULTATION = Consultation(
    # A token of an empty claim set.
    consult_token="eyJhbGciOiJIUzI1NiJ9.e30.ZRrHA1JJJW8opsbCGfG_HACGpVUMN_a9IV7pAx_Zmeo",  # noqa: S106
    consulted_at=_AT,
    expires_at=_AT + timedelta(minutes=5),
    order=OrderSummary("o_1001", "Tea", _ORDER, _AT + timedelta(minutes=30)),
    payable=True,
    blocked=None,
    degraded=False,
    sources=(SourceReport("quota", Importance.GATING, SourceStatus.FRESH, 0.1, 7.4, 0),),
    methods=(_METHOD,),
)

REQUEST: dict[str, Any] = {name: value for name, value in msgspec.to_builtins(_REQUEST).items() if value is not None}
RESPONSE: dict[str, Any] = msgspec.to_builtins(CONSULTATION)
