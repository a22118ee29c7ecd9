"""What the health endpoints report."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Literal

from msgspec import Struct

from cashier.fanout.reachability import SourceReachability
from cashier.version import __version__
from cashier.web.ports import ConsultService


class Readiness(StrEnum):
    STARTING = "starting"
    CONNECTING = "connecting"
    READY = "ready"
    DRAINING = "draining"


class Liveness(Struct, frozen=True):
    """`since`: the start of the process that answers. Any answer shows that its event loop runs."""

    status: Literal["ok"]
    since: datetime
    version: str


class ReadinessReport(Struct, frozen=True):
    """`sources`: empty while the service starts."""

    status: Readiness
    sources: tuple[SourceReachability, ...]


class HealthCheck:
    """`service`: None before it is open. `draining`: the server stops."""

    def __init__(self, service: Callable[[], ConsultService | None], draining: Callable[[], bool]) -> None:
        self._service = service
        self._draining = draining
        self.liveness = Liveness("ok", datetime.now(UTC).replace(microsecond=0), __version__)

    @property
    def readiness(self) -> Readiness:
        if self._draining():
            return Readiness.DRAINING
        service = self._service()
        if service is None or not service.ready:
            return Readiness.STARTING
        return Readiness.READY if service.sources_reached else Readiness.CONNECTING

    def report(self) -> ReadinessReport:
        service = self._service()
        sources = () if service is None or not service.ready else service.reachability()
        return ReadinessReport(self.readiness, sources)
