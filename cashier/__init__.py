"""Payment cashier core: ranked payment methods for an order by a deadline, and its payment.

async with Cashier.from_config("config/cashier.toml") as cashier:
    answer = await cashier.consult(ConsultRequest(order_id="o_1001", user_id="u_1", …))
    request = PaymentRequest(consult_token=answer.consult_token, …)
    payment = await cashier.payments.submit(request, "an-idempotency-key")
"""

from cashier.consultation.answer import Consultation, ConsultError, NotOpen, OrderUnknown, RequiredSourceUnavailable
from cashier.core import Cashier
from cashier.domain.money import Money
from cashier.domain.order import ConsultRequest, Product, Terminal
from cashier.domain.pay_method import Availability, Kind, PayMethod
from cashier.domain.payment_request import Device, PaymentRequest
from cashier.domain.payment_resource import Payment
from cashier.domain.payment_state import PaymentStatus as PaymentStatus
from cashier.payments.errors import (
    AcceptError,
    CheckUnavailable,
    ConsultChanged,
    EngineUnavailable,
    InFlight,
    Invalid,
    KeyReused,
    OrderBusy,
    RiskRejected,
    TooManyPayments,
)
from cashier.settings.schema import Configuration, ConfigurationError
from cashier.source_errors import Garbled, Overloaded, SourceError, Unreachable, WrongIdentity
from cashier.tokens.jws import TokenRefused
from cashier.version import __version__

__all__ = [
    "AcceptError",
    "Availability",
    "Cashier",
    "CheckUnavailable",
    "Configuration",
    "ConfigurationError",
    "ConsultChanged",
    "ConsultError",
    "ConsultRequest",
    "Consultation",
    "Device",
    "EngineUnavailable",
    "Garbled",
    "InFlight",
    "Invalid",
    "KeyReused",
    "Kind",
    "Money",
    "NotOpen",
    "OrderBusy",
    "OrderUnknown",
    "Overloaded",
    "PayMethod",
    "Payment",
    "PaymentRequest",
    "PaymentStatus",
    "Product",
    "RequiredSourceUnavailable",
    "RiskRejected",
    "SourceError",
    "Terminal",
    "TokenRefused",
    "TooManyPayments",
    "Unreachable",
    "WrongIdentity",
    "__version__",
]
