"""The HTTP server side: the application, its endpoints and the server that runs it."""

from __future__ import annotations

from cashier.web.application import CashierApp, CashierFactory, app, owning_app
from cashier.web.consult_endpoint import ConsultService
from cashier.web.payments_port import PaymentsPort

__all__ = ["CashierApp", "CashierFactory", "ConsultService", "PaymentsPort", "app", "owning_app"]
