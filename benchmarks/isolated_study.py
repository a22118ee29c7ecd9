"""One study in a process of its own: what it leaves behind (heap, settings of the collector, the core it sat on) is not the next one's.

Whatever goes wrong in it is a finding that says so.
"""

from __future__ import annotations

import ctypes
import importlib
import multiprocessing
import signal
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import TypeAlias

import msgspec

from benchmarks.non_finite import without_non_finite
from benchmarks.results import Finding
from benchmarks.suite import Run, failed_finding

# What comes through the pipe: lines of progress, and the finding at the end.
_Message: TypeAlias = str | Finding
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


def measure(name: str, run: Run, report: Callable[[str], None], package: str = "benchmarks.studies") -> Finding:
    """Raises KeyboardInterrupt when interrupted, after the study has ended its own processes."""
    spawn = multiprocessing.get_context("spawn")
    receiving, sending = spawn.Pipe(duplex=False)
    child = spawn.Process(target=_run_study, args=(f"{package}.{name}", run, sending))
    child.start()
    sending.close()
    try:
        found = _receive(receiving, report)
    finally:
        child.join()
    return found or failed_finding(name, f"Its process ended with code {child.exitcode} and said nothing.")


def _receive(receiving: Connection, report: Callable[[str], None]) -> Finding | None:
    while True:
        try:
            message: _Message = receiving.recv()
        except EOFError:
            return None
        if isinstance(message, Finding):
            return message
        report(message)


def _run_study(module: str, run: Run, sending: Connection) -> None:
    name = module.rpartition(".")[2]
    # Should the suite be killed, the study still ends what it has started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGTERM)
    try:
        from benchmarks.lab import Lab  # noqa: PLC0415 - where the lab itself is broken, that is a finding too

        run.directory.mkdir(parents=True, exist_ok=True)
        lab = Lab(
            run.directory,
            quick=run.quick,
            rounds=run.rounds or None,
            profile=run.profile,
            before=run.before,
            tell=sending.send,
        )
        finding = without_non_finite(importlib.import_module(module).measure(lab))
        notes = [*finding.notes, *(text for text in lab.skipped if text not in finding.notes)]
        sending.send(msgspec.structs.replace(finding, notes=notes))
    except KeyboardInterrupt:
        pass  # it has ended its own processes on the way here, and the suite has heard it too
    except Exception as problem:  # noqa: BLE001 - the others still run, and the report says it
        reason = "".join(traceback.format_exception_only(problem)).strip()
        where = traceback.extract_tb(problem.__traceback__)[-1]
        sending.send(failed_finding(name, f"{reason} ({where.filename.rpartition('/')[2]}:{where.lineno})"))
