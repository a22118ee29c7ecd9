"""A consultation whose sources share a name with two addresses, one of which never connects."""

from __future__ import annotations

from cashier.fanout.ask import SourceStatus
from tests.consultation.test_degradation_on_sockets import cashier_over, consult, sandbox
from tests.wire.client_side import until
from tests.wire.scripted_names import Names, resolution
from tests.wire.scripted_upstream import silent_listener


async def test_every_source_is_fresh_and_its_addresses_are_endpoints() -> None:
    names = Names(**{"core.test": resolution("127.0.0.9", "127.0.0.1")})
    async with sandbox() as upstream:
        port = int(upstream.url.rpartition(":")[2])
        named = upstream._replace(url=f"http://core.test:{port}")
        with silent_listener("127.0.0.9", port):
            cashier = cashier_over(named, {"hedge": False, "retry": False, "http1": {"connect_timeout_ms": 500}})
            name = cashier._parts.resolver.name("core.test")
            name._look_up = names.look_up
            async with cashier:
                await until(lambda: cashier.sources_reached)  # connections are opened in the background
                assert names.started == {"core.test": 1}
                for _ in range(10):
                    reports = (await consult(cashier)).consultation.sources
                    assert {report.status for report in reports} == {SourceStatus.FRESH}
                guards = [pipeline.guard for pipeline in cashier.pipelines.values()]
                both = {f"{named.url} (127.0.0.9)", f"{named.url} (127.0.0.1)"}
                assert all({endpoint.name for endpoint in guard.endpoints} == both for guard in guards)
                names.answers["core.test"] = resolution("127.0.0.1")
                name._resolved_s = float("-inf")
                name.refresh()
                await until(lambda: not any(guard.multi_address for guard in guards))
                reports = (await consult(cashier)).consultation.sources
                assert {report.status for report in reports} == {SourceStatus.FRESH}
                assert {guard.endpoints[0].name for guard in guards} == {f"{named.url} (127.0.0.1)"}
                assert all(guard.endpoints[0].in_flight == 0 for guard in guards)
