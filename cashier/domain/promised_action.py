"""Whether the engine's first answer asks for the action that the consultation promised."""

from __future__ import annotations

from cashier.domain.catalog import ACTS_ELSEWHERE
from cashier.domain.kinds import KINDS, InstrumentSource
from cashier.domain.pay_method import Kind, NextAction
from cashier.domain.upstream_report import EngineReport, EngineReportStatus


def unkept_action(promised: NextAction, kind: Kind, report: EngineReport) -> NextAction | None:
    """The action that the engine gives instead, `NONE` for none; None if the promise is kept.

    A challenge is promised for risk, not for the engine. An instrument that the payer has named,
    such as a card, may be charged without the promised page.
    """
    given = NextAction.NONE
    if report.status is EngineReportStatus.ACTION_REQUIRED and report.next_action is not None:
        given = NextAction(str(report.next_action.__struct_config__.tag))
    if report.status in (EngineReportStatus.SILENT, EngineReportStatus.FAILED):
        return None
    if promised not in ACTS_ELSEWHERE:
        return None if given in (NextAction.NONE, promised) else given
    charged = (
        report.status is EngineReportStatus.SUCCEEDED and KINDS[kind].instrument_source is not InstrumentSource.CHANNEL
    )
    return None if given is promised or charged else given
