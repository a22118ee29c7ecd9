"""Run one study in its own process, so that heap, collector settings and core affinity do not leak.

Any failure becomes a finding with the reason.
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

# Sent through the pipe: lines of progress, and at the end the finding.
_Message: TypeAlias = str | Finding
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


def measure(name: str, run: Run, report: Callable[[str], None], package: str = "benchmarks.studies") -> Finding:
    """Run a study. Raises KeyboardInterrupt if interrupted, after the study has ended its
    processes.
    """
    spawn = multiprocessing.get_context("spawn")
    receiving, sending = spawn.Pipe(duplex=False)
    child = spawn.Process(target=_run_study, args=(f"{package}.{name}", run, sending))
    child.start()
    sending.close()
    try:
        finding = _receive(receiving, report)
    finally:
        child.join()
    return finding or failed_finding(name, f"Its process ended with code {child.exitcode} and without a result.")


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
    # If the suite is killed, the study still ends the processes it has started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGTERM)
    try:
        from benchmarks.lab import Lab  # noqa: PLC0415 - an import error of the lab becomes a finding too

        run.directory.mkdir(parents=True, exist_ok=True)
        lab = Lab(
            run.directory,
            quick=run.quick,
            rounds=run.rounds or None,
            profile=run.profile,
            before=run.before,
            on_progress=sending.send,
        )
        finding = without_non_finite(importlib.import_module(module).measure(lab))
        notes = [*finding.notes, *(text for text in lab.skipped if text not in finding.notes)]
        sending.send(msgspec.structs.replace(finding, notes=notes))
    except KeyboardInterrupt:
        pass  # the study has ended its own processes, and the suite receives the interrupt too
    except Exception as problem:  # noqa: BLE001 - the other studies still run, and the report shows it
        reason = "".join(traceback.format_exception_only(problem)).strip()
        where = traceback.extract_tb(problem.__traceback__)[-1]
        sending.send(failed_finding(name, f"{reason} ({where.filename.rpartition('/')[2]}:{where.lineno})"))
