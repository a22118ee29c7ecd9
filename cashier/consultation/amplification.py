"""Worst amplification: the calls that a service gets for each one that is needed. Pure.

A batch counts as its keys, and the pages of a list that an adapter reads as one call: they are
needed when all is well, too. The transport may send a request once more if its connection dies
before an answer begins; the connection has answered before, so an upstream that answers nothing
never gets that.
"""

from __future__ import annotations

from msgspec import Struct

from cashier.consultation.plan_report import PlanReport
from cashier.fanout.retry_budget import LEAST_PER_S
from cashier.settings.schema import Settings
from cashier.sources.idempotent_retry import FURTHER_BPS, FURTHER_PER_S, RetrySettings


class Amplification(Struct, frozen=True):
    """Of one service. `at_once`: the most calls for one ask or look-up.

    `sustained_bps`: what the extra calls add over any ten seconds, or `least_per_s` a second of
    each worker if that is more.
    """

    service: str
    at_once: int
    sustained_bps: int
    least_per_s: int

    @property
    def sustained(self) -> float:
        """Calls per needed call over ten seconds, at a rate at which the share counts."""
        return 1 + self.sustained_bps / 10_000


def source_amplification(report: PlanReport) -> tuple[Amplification, ...]:
    """Of the sources, by a consultation."""
    return tuple(
        Amplification(line.name, line.calls, report.extra_bps, LEAST_PER_S)
        if line.calls > 1
        else Amplification(line.name, 1, 0, 0)
        for line in report.lines
    )


def service_amplification(settings: Settings) -> tuple[Amplification, ...]:
    """Of engine and acquirer, by one look-up. Risk decisions and submits are sent once."""
    found = []
    for name in ("engine", "acquirer"):
        service = settings.sources.service(name)
        attempts = (RetrySettings() if service is None else service.tries).attempts
        extra = (FURTHER_BPS, FURTHER_PER_S) if attempts > 1 else (0, 0)
        found.append(Amplification(name, attempts, *extra))
    return tuple(found)
