"""What a payment person would want to read. Pure: no async, no clock, no I/O, no logging."""
