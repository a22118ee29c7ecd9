"""The pages: the standard cashier, the embedded cashier and scan-to-pay, over a `Cashier`."""
