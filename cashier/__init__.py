"""The cashier core: one order in, ranked ways to pay out, by the deadline, with what is not known said.

async with Cashier.from_config("config/cashier.toml") as cashier:
    answer = await cashier.consult(ConsultRequest(order_id="o_1001", user_id="u_1", merchant_id="m_1", …))
"""

from cashier.answer import Garbled, Overloaded, SourceError, Unreachable, WrongIdentity
from cashier.consult import Consultation, ConsultError, OrderUnknown, RequiredSourceUnavailable
from cashier.domain.method import Availability, Kind, PayMethod
from cashier.domain.money import Money
from cashier.domain.order import ConsultRequest, Product, Terminal
from cashier.settings import Configuration, ConfigurationError
from cashier.wiring import Cashier

__all__ = [
    "Availability",
    "Cashier",
    "Configuration",
    "ConfigurationError",
    "ConsultError",
    "ConsultRequest",
    "Consultation",
    "Garbled",
    "Kind",
    "Money",
    "OrderUnknown",
    "Overloaded",
    "PayMethod",
    "Product",
    "RequiredSourceUnavailable",
    "SourceError",
    "Terminal",
    "Unreachable",
    "WrongIdentity",
]
