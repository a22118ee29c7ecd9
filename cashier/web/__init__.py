"""The HTTP server side: the application, its endpoints and the server that runs it."""

from __future__ import annotations

from cashier.web.application import CashierApp, CashierFactory, app, owning_app
from cashier.web.ports import ConsultService, PaymentsPort

__all__ = ["CashierApp", "CashierFactory", "ConsultService", "PaymentsPort", "app", "owning_app"]
