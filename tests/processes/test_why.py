"""Why an order had no methods: from the operations port to the replay, over real processes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from cashier.cli import service_client
from cashier.ops.records_endpoint import RecordSummary
from cashier.sandbox import CASES
from cashier.telemetry.records import ConsultationRecord
from cashier.telemetry.replay import RecordedFacts, unpacked
from tests.support.command_processes import ENVIRONMENT, ROOT, configured, running

from .gateways import free_ports

pytestmark = pytest.mark.processes
REQUEST = {**CASES["chinese_shop"].request, "deadline_ms": 1_000}
CONSULTATIONS = 12


def cashier(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cashier", *words]
    return subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False)


async def recorded(ops: str) -> list[ConsultationRecord]:
    """The records of all consultations, once the port has them."""
    ends_s = time.monotonic() + 30
    while True:
        listed = msgspec.convert((await service_client.get_json(ops, "/api/records"))["records"], list[RecordSummary])
        if len(listed) >= CONSULTATIONS:
            found = [await service_client.get_json(ops, f"/api/records/{each.key}") for each in listed]
            return [msgspec.convert(each, ConsultationRecord) for each in found]
        assert time.monotonic() < ends_s, listed


async def test_a_consultation_with_a_silent_source_is_recorded_and_replayed(tmp_path: Path) -> None:
    with running("sandbox", "--port", "0", "--weather", "still") as sandbox:
        upstreams = sandbox.address("Sandbox on")
        config, port = configured(tmp_path, upstreams), free_ports(1)[0]
        text = config.read_text("utf-8").replace("port = 9464", f"port = {port}")
        config.write_text(text.replace("records_per_second = 20", "records_per_second = 1000"))
        ops = f"http://127.0.0.1:{port}"
        with running("serve", "--config", str(config), "--workers", "2") as service:
            url = service.address("Serving on")
            await service_client.change_weather(upstreams, "quota", {"faults": {"error": 10_000}})
            for _ in range(CONSULTATIONS):
                await service_client.consult(url, REQUEST)
            records = await recorded(ops)
            replay = cashier("why", "--ops", ops, "--order-id", "o_1001", "--config", str(config))
        users = {facts.request.user_id for facts in map(facts_of, records)}
        assert len(users) == 1, "one pseudonym for one payer, whichever worker answered"
        assert REQUEST["user_id"] not in users
        assert (replay.returncode, replay.stderr) == (0, "")
        assert "QUOTAS_KNOWN" in replay.stdout
        file = tmp_path / "record.json"
        file.write_bytes(msgspec.json.encode(records[0]))
        offline = cashier("why", "--from", str(file), "--config", str(config))
        assert (offline.returncode, offline.stderr) == (0, "")
        assert offline.stdout == replay.stdout


def facts_of(record: ConsultationRecord) -> RecordedFacts:
    return unpacked(record.facts)
