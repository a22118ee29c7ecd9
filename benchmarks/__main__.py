"""`python -m benchmarks`: run the studies and write results.json and report.html."""

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

from benchmarks import git_revision, suite
from benchmarks.peers import PEERS, versions
from benchmarks.performance_targets import judge
from benchmarks.report.tables import show
from benchmarks.results import Finding, Results

OUT = Path(__file__).parent / "out"


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help="studies to run; default: all except the soak and `interpreters`")
    add("--quick", action="store_true", help="under two minutes, to check that it works; the figures mean nothing")
    add("--rounds", type=int, default=0, metavar="N", help="rounds of each figure (5, or 1 with --quick)")
    add("--out", type=Path, metavar="DIRECTORY", help="directory for results.json and report.html (benchmarks/out)")
    add("--merge", type=Path, metavar="FILE", help="add the studies of older results that do not run now")
    add("--report", type=Path, metavar="FILE", help="measure nothing; draw the report of these results again")
    add("--picture", type=Path, metavar="FILE", help="also draw the picture for the README, .svg or .png")
    add("--profile", type=Path, metavar="FILE", help="only with the study `cost`: flame graph of the loaded service")
    add("--before", metavar="REV", help="only with the study `cost`: compare this git revision, without the peers")
    add("--python", action="append", metavar="FILE", help="only with the study `interpreters`: one beside this Python")
    add("--require-peers", action="store_true", help="fail at the start unless all peers are installed")
    add("--list", action="store_true", help="list the studies and the peers, and exit")
    return parser


def main(argv: Sequence[str]) -> int:
    parser = arguments()
    args = parser.parse_args(argv)
    args.command = shlex.join(["python", "-m", "benchmarks", *argv])
    if args.rounds < 0 or (args.profile and args.names != ["cost"]) or (args.report and args.names):
        parser.error("--rounds is 1 or more; --profile needs the study `cost` alone; --report takes no studies")
    if args.picture and args.picture.suffix not in (".svg", ".png"):
        parser.error("--picture takes an .svg or a .png file")
    if args.before is not None and (args.names != ["cost"] or args.profile):
        parser.error("--before needs the study `cost` alone and excludes --profile")
    if bool(args.python) != (args.names == [suite.INTERPRETERS]):
        parser.error("--python needs the study `interpreters` alone, which needs at least one")
    if args.list:
        return list_all()
    if find_spec("matplotlib") is None:
        parser.error("the report needs matplotlib: python -m pip install -e '.[bench]'")
    if args.require_peers and not all_present():
        return 1
    try:
        # Reject bad arguments before the first measurement.
        args.revision = None if args.before is None else git_revision.find(args.before)
        studies = [suite.BEFORE] if args.revision else suite.select_studies(args.names)
        base = suite.read(args.report) if args.report else empty_results(args)
        older = suite.read(args.merge) if args.merge else None
        if older:
            suite.merge(base, older)
    except KeyError as unknown:
        parser.error(f"unknown studies: {', '.join(unknown.args)}; --list names them")
    except (OSError, ValueError, msgspec.MsgspecError) as problem:
        parser.error(str(problem))
    results = base if args.report else msgspec.structs.replace(base, findings=run_studies(studies, args))
    if args.revision and any(finding.failed for finding in results.findings):
        return 1  # the reason is on the screen, and there are no figures to publish
    return publish(suite.merge(results, older) if older else results, args)


def empty_results(args: argparse.Namespace) -> Results:
    return Results(suite.now(), args.command, args.quick, suite.describe_machine(versions()), [])


def run_studies(names: Sequence[str], args: argparse.Namespace) -> list[Finding]:
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as scratch:
        run = suite.Run(args.quick, args.rounds, Path(scratch), args.profile, args.revision, args.python or ())
        # A quick run shows that the studies work. Where another program has the machine for half a
        # second, its short intervals may go without an answer.
        attempts = 2 if args.quick else 1

        def measure(name: str) -> Finding:
            return suite.measure(name, replace(run, directory=Path(tempfile.mkdtemp(prefix=f"{name}-", dir=scratch))))

        return suite.run(names, measure, attempts=attempts)


def publish(results: Results, args: argparse.Namespace) -> int:
    """Show and write the results. Returns 1 if a study failed."""
    out = args.out or (args.report.parent if args.report else OUT)
    out.mkdir(parents=True, exist_ok=True)
    judged = judge(results)
    if args.merge or not args.report:
        suite.write(results, out / "results.json")
    show(results, judged, Console() if sys.stdout.isatty() else Console(width=160))
    print()
    if args.merge or not args.report:
        print(f" {out / 'results.json'}")
    # Both import matplotlib, which nothing before needs.
    from benchmarks.report import charts, page  # noqa: PLC0415 - see above

    (out / "report.html").write_text(page.page(results, judged), "utf-8")
    print(f" {out / 'report.html'}")
    drawn = not args.picture or charts.draw_picture(results, args.picture)
    if args.picture:
        missing = f"no picture: it needs results of {', '.join(charts.PICTURED)}"
        print(f" {args.picture if drawn else missing}")
    return 0 if drawn and not any(finding.failed for finding in results.findings) else 1


def list_all() -> int:
    for name in suite.STUDIES:
        title = (importlib.import_module(f"benchmarks.studies.{name}").__doc__ or "").partition("\n")[0]
        print(f"{name:12} {'only when named  ' if name in suite.ONLY_NAMED else ''}{title}")
    print()
    for peer in PEERS:
        print(f"{peer.name:18} {peer.absent() or 'present'}")
    return 0


def all_present() -> bool:
    reasons = {peer.title: reason for peer in PEERS if (reason := peer.absent())}
    for title, reason in reasons.items():
        print(f"{title}: {reason}")
    return not reasons


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
