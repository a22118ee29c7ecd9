"""Contradictions between the times of the payment path. Pure.

A configured time that another setting would cut is refused at the start.
"""

from __future__ import annotations

from collections.abc import Iterator

from cashier.domain.catalog import Catalog
from cashier.domain.kinds import KINDS
from cashier.payments.settings import AcceptSettings
from cashier.settings.schema import ServiceSettings, Settings
from cashier.sources.idempotent_retry import MOST_ATTEMPTS, RetrySettings

# The services whose look-ups are retried.
_RETRIED = ("engine", "acquirer")


def payment_faults(settings: Settings, catalog: Catalog) -> Iterator[str]:
    """One sentence each, with both keys and a remedy."""
    accept = settings.accept
    for name in _RETRIED:
        service: ServiceSettings | None = settings.sources.service(name)
        if service is not None:
            yield from _tries_faults(name, service.tries, accept)
    yield from _lifetime_faults(accept, catalog)


def _tries_faults(name: str, tries: RetrySettings, accept: AcceptSettings) -> Iterator[str]:
    """Defaults adapt to any budget; a number that is configured must be kept."""
    last_start_ms = tries.last_start_ms(accept.look_ms)
    if tries != RetrySettings() and last_start_ms >= accept.look_ms:
        yield (
            f"[sources.{name}.tries] attempts = {tries.attempts} cannot be kept: the last may start only after"
            f" {last_start_ms} ms, and [accept] look_ms = {accept.look_ms} ends before;"
            f" raise look_ms above {last_start_ms}, or lower attempts, attempt_ms or the waits"
        )
    elif tries.attempts > MOST_ATTEMPTS:
        yield (
            f"[sources.{name}.tries] attempts = {tries.attempts} makes the worst amplification of a look-up"
            f" × {tries.attempts}; the bound is × {MOST_ATTEMPTS}: lower attempts to at most {MOST_ATTEMPTS},"
            " 3 is the default"
        )


def _lifetime_faults(accept: AcceptSettings, catalog: Catalog) -> Iterator[str]:
    for kind, terms in catalog.methods.items():
        reversed_after_s = KINDS[kind].reversed_after_s
        if not terms.offered:
            continue
        if terms.expires_in_s is not None and accept.submit_ms >= terms.expires_in_s * 1_000:
            yield (
                f"[accept] submit_ms = {accept.submit_ms} cannot be kept: methods.toml: {kind}.expires_in_s ="
                f" {terms.expires_in_s} ends first; lower submit_ms or raise expires_in_s"
            )
        elif reversed_after_s is not None and accept.submit_ms >= reversed_after_s * 1_000:
            yield (
                f"[accept] submit_ms = {accept.submit_ms} cannot be kept: a payment by {kind} is reversed"
                f" {reversed_after_s} s after it is sent; lower submit_ms below {reversed_after_s * 1_000},"
                f" or set methods.toml: {kind}.offered = false"
            )
