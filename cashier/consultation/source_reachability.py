"""What a service reports about its sources when it is asked whether it is ready."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from cashier.consultation.source_pipeline import SourcePipeline
from cashier.consultation.source_table import SOURCE_SPECS, SourceSpec
from cashier.fanout.reachability import Reachability, SourceReachability
from cashier.settings.schema import SERVICES


class Connections(Protocol):
    @property
    def connected(self) -> bool | None:
        """False after a failed connect; None if no connection is open and none failed last."""


def source_reachability(
    pipelines: Mapping[str, SourcePipeline], network: Mapping[str, Connections], *, payments: bool
) -> tuple[SourceReachability, ...]:
    """One row per source of the table and per payment service, configured or not.

    `network`: the connections of those that are no functions of this process. Reads what they and
    the breakers know, in a few microseconds.
    """
    sources = (_source(spec, pipelines.get(spec.source.name), network.get(spec.source.name)) for spec in SOURCE_SPECS)
    services = (
        SourceReachability(name, None, _state(network.get(name), configured=payments, breaker_open=False))
        for name in SERVICES
    )
    return (*sources, *services)


def _source(spec: SourceSpec, pipeline: SourcePipeline | None, connections: Connections | None) -> SourceReachability:
    breaker_open = pipeline is not None and not any(endpoint.breaker.closed for endpoint in pipeline.guard.endpoints)
    state = _state(connections, configured=pipeline is not None, breaker_open=breaker_open)
    return SourceReachability(spec.source.name, spec.importance, state)


def _state(connections: Connections | None, *, configured: bool, breaker_open: bool) -> Reachability:
    """`connections`: None for a function of this process."""
    if not configured:
        return Reachability.NOT_CONFIGURED
    connected = True if connections is None else connections.connected
    if connected is False:
        return Reachability.UNREACHABLE
    if breaker_open:
        return Reachability.BREAKER_OPEN
    if connections is None:
        return Reachability.LOCAL
    return Reachability.REACHABLE if connected else Reachability.IDLE
