"""Which studies there are, and what becomes of them when they are run one after another. Measures nothing itself.

Findings of an earlier run may stand beside new ones, where the machine and the kind of run are the same.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from benchmarks.results import Finding, Machine, Results
from benchmarks.revision import Revision


class Study(NamedTuple):
    """`full_s`, `quick_s`: how long it takes, roughly. `named`: runs only when it is named."""

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
# Runs in the place of `cost` when an older revision is measured beside the present one. Its finding
# has its own name, because it does not replace the comparison with the peers.
BEFORE = Study("before", 270, 15)


@dataclasses.dataclass(frozen=True)
class Run:
    """How to run. Plain values, because it travels to the process in which a study runs. `rounds` 0: as many as the lab thinks right."""

    quick: bool
    rounds: int
    directory: Path
    profile: Path | None = None
    before: Revision | None = None


INTERRUPTED = "It was interrupted."


class Progress(Protocol):
    """Who watches."""

    def begin(self, study: Study, place: int, of: int) -> None: ...
    def report(self, text: str) -> None: ...
    def end(self, finding: Finding) -> None: ...


def select_studies(names: Sequence[str]) -> list[Study]:
    """In the order of the suite. Raises KeyError with the names that there are not."""
    unknown = [name for name in names if name not in {study.name for study in STUDIES}]
    if unknown:
        raise KeyError(*unknown)
    return [study for study in STUDIES if (study.name in names if names else not study.named)]


def expected_s(studies: Sequence[Study], quick: bool) -> float:
    return sum(study.quick_s if quick else study.full_s for study in studies)


def run(
    studies: Sequence[Study], progress: Progress, measure: Callable[[str, Callable[[str], None]], Finding]
) -> list[Finding]:
    """One after another. Whoever interrupts ends it, and keeps what was found before."""
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
    return Finding(name, name.capitalize(), "This study failed; nothing is known of what it measures.", 0.0, failed=why)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def merge(new: Results, old: Results) -> Results:
    """With the findings of `old` for what `new` has not measured. Raises ValueError where the two do not belong side by side."""
    if (new.machine.processor, new.machine.cores) != (old.machine.processor, old.machine.cores):
        raise ValueError("the older results are of another machine")
    if new.quick != old.quick:
        raise ValueError("one of the two was a quick run, whose figures mean nothing beside the other's")
    measured = {finding.name for finding in new.findings}
    reused = [_with_versions(finding, new.machine, old) for finding in old.findings if finding.name not in measured]
    order = [study.name for study in STUDIES]
    findings = sorted(
        [*new.findings, *reused], key=lambda finding: order.index(finding.name) if finding.name in order else len(order)
    )
    return msgspec.structs.replace(new, findings=findings)


def _with_versions(finding: Finding, machine: Machine, old: Results) -> Finding:
    """With a note where it was measured with something else than the heading says."""
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
    """What was there is reused beside it: twenty minutes should not be lost to a run of one study."""
    if file.exists():
        file.replace(file.with_suffix(".previous.json"))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")
