"""The door: HTTP in, HTTP out."""

from __future__ import annotations

from cashier.web.consulting import Engine
from cashier.web.door import Door, OpenCashier, app, owning_app
from cashier.web.payments import Payments

__all__ = ["Door", "Engine", "OpenCashier", "Payments", "app", "owning_app"]
