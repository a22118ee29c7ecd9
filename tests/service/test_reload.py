"""SIGHUP: a running service applies new numbers and texts, and loses no request and no learned
state."""

from __future__ import annotations

import json
import signal
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

from cashier.sandbox import CASES
from tests.service.test_service import exchange
from tests.support.command_processes import configured, eventually, running

pytestmark = pytest.mark.processes

REQUEST = CASES["chinese_shop"].request


@pytest.fixture(scope="module")
def sandbox() -> Iterator[str]:
    with running("sandbox", "--port", "0", "--weather", "still") as command:
        yield command.address("Sandbox on")


def ask(service: str) -> Any:
    status, answer = exchange("POST", f"{service}/v1/consult", {**REQUEST, "locale": "en", "deadline_ms": 2500})
    assert status == 200, answer
    return answer


def statuses(answer: Any) -> dict[str, str]:
    return {source["name"]: source["status"] for source in answer["sources"]}


def test_new_numbers_apply_and_cached_answers_stay(sandbox: str, tmp_path: Path) -> None:
    path = configured(tmp_path, sandbox, "")
    with running("serve", "--config", str(path)) as command:
        service = command.address("Serving on")
        ask(service)
        assert statuses(ask(service))["merchant"] == statuses(ask(service))["member"] == "CACHED"
        path.write_text(path.read_text().replace("[sources.merchant]\n", "[sources.merchant]\ncache = false\n"))
        command.process.send_signal(signal.SIGHUP)
        eventually(lambda: statuses(ask(service))["merchant"] == "FRESH", "the new numbers do not apply")
        assert statuses(ask(service))["member"] == "CACHED"
        log = command.end()[2]
    records = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert [record["level"] for record in records if record["event"] == "configuration reloaded"] == ["info"]
    assert "restart" not in log


def test_a_faulty_file_changes_nothing_and_is_logged(sandbox: str, tmp_path: Path) -> None:
    path = configured(tmp_path, sandbox, "")
    good = path.read_text()
    with running("serve", "--config", str(path)) as command:
        service = command.address("Serving on")
        ask(service)
        for faulty_text, fault in (
            (good.replace("[consult]", "[consult]\nspeed = 11"), "unknown key 'speed'"),
            (good.replace("timeout_ms = 2490", "timeout_ms = 9990"), "cannot be kept"),
            ("][", "is not valid TOML"),
        ):
            path.write_text(faulty_text)
            command.process.send_signal(signal.SIGHUP)
            eventually(lambda fault=fault: fault in command.logged(), fault)  # type: ignore[misc] # fault is bound
            assert statuses(ask(service))["member"] == "CACHED"
        path.write_text(good)
        command.process.send_signal(signal.SIGHUP)
        eventually(
            lambda: "configuration reloaded" in command.logged(), "a good file is not applied after a faulty one"
        )
        assert statuses(ask(service))["member"] == "CACHED"


def test_a_change_that_takes_a_restart_is_named_at_each_reload_and_not_applied(sandbox: str, tmp_path: Path) -> None:
    path = configured(tmp_path, sandbox, "")
    with running("serve", "--config", str(path)) as command:
        service = command.address("Serving on")
        ask(service)
        path.write_text(path.read_text().replace(f'url = "{sandbox}"', 'url = "http://127.0.0.1:9"', 1))
        for times in (1, 2):
            command.process.send_signal(signal.SIGHUP)
            eventually(
                lambda times=times: command.logged().count("[sources.order] url has changed") == times,  # type: ignore[misc] # times is bound
                "the change is not named",
            )
            ask(service)
        [warning, _] = [json.loads(line) for line in command.logged().splitlines() if "has changed" in line]
        assert warning["level"] == "warning"
        assert warning["event"] == "configuration reloaded, except for changes that take a restart"
        assert warning["takes_a_restart"] == ["[sources.order] url has changed"]


@pytest.mark.parametrize("workers", [1, 2])
def test_no_request_is_lost_and_every_worker_reloads(sandbox: str, tmp_path: Path, workers: int) -> None:
    path = configured(tmp_path, sandbox, "")
    with running("serve", "--config", str(path), "--workers", str(workers)) as command:
        service = command.address("Serving on")
        done = threading.Event()
        failures: list[Any] = []

        def keep_consulting() -> None:
            while not done.is_set():
                status, answer = exchange(
                    "POST", f"{service}/v1/consult", {**REQUEST, "locale": "en", "deadline_ms": 2500}
                )
                if status != 200:
                    failures.append(answer)

        callers = [threading.Thread(target=keep_consulting) for _ in range(4)]
        for caller in callers:
            caller.start()
        try:
            ask(service)
            (path.parent / "texts.toml").write_text('[en.reasons]\nMERCHANT_NOT_PERMITTED = "Not in this shop."\n')
            command.process.send_signal(signal.SIGHUP)
            # Sixteen requests in a row, each on its own connection, reach every worker.
            eventually(
                lambda: all("Not in this shop." in json.dumps(ask(service)) for _ in range(16)),
                "a worker did not reload",
            )
        finally:
            done.set()
            for caller in callers:
                caller.join()
        assert failures == []


def test_origins_of_merchants_apply_and_new_callers_take_a_restart(sandbox: str, tmp_path: Path) -> None:
    path = configured(tmp_path, sandbox, "")
    plain = path.read_text()
    shop = {"origin": "https://shop.example", "access-control-request-method": "POST"}

    def preflight(service: str) -> int:
        request = urllib.request.Request(f"{service}/v1/consult", headers=shop, method="OPTIONS")
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return int(response.status)
        except HTTPError as error:
            return error.code

    with running("serve", "--config", str(path)) as command:
        service = command.address("Serving on")
        assert preflight(service) == 405
        for origin, status in (("https://shop.example", 204), ("https://other.example", 403)):
            path.write_text(plain + f'\n[merchants.m_1]\norigins = ["{origin}"]\n')
            command.process.send_signal(signal.SIGHUP)
            eventually(lambda status=status: preflight(service) == status, origin)  # type: ignore[misc] # status is bound
        assert "restart" not in command.logged()
        path.write_text(plain.replace('mode = "none"', 'mode = "none"\ninsecure = true', 1))
        command.process.send_signal(signal.SIGHUP)
        eventually(lambda: "[auth] has changed" in command.logged(), "the change is not named")
