"""Acceptance: take a payment through, once, whatever happens. Stateless: what lasts is the engine's and the acquirer's, what travels is
in tokens. It is handed its upstreams; no wire and no web is known here."""
