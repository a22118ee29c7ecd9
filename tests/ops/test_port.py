"""The port of a process: metrics by HTTP, a taken port, its end."""

from __future__ import annotations

import contextlib
import gzip
import os
import socket
import threading
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from cashier.metrics.exposition import CONTENT_TYPE
from cashier.ops import application, http_protocol, server
from cashier.ops import run_directory as run_directory_module
from cashier.ops.aggregation import WorkerStores
from cashier.ops.history import SnapshotHistory
from cashier.ops.run_directory import worker_store
from cashier.ops.server import OperationsPort, operations_port
from cashier.settings.loader import configuration
from cashier.settings.schema import Configuration
from tests.support.command_processes import eventually

SHED = "cashier_shed_total"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(run_directory_module, "places", lambda: (tmp_path,))
    return tmp_path


def config(**operations: Any) -> Configuration:
    return configuration({"operations": {"port": 0, **operations}}, "test")


@pytest.fixture
def port() -> Iterator[OperationsPort]:
    with operations_port(config(), None) as port:
        yield port


def ask(port: OperationsPort, method: str, path: str, **headers: str) -> tuple[HTTPResponse, bytes]:
    assert port.url is not None
    connection = HTTPConnection(port.url.removeprefix("http://"), timeout=30)
    connection.request(method, path, headers=headers)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response, body


def test_metrics_are_the_sum_of_the_workers(port: OperationsPort) -> None:
    stores = [worker_store(port.run_directory) for _ in range(2)]
    for store in stores:
        assert store is not None
        store.counter(SHED, "low", "3").add(2)
    response, body = ask(port, "GET", "/metrics")
    assert (response.status, response.headers["content-type"]) == (200, CONTENT_TYPE)
    samples = {
        sample.name: sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }
    assert (samples[SHED], samples["cashier_workers"]) == (4, 2)


@pytest.mark.moves("cashier_worker_ends_total")
def test_ends_of_workers_are_counted_also_of_those_that_have_counted_nothing(port: OperationsPort) -> None:
    def counted() -> set[bytes]:
        lines = ask(port, "GET", "/metrics")[1].splitlines()
        return {line for line in lines if line.startswith((b"cashier_worker_ends_total ", b"cashier_workers "))}

    store = worker_store(port.run_directory)
    assert counted() == {b"cashier_worker_ends_total 0", b"cashier_workers 1"}
    for number in range(1, 4):
        port.count_worker_end()
        assert counted() == {b"cashier_worker_ends_total %d" % number, b"cashier_workers 1"}
    del store
    assert counted() == {b"cashier_worker_ends_total 3", b"cashier_workers 0"}


def test_metrics_are_compressed_where_the_scraper_takes_that(port: OperationsPort) -> None:
    plain = ask(port, "GET", "/metrics")[1]
    response, body = ask(port, "GET", "/metrics", **{"Accept-Encoding": "br, GZIP;q=0.5"})
    assert response.headers["content-encoding"] == "gzip"
    assert gzip.decompress(body) == plain
    assert ask(port, "GET", "/metrics", **{"Accept-Encoding": "gzip;q=0"})[0].headers["content-encoding"] is None


def test_head_wrong_path_and_wrong_method(port: OperationsPort) -> None:
    response, body = ask(port, "HEAD", "/metrics")
    assert (response.status, body) == (200, b"")
    assert int(response.headers["content-length"]) > 0
    assert ask(port, "GET", "/metric")[0].status == 404
    assert ask(port, "GET", "/metrics/")[0].status == 404
    response, _ = ask(port, "POST", "/metrics")
    assert (response.status, set(response.headers["allow"].split(", "))) == (405, {"GET", "HEAD"})


def test_a_huge_head_is_refused(port: OperationsPort) -> None:
    try:
        status = ask(port, "GET", "/metrics", padding="x" * 200_000)[0].status
    except ConnectionError:  # a reset overtakes the response
        status = 400
    assert status == 400
    assert ask(port, "GET", "/healthz")[0].status == 200


