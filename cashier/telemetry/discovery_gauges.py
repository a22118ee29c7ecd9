"""The gauges of addresses: how many a worker has of each source, and how old discovery's are."""

from __future__ import annotations

import time
from collections.abc import Mapping

from cashier.metrics.store import Store
from cashier.wire.transport import NetworkTransport


class DiscoveryGauges:
    """`network`: by source or payment service; a reload may change their discovery."""

    def __init__(self, metrics: Store, network: Mapping[str, NetworkTransport]) -> None:
        self._metrics = metrics
        self._network = network
        self._started_s = time.monotonic()
        self._counted: dict[str, int] = {}

    def sample(self) -> None:
        """Set the gauges. Without a list since the start, its age is the time since then."""
        for name, transport in self._network.items():
            self._metrics.gauge("cashier_source_endpoints", name).set(transport.endpoints)
            found = transport.discovered()
            if found is None:
                continue
            age_s = time.monotonic() - self._started_s if found.age_s is None else found.age_s
            self._metrics.gauge("cashier_discovery_age_seconds", name).set(round(age_s))
            changes = self._metrics.counter("cashier_discovery_changes_total", name)
            before = self._counted.get(name, 0)
            # Less than before: a reload has begun another discovery.
            changes.add(found.changes - before if found.changes >= before else found.changes)
            self._counted[name] = found.changes
