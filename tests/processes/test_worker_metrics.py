"""Metrics of `cashier serve` while its workers are killed under load."""

from __future__ import annotations

import os
import signal
import threading
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from cashier.sandbox import CASES
from tests.support.command_processes import Command, configured, eventually, running
from tests.support.process_files import open_files, worker_pids

pytestmark = pytest.mark.processes

CONSULTATIONS = "cashier_consultation_duration_seconds_count"
ENDS = "cashier_worker_ends_total"
BODY = msgspec.json.encode(CASES["balance_is_enough"].request)

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class Load(threading.Thread):
    """Consults one after the other until it is stopped. `answered`: with status 200."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.answered = 0
        self._address = url.removeprefix("http://")
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.is_set():
            connection = HTTPConnection(self._address, timeout=30)
            try:
                connection.request("POST", "/v1/consult", BODY, {"Content-Type": "application/json"})
                self.answered += connection.getresponse().status == 200
            except (OSError, HTTPException):
                continue  # of the worker that was killed
            finally:
                connection.close()

    def stop(self) -> None:
        self._stopped.set()
        self.join()


def scraped(url: str, *types: str) -> Samples:
    connection = HTTPConnection(url.removeprefix("http://"), timeout=30)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        if family.type in types
        for sample in family.samples
    }


def total(samples: Samples, name: str) -> float:
    return sum(value for (of, _), value in samples.items() if of == name)


def totals(url: str) -> Samples:
    return scraped(url, "counter", "histogram")


def both_serve(url: str) -> bool:
    return total(scraped(url, "gauge"), "cashier_workers") == 2


def workers(service: Command) -> set[int]:
    return set(worker_pids(service.process.pid))


def test_totals_survive_kills_of_workers_under_load(tmp_path: Path) -> None:
    with running("sandbox", "--port", "0") as sandbox:
        path = configured(tmp_path, sandbox.address("Sandbox on"))
        path.write_text(path.read_text().replace("port = 9464", "port = 0"))
        with running("serve", "--config", str(path), "--workers", "2") as service:
            url, operations = service.address("Serving on"), service.address("Operations on")
            eventually(lambda: both_serve(operations), "both workers serve")
            loads = [Load(url) for _ in range(2)]
            for load in loads:
                load.start()
            before: Samples = {}
            try:
                for kills in range(1, 4):
                    reached = sum(load.answered for load in loads) + 10
                    eventually(lambda reached=reached: sum(load.answered for load in loads) >= reached, "load")  # type: ignore[misc]
                    os.kill(min(workers(service)), signal.SIGKILL)

                    def ended(kills: int = kills) -> bool:
                        nonlocal before
                        now = totals(operations)
                        fallen = {
                            key: (value, now.get(key)) for key, value in before.items() if now.get(key, -1) < value
                        }
                        assert not fallen
                        before = now
                        return total(now, ENDS) == kills and both_serve(operations)

                    eventually(ended, "the worker is counted as ended, and replaced")
            finally:
                for load in loads:
                    load.stop()
            answered = sum(load.answered for load in loads)
            counted = total(totals(operations), CONSULTATIONS)
            # Those that a killed worker had begun have no answer.
            assert answered <= counted <= answered + len(loads) * 3
            directory = {path for path in Path("/dev/shm").glob("cashier-*") if service_has(service, path)}
            assert service.end()[0] == 0
            assert not [path for path in directory if path.exists()]


def test_a_worker_that_is_killed_while_it_starts_is_counted_as_ended(tmp_path: Path) -> None:
    path = configured(tmp_path, "http://127.0.0.1:9")
    path.write_text(path.read_text().replace("port = 9464", "port = 0"))
    with running("serve", "--config", str(path), "--workers", "2") as service:
        service.address("Serving on")
        operations = service.address("Operations on")
        eventually(lambda: both_serve(operations), "both workers serve")
        before = workers(service)
        os.kill(min(before), signal.SIGKILL)
        eventually(lambda: bool(workers(service) - before), "it is replaced")
        os.kill(min(workers(service) - before), signal.SIGKILL)
        eventually(lambda: total(totals(operations), ENDS) == 2, "both are counted as ended")


def test_a_start_removes_the_directory_of_a_killed_service(tmp_path: Path) -> None:
    path = configured(tmp_path, "http://127.0.0.1:9")
    path.write_text(path.read_text().replace("port = 9464", "port = 0"))
    with running("serve", "--config", str(path)) as killed:
        killed.address("Serving on")
        (left,) = [path for path in Path("/dev/shm").glob("cashier-*") if service_has(killed, path)]
        killed.kill()
        killed.wait()
    assert left.exists()
    with running("serve", "--config", str(path)) as service:
        service.address("Operations on")
        assert not left.exists()
        (own,) = [path for path in Path("/dev/shm").glob("cashier-*") if service_has(service, path)]
        assert service.end()[0] == -signal.SIGTERM
    assert not own.exists()


def service_has(service: Command, directory: Path) -> bool:
    """Whether the process holds the directory open, and so locked."""
    return str(directory) in open_files(service.process.pid)
