"""Acceptance: take a payment through exactly once.

Stateless: durable state is at the engine and the acquirer, everything else travels in signed
tokens. The package receives its upstreams as ports and knows neither wire nor web.
"""
