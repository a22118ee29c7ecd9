"""`python -m benchmarks`: runs the studies, shows how they stand against the bars, and writes results.json and report.html."""

from __future__ import annotations

import argparse
import importlib
import shlex
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import msgspec
from rich.console import Console

from benchmarks import machine, revision, suite
from benchmarks.bars import judge
from benchmarks.isolated_study import measure
from benchmarks.peers import PEERS, versions
from benchmarks.report.progress import Shown
from benchmarks.report.terminal import show
from benchmarks.results import Finding, Results

OUT = Path(__file__).parent / "out"


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="studies to run; without: all but the soak, which takes ten minutes"
    )
    parser.add_argument(
        "--quick", action="store_true", help="under two minutes, to see that it works; the figures mean nothing"
    )
    parser.add_argument("--rounds", type=int, default=0, metavar="N", help="instead of 5, or 1 when quick")
    parser.add_argument(
        "--out", type=Path, metavar="DIRECTORY", help="where results.json and report.html go (benchmarks/out)"
    )
    parser.add_argument("--merge", type=Path, metavar="FILE", help="take from older results what is not measured now")
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help="measure nothing: draw the report of these results again"
    )
    parser.add_argument(
        "--picture", type=Path, metavar="FILE", help="also draw the picture of the README, .svg or .png"
    )
    parser.add_argument(
        "--profile",
        type=Path,
        metavar="FILE",
        help="with the study `cost` alone: a profile of the service while it runs",
    )
    parser.add_argument(
        "--before",
        metavar="REV",
        help="with the study `cost` alone: measure this git revision beside the working tree, and no peers",
    )
    parser.add_argument(
        "--require-peers", action="store_true", help="do not begin unless everything to compare with is installed"
    )
    parser.add_argument("--list", action="store_true", help="name the studies and the peers, and do nothing")
    return parser


def main(words: Sequence[str]) -> int:
    parser = arguments()
    told = parser.parse_args(words)
    told.command = shlex.join(["python", "-m", "benchmarks", *words])
    if told.rounds < 0 or (told.profile and told.names != ["cost"]) or (told.report and told.names):
        parser.error("--rounds is 1 or more; --profile goes with the study `cost` alone; --report goes without studies")
    if told.picture and told.picture.suffix not in (".svg", ".png"):
        parser.error("--picture is an .svg or a .png")
    if told.before is not None and (told.names != ["cost"] or told.profile):
        parser.error("--before goes with the study `cost` alone, and without --profile")
    console = Console() if sys.stdout.isatty() else Console(width=160)
    if told.list:
        return listed(console)
    if find_spec("matplotlib") is None:
        parser.error("the report needs matplotlib: python -m pip install -e '.[bench]'")
    if told.require_peers and not all_present(console):
        return 1
    try:
        # All that may be wrong with what was given is known before anything is measured.
        told.revision = None if told.before is None else revision.find(told.before)
        studies = [suite.BEFORE] if told.revision else suite.chosen(told.names)
        before = suite.read(told.report) if told.report else blank(told)
        older = suite.read(told.merge) if told.merge else None
        if older:
            suite.merged(before, older)
    except KeyError as unknown:
        parser.error(f"no study is called {', '.join(unknown.args)}; --list names them")
    except (OSError, ValueError, msgspec.MsgspecError) as problem:
        parser.error(str(problem))
    results = before if told.report else msgspec.structs.replace(before, findings=measured(studies, told, console))
    if told.revision and any(finding.failed for finding in results.findings):
        return 1  # the reason is shown, and there is no figure to publish
    return published(suite.merged(results, older) if older else results, told, console)


def blank(told: argparse.Namespace) -> Results:
    """Before anything is measured."""
    return Results(suite.now(), told.command, told.quick, machine.found(versions()), [])


def measured(studies: Sequence[suite.Study], told: argparse.Namespace, console: Console) -> list[Finding]:
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as scratch, Shown(console, studies, told.quick) as shown:
        run = suite.Run(told.quick, told.rounds, Path(scratch), told.profile, told.revision)
        return suite.run(
            studies, shown, lambda name, say: measure(name, replace(run, directory=run.directory / name), say)
        )


def published(results: Results, told: argparse.Namespace, console: Console) -> int:
    """Shows and writes; 1 where a study failed."""
    out = told.out or (told.report.parent if told.report else OUT)
    new = told.merge or not told.report
    if new:
        suite.write(results, out / "results.json")
    judged = judge(results)
    show(results, judged, console)
    console.print(f"\n {out / 'results.json'}" if new else "", highlight=False, soft_wrap=True)
    from benchmarks.report import page, picture  # noqa: PLC0415 - they bring matplotlib, and all that comes before can do without

    out.mkdir(parents=True, exist_ok=True)
    (out / "report.html").write_text(page.page(results, judged), "utf-8")
    console.print(f" {out / 'report.html'}", highlight=False, soft_wrap=True)
    missing = picture.missing(results) if told.picture else ""
    if told.picture and not missing:
        picture.draw(results, told.picture)
    if told.picture:
        console.print(f" {missing or told.picture}", highlight=False, soft_wrap=True)
    return 1 if missing or any(finding.failed for finding in results.findings) else 0


def listed(console: Console) -> int:
    for study in suite.STUDIES:
        title = (importlib.import_module(f"benchmarks.studies.{study.name}").__doc__ or "").partition("\n")[0]
        console.print(
            f"{study.name:12} {'only when named  ' if study.named else ''}{title}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    console.print()
    for peer in PEERS:
        console.print(f"{peer.name:18} {peer.absent() or 'present'}", highlight=False, markup=False, soft_wrap=True)
    return 0


def all_present(console: Console) -> bool:
    reasons = {peer.title: reason for peer in PEERS if (reason := peer.absent())}
    for title, reason in reasons.items():
        console.print(f"{title}: {reason}", highlight=False, markup=False, soft_wrap=True)
    return not reasons


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
