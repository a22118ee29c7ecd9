"""The door: HTTP in, HTTP out."""

from __future__ import annotations

from cashier.web.consulting import Engine
from cashier.web.door import Door, OpenCashier, app, owning_app

__all__ = ["Door", "Engine", "OpenCashier", "app", "owning_app"]
