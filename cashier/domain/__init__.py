"""The payment rules. Pure: no I/O, no clock, no asyncio, no logging."""
