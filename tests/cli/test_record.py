"""`cashier record`: what it writes, and the commands that it prints for the replay."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cashier.cli.commands import cli
from cashier.sandbox.recorded_answers import RecordedReader
from tests.conformance.seeded_faults import field
from tests.conformance.spoiled_service import Answer, Received, Spoil, spoiled_sandbox

NAMES = ("order", "merchant", "member", "card", "balance", "channel", "quota")


def right(received: Received, answer: Answer) -> Answer:
    return answer


@pytest.mark.parametrize(("spoil", "status"), [(right, 0), (field(quotas=None), 1)])
async def test_a_recording_is_replayed_by_the_printed_commands(spoil: Spoil, status: int, tmp_path: Path) -> None:
    config, out = tmp_path / "cashier.toml", tmp_path / "recordings"
    async with spoiled_sandbox(spoil) as address:
        config.write_text("[sources]\n" + "\n".join(f'{name}.url = "{address}"' for name in NAMES))
        words = ["record", "--order-id", "o_1001", "--config", str(config), "--out", str(out)]
        result = await asyncio.to_thread(CliRunner().invoke, cli, words, env={"COLUMNS": "80"})
    assert result.exit_code == status, result.output
    assert ("quota is not recorded: GARBLED" in result.output) is bool(status)
    [request] = RecordedReader(out).requests
    printed = " ".join(result.output.replace("\\\n", " ").split())
    assert f"cashier sandbox --replay {out}" in printed
    assert f"--order-id {request['order_id']} --user-id {request['user_id']}" in printed
    assert "--product STANDARD_CASHIER --amount CNY:12800 --country CN" in printed
    assert not re.search(r"\b[oum]_\d", result.output)
