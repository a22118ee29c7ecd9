"""The list of studies, and running them one after another.

Findings of an earlier run can be merged in if machine and kind of run are the same.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from benchmarks.git_revision import Revision
from benchmarks.results import Finding, Machine, Results


class Study(NamedTuple):
    """`full_s`, `quick_s`: approximate duration.

    `named`: runs only if the command line names it.
    """

    name: str
    full_s: float
    quick_s: float
    named: bool = False


STUDIES: Sequence[Study] = (
    Study("cost", 164, 18),
    Study("latency", 153, 10),
    Study("overload", 109, 14),
    Study("wire", 23, 1),
    Study("sources", 45, 5),
    Study("concurrency", 66, 4),
    Study("methods", 22, 2),
    Study("workers", 38, 7),
    Study("memory", 24, 6),
    Study("ablation", 182, 9),
    Study("stragglers", 44, 6),
    Study("hang", 42, 6),
    Study("batch", 31, 6),
    Study("capacity", 79, 20),
    Study("soak", 660, 12, named=True),
)
# Runs instead of `cost` when an older revision is measured beside the working tree. Its finding has
# its own name, because it does not replace the comparison with the peers.
BEFORE = Study("before", 270, 15)


@dataclasses.dataclass(frozen=True)
class Run:
    """How to run. Plain values, because it is sent to the process of a study.

    `rounds` 0: the default of the lab.
    """

    quick: bool
    rounds: int
    directory: Path
    profile: Path | None = None
    before: Revision | None = None


INTERRUPTED = "It was interrupted."


class Progress(Protocol):
    """Shows the progress of a run."""

    def begin(self, study: Study, place: int, of: int) -> None: ...
    def report(self, text: str) -> None: ...
    def end(self, finding: Finding) -> None: ...


def select_studies(names: Sequence[str]) -> list[Study]:
    """Select studies in the order of the suite. Raises KeyError with the unknown names."""
    unknown = [name for name in names if name not in {study.name for study in STUDIES}]
    if unknown:
        raise KeyError(*unknown)
    return [study for study in STUDIES if (study.name in names if names else not study.named)]


def expected_s(studies: Sequence[Study], quick: bool) -> float:
    return sum(study.quick_s if quick else study.full_s for study in studies)


def run(
    studies: Sequence[Study], progress: Progress, measure: Callable[[str, Callable[[str], None]], Finding]
) -> list[Finding]:
    """Run the studies one after another. An interrupt ends the run and keeps earlier findings."""
    findings: list[Finding] = []
    for place, study in enumerate(studies, 1):
        progress.begin(study, place, len(studies))
        at, start_s = now(), time.perf_counter()
        try:
            finding = measure(study.name, progress.report)
        except KeyboardInterrupt:
            finding = failed_finding(study.name, INTERRUPTED)
        seconds = round(time.perf_counter() - start_s, 1)
        findings.append(msgspec.structs.replace(finding, name=study.name, at=at, seconds=seconds))
        progress.end(findings[-1])
        if finding.failed == INTERRUPTED:
            break
    return findings


def failed_finding(name: str, why: str) -> Finding:
    return Finding(name, name.capitalize(), "This study failed and has no results.", 0.0, failed=why)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def merge(new: Results, old: Results) -> Results:
    """Add the findings of `old` that `new` has not measured.

    Raises ValueError if the two do not compare.
    """
    if (new.machine.processor, new.machine.cores) != (old.machine.processor, old.machine.cores):
        raise ValueError("the older results are from another machine")
    if new.quick != old.quick:
        raise ValueError("one of the two runs was quick, and its figures mean nothing beside the other's")
    measured = {finding.name for finding in new.findings}
    reused = [_with_versions(finding, new.machine, old) for finding in old.findings if finding.name not in measured]
    order = [study.name for study in STUDIES]
    findings = sorted(
        [*new.findings, *reused], key=lambda finding: order.index(finding.name) if finding.name in order else len(order)
    )
    return msgspec.structs.replace(new, findings=findings)


def _with_versions(finding: Finding, machine: Machine, old: Results) -> Finding:
    """Add a note if the finding was measured with other versions than the new run."""
    differing = {
        name: version
        for name, version in old.machine.versions.items()
        if machine.versions.get(name, version) != version
    }
    notes = list(finding.notes)
    if differing:
        notes.append("Measured with " + ", ".join(f"{name} {version}" for name, version in differing.items()) + ".")
    return msgspec.structs.replace(finding, at=finding.at or old.at, notes=notes)


def read(file: Path) -> Results:
    return msgspec.json.decode(file.read_bytes(), type=Results)


def write(results: Results, file: Path) -> None:
    """Write the results. Keeps an existing file as `.previous.json`: a full run takes long."""
    if file.exists():
        file.replace(file.with_suffix(".previous.json"))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")
