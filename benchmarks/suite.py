"""The list of studies, and running them one after another, each in its own process.

Findings of an earlier run can be merged in if machine and kind of run are the same.
"""

from __future__ import annotations

import ctypes
import importlib
import multiprocessing
import os
import platform
import signal
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec

from benchmarks.git_revision import Revision
from benchmarks.results import Finding, Machine, Results, without_non_finite

# Needs other interpreters.
INTERPRETERS = "interpreters"
# The last ones run only if the command line names them.
BESIDE_PEERS = ("cost", "latency")
GROWTH = ("sources", "concurrency", "methods", "workers", "memory")
MECHANISMS = ("ablation", "observability", "pages", "stragglers", "endpoints", "hang", "batch", "collector")
ONLY_NAMED = ("soak", INTERPRETERS)
STUDIES = (*BESIDE_PEERS, "timeline", "overload", "wire", *GROWTH, *MECHANISMS, "capacity", *ONLY_NAMED)
# Runs instead of `cost` when an older revision is measured beside the working tree. Its finding has
# its own name, because it does not replace the comparison with the peers.
BEFORE = "before"
INTERRUPTED = "It was interrupted."
PACKAGES = ("uvloop", "httptools", "msgspec", "uvicorn", "aiohttp")
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


@dataclass(frozen=True)
class Run:
    """How to run. Plain values, because it is sent to the process of a study.

    `rounds` 0: the default of the lab.
    """

    quick: bool
    rounds: int
    directory: Path
    profile: Path | None = None
    before: Revision | None = None
    pythons: Sequence[str] = ()


def select_studies(names: Sequence[str]) -> list[str]:
    """Select studies in the order of the suite. Raises KeyError with the unknown names."""
    if unknown := [name for name in names if name not in STUDIES]:
        raise KeyError(*unknown)
    return [name for name in STUDIES if (name in names if names else name not in ONLY_NAMED)]


def run(names: Sequence[str], measure: Callable[[str], Finding], *, attempts: int = 1) -> list[Finding]:
    """Run the studies one after another. An interrupt ends the run and keeps earlier findings.

    A study that fails is run up to `attempts` times.
    """
    findings: list[Finding] = []
    for place, name in enumerate(names, 1):
        print(f"{name}  {place} of {len(names)}", flush=True)
        at, start_s = now(), time.perf_counter()
        try:
            finding = measure(name)
            for _ in range(attempts - 1):
                if finding.failed:
                    print(f"  failed, and runs again: {finding.failed}", flush=True)
                    finding = measure(name)
        except KeyboardInterrupt:
            finding = failed_finding(name, INTERRUPTED)
        seconds = round(time.perf_counter() - start_s, 1)
        findings.append(msgspec.structs.replace(finding, name=name, at=at, seconds=seconds))
        print(f"  failed: {finding.failed}" if finding.failed else f"  done in {seconds:.0f} s", flush=True)
        if finding.failed == INTERRUPTED:
            break
    return findings


def measure(name: str, run: Run, package: str = "benchmarks.studies") -> Finding:
    """Run a study in its own process, so that heap, collector settings and affinity do not leak.

    Any failure becomes a finding with the reason. Raises KeyboardInterrupt if interrupted, after
    the study has ended its processes.
    """
    spawn = multiprocessing.get_context("spawn")
    receiving, sending = spawn.Pipe(duplex=False)
    child = spawn.Process(target=_run_study, args=(name, package, run, sending))
    child.start()
    sending.close()
    finding: Finding | None = None
    try:
        finding = receiving.recv()
    except EOFError:
        pass
    finally:
        child.join()
    return finding or failed_finding(name, f"Its process ended with code {child.exitcode} and without a result.")


def _run_study(name: str, package: str, run: Run, sending: Connection) -> None:
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
            pythons=run.pythons,
        )
        study = importlib.import_module(f"{package}.{name}")
        finding = without_non_finite(study.measure(lab))
        notes = [*finding.notes, *(text for text in lab.skipped if text not in finding.notes)]
        sending.send(msgspec.structs.replace(finding, about=(study.__doc__ or "").strip(), notes=notes))
    except KeyboardInterrupt:
        pass  # the study has ended its own processes, and the suite receives the interrupt too
    except Exception as problem:  # noqa: BLE001 - the other studies still run, and the report shows it
        reason = "".join(traceback.format_exception_only(problem)).strip()
        where = traceback.extract_tb(problem.__traceback__)[-1]
        sending.send(failed_finding(name, f"{reason} ({where.filename.rpartition('/')[2]}:{where.lineno})"))


def failed_finding(name: str, why: str) -> Finding:
    return Finding(name.capitalize(), name=name, about="This study failed and has no results.", failed=why)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def describe_machine(peers: Mapping[str, str]) -> Machine:
    """Describe this machine. `peers`: versions of the programs measured beside ours."""
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    versions = {"Python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES}, **peers}
    kernel = f"{platform.system()} {platform.release()}"
    return Machine(names[0] if names else platform.machine(), len(os.sched_getaffinity(0)), kernel, versions)


def merge(new: Results, old: Results) -> Results:
    """Add the findings of `old` that `new` has not measured.

    Raises ValueError if the two do not compare.
    """
    if (new.machine.processor, new.machine.cores) != (old.machine.processor, old.machine.cores):
        raise ValueError("the older results are from another machine")
    if new.quick != old.quick:
        raise ValueError("one of the two runs was quick, and its figures mean nothing beside the other's")
    here, measured = new.machine.versions, {finding.name for finding in new.findings}
    differing = [f"{name} {each}" for name, each in old.machine.versions.items() if here.get(name, each) != each]
    note = [f"Measured with {', '.join(differing)}."] if differing else []
    reused = [
        msgspec.structs.replace(finding, at=finding.at or old.at, notes=[*finding.notes, *note])
        for finding in old.findings
        if finding.name not in measured
    ]
    order = {name: place for place, name in enumerate(STUDIES)}
    findings = sorted([*new.findings, *reused], key=lambda finding: order.get(finding.name, len(order)))
    return msgspec.structs.replace(new, findings=findings)


def read(file: Path) -> Results:
    return msgspec.json.decode(file.read_bytes(), type=Results)


def write(results: Results, file: Path) -> None:
    """Write the results. Keeps an existing file as `.previous.json`: a full run takes long."""
    if file.exists():
        file.replace(file.with_suffix(".previous.json"))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")
