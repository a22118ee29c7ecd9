"""The cashier core: one order in, ranked ways to pay out, by the deadline."""
