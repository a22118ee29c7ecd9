"""The door: HTTP in, HTTP out."""

from __future__ import annotations

from cashier.web.application import Door, OpenCashier, app, owning_app
from cashier.web.consult_endpoint import Engine
from cashier.web.payments_port import Payments

__all__ = ["Door", "Engine", "OpenCashier", "Payments", "app", "owning_app"]
