"""What other libraries report, and what nobody caught: the form of all lines, and no values."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from cashier.logs import configure_logs, set_log_level
from cashier.logs.standard_library import StructuredHandler, log_loop_exception, log_uncaught
from cashier.settings.schema import ConfigurationError
from cashier.source_errors import Unreachable

SECRET = "u_31415926"
Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lines]:
    """All lines so far. None of them has `SECRET`."""
    before = structlog.get_config()
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    for module, name in (
        (sys, "excepthook"),
        (sys, "unraisablehook"),
        (threading, "excepthook"),
        (warnings, "showwarning"),
    ):
        monkeypatch.setattr(module, name, getattr(module, name))
    configure_logs()
    log_uncaught()

    def read() -> list[dict[str, Any]]:
        assert SECRET not in stream.getvalue()
        return [json.loads(line) for line in stream.getvalue().splitlines()]

    yield read
    structlog.configure(**before)
    root = logging.getLogger()
    root.handlers = [handler for handler in root.handlers if not isinstance(handler, StructuredHandler)]


def test_a_record_keeps_the_first_line_of_its_message_and_its_numbers(lines: Lines) -> None:
    logging.getLogger("uvicorn.error").error("Cancel %s task(s) of %s: %r\n%s", 3, SECRET, [SECRET], SECRET)
    (line,) = lines()
    assert (line["logger"], line["level"], line["event"]) == ("uvicorn.error", "error", "Cancel 3 task(s) of …: '…'")


@pytest.mark.parametrize("arguments", [(), ({"name": SECRET},), (SECRET, SECRET)])
def test_a_record_with_other_arguments_than_its_message_has_is_a_line(lines: Lines, arguments: tuple[Any, ...]) -> None:
    record = logging.LogRecord("library", logging.WARNING, "", 1, "%d of %(name)s", arguments, None)
    StructuredHandler().handle(record)
    (line,) = lines()
    assert line["event"] == "%d of %(name)s"


def test_a_record_whose_message_is_an_exception_has_its_type(lines: Lines) -> None:
    logging.getLogger("library").error(ValueError(SECRET))
    assert [line["event"] for line in lines()] == ["ValueError"]


@pytest.mark.parametrize(
    ("level", "logged"), [("debug", []), ("info", []), ("warning", ["warning"]), ("error", ["error"])]
)
def test_other_libraries_report_warnings_and_errors(lines: Lines, level: str, logged: list[str]) -> None:
    set_log_level("debug")
    logging.getLogger("library").log(logging.getLevelNamesMapping()[level.upper()], "event")
    assert [line["level"] for line in lines()] == logged


def test_the_level_leaves_out_what_is_below_it(lines: Lines) -> None:
    log = structlog.get_logger("cashier")
    for level in ("warning", "debug"):
        set_log_level(level)
        for name in ("debug", "info", "warning", "error"):
            log.log(logging.getLevelNamesMapping()[name.upper()], name)
    assert [line["event"] for line in lines()] == ["warning", "error", "debug", "info", "warning", "error"]


def test_an_exception_has_types_and_places_and_no_values(lines: Lines) -> None:
    def fail(user_id: str) -> None:
        try:
            dict[str, str]()[user_id]
        except KeyError as error:
            error.add_note(SECRET)
            raise ExceptionGroup(SECRET, [ValueError(SECRET)]) from error

    try:
        fail(SECRET)
    except ExceptionGroup:
        structlog.get_logger("cashier").exception("failed")
    (line,) = lines()
    group, cause = line["exception"]
    assert (group["exc_type"], group["exc_value"]) == ("ExceptionGroup", "")
    assert (cause["exc_type"], cause["exc_value"]) == ("KeyError", "")
    assert group["frames"][-1]["filename"] == __file__
    assert group["exceptions"][0][0]["exc_type"] == "ValueError"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (Unreachable("127.0.0.1:9: refused"), "127.0.0.1:9: refused"),
        (ConfigurationError(["[server] port is missing"]), "[server] port is missing"),
        (FileNotFoundError(2, "No such file or directory", SECRET), "No such file or directory"),
        (TypeError("unsupported operand"), "unsupported operand"),
        (RuntimeError(SECRET), ""),
        (UnicodeDecodeError("utf-8", SECRET.encode(), 0, 1, SECRET), ""),
    ],
)
def test_a_text_is_logged_only_of_types_that_hold_no_values(lines: Lines, error: Exception, text: str) -> None:
    structlog.get_logger("cashier").error("failed", exc_info=error)
    (line,) = lines()
    assert line["exception"][0]["exc_value"] == text


def test_a_traceback_ends_with_the_place_of_the_fault_and_is_bounded(lines: Lines) -> None:
    def deeper(left: int) -> None:
        if not left:
            raise ValueError(SECRET)
        deeper(left - 1)

    try:
        deeper(200)
    except ValueError:
        structlog.get_logger("cashier").exception("failed")
    frames = lines()[0]["exception"][0]["frames"]
    assert len(frames) == 20
    assert frames[-1]["name"].endswith("deeper")


def test_what_ends_a_thread_is_a_line(lines: Lines) -> None:
    def fail() -> None:
        raise ValueError(SECRET)

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    assert [(line["level"], line["event"]) for line in lines()] == [("critical", "unhandled exception in a thread")]


def test_what_ends_the_process_is_a_line_unless_it_is_a_signal(lines: Lines) -> None:
    sys.excepthook(ValueError, ValueError(SECRET), None)
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert [(line["level"], line["event"]) for line in lines()] == [("critical", "unhandled exception")]


def test_an_exception_that_nothing_can_catch_is_a_line(lines: Lines) -> None:
    class Broken:
        def __del__(self) -> None:
            raise ValueError(SECRET)

    broken = Broken()
    del broken
    gc.collect()
    (line,) = lines()
    assert (line["event"], line["exception"][0]["exc_type"]) == ("exception ignored", "ValueError")
    assert line["where"].endswith("Broken.__del__")


@pytest.mark.parametrize(
    ("category", "text"), [(DeprecationWarning, "an old name"), (UserWarning, ""), (ResourceWarning, "")]
)
def test_a_warning_is_a_line_with_its_place(lines: Lines, category: type[Warning], text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        # `catch_warnings` put the default back.
        log_uncaught()
        warnings.warn(text or SECRET, category, stacklevel=1)
    (line,) = lines()
    assert (line["event"], line["category"], line["text"]) == ("python warning", category.__name__, text)
    assert line["filename"] == __file__


async def test_what_a_task_or_a_callback_raises_is_a_line_without_its_arguments(lines: Lines) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(log_loop_exception)

    def fail_to_call(secret: str) -> None:
        raise ValueError(secret)

    async def fail() -> None:
        raise KeyError(SECRET)

    loop.call_soon(fail_to_call, SECRET)
    task = loop.create_task(fail())
    await asyncio.wait((task,))
    del task
    gc.collect()
    called, retrieved = lines()
    assert (called["logger"], called["event"]) == ("asyncio", "Exception in callback")
    assert called["exception"][0]["frames"][-1]["name"].endswith("fail_to_call")
    assert retrieved["event"] == "Task exception was never retrieved"
    assert retrieved["coroutine"].endswith("fail")


class Unloggable:
    def __repr__(self) -> str:
        raise ValueError(SECRET)


def test_no_value_takes_the_line_or_its_caller_with_it(lines: Lines) -> None:
    within: list[Any] = []
    within.append(within)
    structlog.get_logger("cashier").info("event", value=Unloggable(), number=2**70, within=within)
    (line,) = lines()
    assert (line["event"], line["number"]) == ("event", 2**70)


def test_a_process_without_standard_error_logs_nothing(monkeypatch: pytest.MonkeyPatch, lines: Lines) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    configure_logs()
    structlog.get_logger("cashier").info("event")
    assert lines() == []