def test_a_head_that_does_not_end_is_cut(port: OperationsPort, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "REQUEST_S", 0.01)
    assert port.url is not None
    host, number = port.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(number)), timeout=30) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: ")
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""


def test_clients_without_a_request_take_few_of_the_process_files(port: OperationsPort) -> None:
    """They need no token, and payers and sources of the same process need files as well."""
    assert port.url is not None
    host, number = port.url.removeprefix("http://").split(":")
    before = len(os.listdir("/proc/self/fd"))
    with contextlib.ExitStack() as clients:
        for number_open in range(1, 4 * server.MAX_CONNECTIONS + 1):
            clients.enter_context(socket.create_connection((host, int(number)), timeout=10))
            if number_open % 16 == 0:  # the kernel queues few that are not accepted yet
                assert ask(port, "GET", "/metrics")[0].status == 200
        of_port = len(os.listdir("/proc/self/fd")) - before - 4 * server.MAX_CONNECTIONS
        assert of_port < 2 * server.MAX_CONNECTIONS  # some are about to be closed


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), ValueError("a bug"), MemoryError()])
@pytest.mark.parametrize("part", [(WorkerStores, "fold_ended"), (SnapshotHistory, "sample")])
def test_a_failed_round_of_what_runs_beside_the_requests_does_not_end_the_port(
    monkeypatch: pytest.MonkeyPatch, part: tuple[type, str], error: Exception
) -> None:
    rounds, fourth = count(1), threading.Event()

    def fails(_: object) -> None:
        if next(rounds) == 4:
            fourth.set()
        raise error

    monkeypatch.setattr(application, "STEP_S", 0.001)
    monkeypatch.setattr(application, "FOLD_S", 0.001)
    monkeypatch.setattr(*part, fails)
    with capture_logs() as logs, operations_port(config(), None) as port:
        assert fourth.wait(10)
        assert ask(port, "GET", "/healthz")[0].status == 200
    assert {log["event"] for log in logs} == {"a round of the operations port failed"}
    assert len(logs) <= 2, "a snapshot folds as well"


def test_a_taken_port_is_logged_once_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "RETRY_S", 0.01)
    opened = threading.Event()
    bind = server.bound_socket

    def note(host: str, number: int) -> socket.socket:
        bound = bind(host, number)
        opened.set()
        return bound

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        with capture_logs() as logs:
            port = OperationsPort(config(port=number), None, None)
            port.open()
            port.warn_if_taken()
        assert [(log["event"], log["port"]) for log in logs] == [
            ("the operations port is not open; it is tried again", number)
        ]
        with pytest.raises(AssertionError):
            ask(port, "GET", "/healthz")
        monkeypatch.setattr(server, "bound_socket", note)
    try:
        assert opened.wait(30)
        eventually(lambda: port.url is not None, "the port is open")
        assert ask(port, "GET", "/healthz")[0].status == 200
    finally:
        port.close()


@pytest.mark.parametrize("host", ["a..b", "x" * 64, ".a", "a\x00b"])
def test_a_host_that_is_no_name_leaves_the_service_without_the_port(host: str) -> None:
    port = OperationsPort(config(enabled=False, host=host), None, None)
    try:
        port.open()
        with capture_logs() as logs:
            port.warn_if_taken()
        assert port.url is None
        assert [(log["event"], log["host"]) for log in logs] == [
            ("the operations port is not open; it is tried again", host)
        ]
    finally:
        port.close()


def test_the_port_and_the_directory_end_with_the_service(place: Path) -> None:
    with operations_port(config(), None) as port:
        assert ask(port, "GET", "/healthz")[0].status == 200
        assert len(list(place.iterdir())) == 1
    with pytest.raises(ConnectionRefusedError):
        ask(port, "GET", "/healthz")
    assert list(place.iterdir()) == []
    assert not [thread for thread in threading.enumerate() if thread.name == "operations"]


def test_switched_off_there_is_neither(place: Path) -> None:
    with operations_port(config(enabled=False), None) as port:
        assert (port.url, port.run_directory) == (None, None)
        assert list(place.iterdir()) == []
