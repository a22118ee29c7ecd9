"""The pages: the standard cashier, the embedded cashier and scan-to-pay, over a `Cashier`."""

from __future__ import annotations

from cashier.pages.application import Pages, app

__all__ = ["Pages", "app"]
