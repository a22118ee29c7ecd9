"""Wiring: constructs the parts of a `Cashier`. No other module constructs them."""
