"""The engine's failure codes that have a meaning, and what each of them does."""

from __future__ import annotations

import tomllib
from datetime import UTC, datetime
from importlib import resources

import msgspec
from msgspec import Struct

from cashier.domain.channel_record import ChannelOutcome
from cashier.domain.learned_facts import learned_from_failure
from cashier.domain.pay_method import Kind
from cashier.domain.resolved_message import BY_FAILURE
from cashier.domain.routing_rules import FailureAttribution
from cashier.domain.status_resolution import CLOSED_CODES, PaymentProgress, resolve_status
from cashier.domain.upstream_report import AcquirerReport, AcquirerReportStatus, EngineReport, EngineReportStatus

_PROGRESS = PaymentProgress(payment_id="pay_1", kind=Kind.QUICK_PAY, expires_at=2_000_000_000, sent_at=0)
_SENT = datetime.fromtimestamp(1, UTC)
_BLAME = {None: "no", ChannelOutcome.FAILED: "yes", ChannelOutcome.UNSURE: "half"}


class FailureCode(Struct, frozen=True):
    """`status` and `message` of the payment, `blames_channel`: yes, no or half.

    `drops`: groups of facts whose cached answers are dropped, in order.
    """

    code: str
    status: str
    message: str
    blames_channel: str
    drops: tuple[str, ...]


def failure_codes() -> tuple[FailureCode, ...]:
    """By name, those that count otherwise than an unknown code."""
    routing = tomllib.loads(resources.files("cashier.defaults").joinpath("routing.toml").read_text("utf-8"))
    blame = msgspec.convert(routing["blame"], FailureAttribution)
    return tuple(
        _meaning(code, blame) for code in sorted(blame.channel | blame.others | CLOSED_CODES | BY_FAILURE.keys())
    )


def _meaning(code: str, blame: FailureAttribution) -> FailureCode:
    engine = EngineReport(EngineReportStatus.FAILED, code)
    resolved = resolve_status(_PROGRESS, engine, AcquirerReport(AcquirerReportStatus.PENDING), _SENT)
    return FailureCode(
        code,
        resolved.status,
        resolved.message,
        _BLAME[blame.outcome(code)],
        tuple(sorted(learned_from_failure(code))),
    )
