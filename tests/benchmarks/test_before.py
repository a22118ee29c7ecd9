"""The comparison with an older revision: arguments, order, arithmetic, and proof of what runs."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

import benchmarks.__main__ as command
from benchmarks import git_revision, suite
from benchmarks.git_revision import Revision
from benchmarks.lab import Lab
from benchmarks.lab.cpu_usage import CpuUsage, combine
from benchmarks.lab.load_results import OK, LoadInterval
from benchmarks.lab.process import PROGRAM_CORE, CpuTime, cpu_s, exact_cpu_s, process, python
from benchmarks.lab.revision_build import (
    Build,
    BuildFailed,
    build_before,
    build_now,
    check_imports,
    dependencies_in,
    last_error,
    serving,
    unmet,
)
from benchmarks.lab.service import Served, configuration
from benchmarks.studies import before
from benchmarks.studies.before import GROUPS, Pair, Side, in_turn

CONFIGURATION = configuration("http://127.0.0.1:9", cached=False, shed=False, each="", other="")
EXIT_ON_START = "raise SystemExit('no shop today')\n"


def git(directory: Path, *words: str) -> str:
    settings = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    command = ["git", "-C", str(directory), *settings, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def commit(project: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text(text)
    git(project, "add", "-A")
    git(project, "commit", "--quiet", "--message", "a change")
    return git(project, "rev-parse", "HEAD")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository in place of this one. Its package exits at once."""
    directory = tmp_path / "project"
    directory.mkdir()
    git(directory, "init", "--quiet")
    commit(
        directory,
        {
            "pyproject.toml": "[project]\ndependencies = ['msgspec']\n",
            "cashier/__init__.py": "FIRST = True\n",
            "cashier/__main__.py": EXIT_ON_START,
        },
    )
    monkeypatch.setattr(git_revision, "ROOT", directory)
    return directory


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory for the temporary directories of the command."""
    directory = tmp_path / "scratch"
    directory.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    return directory


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "measure", lambda *_: pytest.fail("it was measured"))


def usage_error(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that ends with the status for wrong usage, and return its error line."""
    with pytest.raises(SystemExit) as stopped:
        command.main(words)
    assert stopped.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize(
    "words",
    [
        ["--before", "HEAD"],
        ["wire", "--before", "HEAD"],
        ["cost", "wire", "--before", "HEAD"],
        ["cost", "--before", "HEAD", "--profile", "x"],
        ["--report", "x", "--before", "HEAD"],
    ],
)
@pytest.mark.usefixtures("project", "unmeasured")
def test_before_is_only_for_the_study_cost(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert "--before needs the study `cost` alone" in usage_error(words, capsys)


@pytest.mark.parametrize("name", ["no_such_branch", "", "--all", "-q", "0123456789"])
@pytest.mark.usefixtures("project", "unmeasured")
def test_an_unknown_revision_is_refused_by_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    error = usage_error(["cost", f"--before={name}"], capsys)
    assert f"no revision {name!r}: git has no commit of this name" in error


@pytest.mark.usefixtures("unmeasured")
def test_a_directory_without_a_repository_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(git_revision, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert "not a git repository" in usage_error(["cost", "--before", "HEAD"], capsys)


@pytest.mark.usefixtures("project", "unmeasured")
def test_a_machine_without_git_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "git is not installed" in usage_error(["cost", "--before", "HEAD"], capsys)


def test_a_revision_is_any_commit_name_and_does_not_move_with_a_branch(project: Path) -> None:
    first = git(project, "rev-parse", "HEAD")
    git(project, "tag", "--annotate", "--message", "x", "v1")
    revisions = [git_revision.find(name) for name in ("HEAD", "v1", first[:7], first)]
    commit(project, {"cashier/__init__.py": "FIRST = False\n"})
    assert {each.commit for each in revisions} == {first}
    assert git_revision.find("HEAD^") == Revision("HEAD^", first)
    assert str(revisions[0]) == f"HEAD ({first[:10]})"
    assert str(revisions[2]) == first[:10]


def test_before_is_the_commit_and_now_is_the_working_tree_at_the_start(project: Path, tmp_path: Path) -> None:
    first = git_revision.find("HEAD")
    commit(project, {"cashier/__init__.py": "SECOND = True\n"})
    (project / "cashier" / "__init__.py").write_text("UNCOMMITTED = True\n")
    (project / "cashier" / "untracked.py").write_text("")
    now, older = build_now(tmp_path), build_before(first, tmp_path)
    (project / "cashier" / "__init__.py").write_text("EDITED = True\n")
    assert (now.directory / "cashier" / "__init__.py").read_text() == "UNCOMMITTED = True\n"
    assert (now.directory / "cashier" / "untracked.py").exists()
    assert (older.directory / "cashier" / "__init__.py").read_text() == "FIRST = True\n"
    assert older.python == now.python == sys.executable
    assert "the same interpreter" in older.origin
    assert "with uncommitted changes" in git_revision.describe_working_tree()
    assert git(project, "worktree", "list").count("\n") == 0


def test_a_revision_without_the_package_cannot_be_installed(project: Path, tmp_path: Path) -> None:
    git(project, "rm", "--quiet", "-r", "cashier")
    git(project, "commit", "--quiet", "--message", "gone")
    with pytest.raises(BuildFailed, match=r"revision HEAD \(\w{10}\) cannot be installed: .*cashier"):
        build_before(git_revision.find("HEAD"), tmp_path)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[project", "Expected"),
        ("[tool.x]\n", "its pyproject.toml has no 'project'"),
        ("[project]\n", "its pyproject.toml has no 'dependencies'"),
        ("[project]\nrequires-python = '>=9'\ndependencies = []\n", "it requires Python >=9; this is"),
        ("[project]\ndependencies = ['a b c']\n", "a b c"),
    ],
)
def test_a_revision_with_a_broken_project_file_cannot_be_installed(
    project: Path, tmp_path: Path, text: str, why: str
) -> None:
    commit(project, {"pyproject.toml": text})
    with pytest.raises(BuildFailed, match="cannot be installed") as failure:
        build_before(git_revision.find("HEAD"), tmp_path)
    assert why in str(failure.value)


def test_the_present_environment_satisfies_the_present_dependencies() -> None:
    import tomllib

    project = tomllib.loads((git_revision.ROOT / "pyproject.toml").read_text("utf-8"))
    assert unmet(dependencies_in(project)) == []


def test_a_dependency_is_unmet_if_it_is_absent_or_has_another_version() -> None:
    met = ["msgspec>=0.1", "pyjwt[crypto]", "no-such-package; python_version < '3'"]
    assert unmet([*met, "msgspec>=999", "no-such-package"]) == ["msgspec>=999", "no-such-package"]


def test_extras_of_a_dependency_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    class Installed:
        version = "1.0"
        requires = ("absent; extra == 'redis'", "absent-too; extra == 'other'")

    def distribution(name: str) -> Installed:
        if name != "present":
            raise PackageNotFoundError(name)
        return Installed()

    import benchmarks.lab.revision_build as build_module

    monkeypatch.setattr(build_module, "distribution", distribution)
    assert unmet(["present"]) == []
    assert unmet(["present[redis]"]) == ["absent; extra == 'redis'"]


def a_build(directory: Path) -> Build:
    return Build("revision abc", directory, sys.executable, {})


@pytest.mark.parametrize(
    "line",
    [
        "# code object from {}/cashier/__init__.py",
        "# code object from '{}/cashier/__pycache__/__init__.cpython-311.pyc'",
    ],
)
def test_the_import_log_proves_which_package_runs(line: str, tmp_path: Path) -> None:
    build = a_build(tmp_path)
    own = f"# code object from /usr/lib/python3/json/__init__.py\n{line.format(tmp_path)}\nimport 'cashier' # <x>\n"
    check_imports(build, own)
    check_imports(build, own + own)
    with pytest.raises(BuildFailed, match=r"revision abc runs /elsewhere/cashier instead of"):
        check_imports(build, line.format("/elsewhere"))
    with pytest.raises(BuildFailed, match="/elsewhere/cashier"):
        check_imports(build, own + line.format("/elsewhere"))
    with pytest.raises(BuildFailed, match="no package that its import log names"):
        check_imports(build, own.replace("code object", "x"))


def test_the_last_error_of_a_service_excludes_its_import_log() -> None:
    log = "import 'x' # <y>\nTraceback (most recent call last):\n  at\nKeyError: 'shop'\n# cleanup[2] removing x\n"
    assert last_error(log) == "KeyError: 'shop'"
    assert last_error("# x\ncashier.toml:\n  no shop\n") == "cashier.toml: no shop"
    assert last_error("# only imports\n") == ""


def test_each_build_is_first_in_every_second_pair() -> None:
    now, older = a_build(Path("/now")), a_build(Path("/before"))
    firsts = [in_turn(now, older, turn)[0] for turn in range(4)]
    assert firsts == [older, now, older, now]
    assert in_turn(now, older, 0) == (older, now)
    assert in_turn(now, older, 1) == (now, older)


class FakeUpstream:
    urls = "http://127.0.0.1:9"


def side(cpu_us: float, calls: float = 8.0) -> Side:
    interval = LoadInterval()
    interval.seconds = 1.0
    interval.statuses[OK] = 1_000
    return Side(CpuUsage(interval, CpuTime(cpu_us * 0.0008, cpu_us * 0.0002), 0.9, 0.3, 0.0), cpu_us / 1_000, calls)


def test_a_pair_is_measured_in_its_order_and_sorted_by_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, older = a_build(Path("/now")), a_build(Path("/before"))
    started: list[tuple[Build, bool]] = []

    class Started:
        def __init__(self, build: Build, configuration: str, _: Path) -> None:
            started.append((build, "cache = false" in configuration))

        def __enter__(self) -> None: ...
        def __exit__(self, *_: object) -> None: ...

    async def drive_services(lab: Lab, group: object, order: tuple[Build, Build], *_: object) -> list[Side]:
        return [side(90.0 if build is now else 100.0) for build in order]

    progress: list[str] = []
    monkeypatch.setattr(before, "serving", Started)
    monkeypatch.setattr(before, "drive_services", drive_services)
    lab = Lab(tmp_path, rounds=2, on_progress=progress.append)
    pairs_by_group = before.measure_pairs(lab, now, older, FakeUpstream(), [])  # type: ignore[arg-type]
    assert [pair.ratio for pairs in pairs_by_group.values() for pair in pairs] == [pytest.approx(0.9)] * 4
    live, cached = True, False
    first, second = [(older, live), (now, live)], [(older, cached), (now, cached)]
    assert started == [*first, *second, *reversed(first), *reversed(second)]
    assert progress[0] == "pair 1 of 2, now ÷ before: live 0.900 (90 ÷ 100 µs), cached 0.900 (90 ÷ 100 µs)"


def test_the_ratio_is_taken_within_each_pair() -> None:
    # The machine slows down by half in between; the two sides of a pair see the same speed.
    pairs = [Pair(side(90), side(100)), Pair(side(190), side(200)), Pair(side(300), side(200))]
    finding = before.finding(dict.fromkeys(GROUPS, pairs), "revision abc", "From here.")
    for name in ("live", "cached"):
        ratio = finding.key[f"before.ratio.{name}"]
        assert [ratio.median, ratio.low, ratio.high] == pytest.approx([0.95, 0.9, 1.5])
        assert finding.key[f"before.now_us.{name}"].median == pytest.approx(190)
        assert finding.key[f"before.before_us.{name}"].median == pytest.approx(200)
    [table] = finding.tables
    assert table.rows[0].figures["now ÷ before"] == finding.key["before.ratio.live"]
    assert finding.notes[:2] == ["From here.", "All eight live: now is cheaper in 2 of 3 pairs."]


async def test_slices_alternate_within_a_pair_and_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[int] = []

    class FakeLoad:
        looked_at = 0

        def __init__(self, *_: object, **__: object) -> None: ...

        async def __aenter__(self) -> FakeLoad:
            return self

        async def __aexit__(self, *_: object) -> None: ...

        async def closed(self, _: float) -> LoadInterval:
            interval = side(1).usage.interval
            interval.looked_at = self.looked_at
            return interval

    async def measure_slice(_: Lab, __: FakeLoad, served: Served, ___: object) -> Side:
        order.append(served.port)
        return side(100.0 * len(order), calls=float(served.port))

    monkeypatch.setattr(before, "open_load", FakeLoad)
    monkeypatch.setattr(before, "measure_slice", measure_slice)
    builds, served = [a_build(tmp_path)] * 2, [Served(0, 1), Served(0, 2)]
    with pytest.raises(BuildFailed, match="revision abc does not consult: LoadInterval"):
        await before.drive_services(Lab(tmp_path), GROUPS[0], builds, served, FakeUpstream(), [])  # type: ignore[arg-type]
    FakeLoad.looked_at = 16
    upstream: Any = FakeUpstream()
    sides = await before.drive_services(Lab(tmp_path), GROUPS[0], builds, served, upstream, [])
    assert order == [1, 2, 2, 1] * 6  # two slices of each before those that count
    assert [each.calls for each in sides] == [1.0, 2.0]
    first = [100.0 * (at + 1) for at, which in enumerate(order) if which == 1][2:]
    assert sides[0].cpu_us == pytest.approx(sum(first) / 10)
    assert sides[0].usage.interval.answered == 10_000


def test_a_comparison_with_an_older_revision_has_more_rounds_by_default(tmp_path: Path) -> None:
    older = Revision("abc", "abc")
    assert Lab(tmp_path, before=older).rounds == 10
    assert Lab(tmp_path, before=older, rounds=3).rounds == 3
    assert Lab(tmp_path, before=older, quick=True).rounds == 1
    assert Lab(tmp_path).rounds == 5


def test_a_failed_comparison_is_not_published(
    project: Path, scratch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[tuple[str, suite.Run]] = []

    def measure(name: str, run: suite.Run) -> object:
        ran.append((name, run))
        return suite.failed_finding(name, "revision HEAD does not start: no shop")

    monkeypatch.setattr(suite, "measure", measure)
    assert command.main(["cost", "--before", "HEAD", "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().out.count("revision HEAD does not start: no shop") == 1
    [(name, run)] = ran
    assert (name, run.before) == ("before", git_revision.find("HEAD"))
    assert not (tmp_path / "out").exists()
    assert not list(scratch.iterdir())


@pytest.mark.processes
def test_a_revision_that_does_not_start_gives_the_reason_and_leaves_nothing(project: Path, tmp_path: Path) -> None:
    older = build_before(git_revision.find("HEAD"), tmp_path)
    with (
        pytest.raises(BuildFailed, match=r"^revision HEAD \(\w{10}\) does not start: no shop today$"),
        serving(older, CONFIGURATION, tmp_path),
    ):
        pass


@pytest.mark.processes
def test_a_dependency_that_cannot_be_installed_is_named(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(project, {"pyproject.toml": "[project]\ndependencies = ['no-such-package-of-ours']\n"})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(BuildFailed, match=r"cannot be installed: .*no-such-package-of-ours") as failure:
        build_before(git_revision.find("HEAD"), tmp_path)
    assert "\n" not in str(failure.value)


@pytest.mark.processes
def test_a_service_that_runs_another_package_is_refused(tmp_path: Path) -> None:
    # Without the package in the directory the interpreter imports the installed one, and the
    # service starts.
    (tmp_path / "empty").mkdir()
    build = build_now(tmp_path)._replace(title="revision abc", directory=tmp_path / "empty")
    with (
        pytest.raises(BuildFailed, match=r"revision abc runs .*cashier instead of"),
        serving(build, CONFIGURATION, tmp_path),
    ):
        pass


@pytest.mark.processes
def test_the_present_revision_compares_with_itself(
    scratch: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert command.main(["cost", "--before", "HEAD", "--quick", "--out", str(out)]) == 0
    [finding] = suite.read(out / "results.json").findings
    assert finding.name == "before"
    assert all(len(finding.key[f"before.ratio.{group.name}"].rounds) == 1 for group in GROUPS)
    assert "now ÷ before" in capsys.readouterr().out
    assert "CPU per consultation, now and before" in (out / "report.html").read_text("utf-8")
    assert not list(scratch.iterdir())


def test_slices_combine_into_one_interval() -> None:
    first, second = side(100).usage, side(300).usage._replace(others_busy=0.2, program_busy=0.5)
    second.interval.seconds, second.interval.load_busy, second.interval.wrong = 3.0, 0.4, ["without card"]
    second.interval.statuses[503] += 5
    total = combine([first, second])
    assert total.interval.answered == 2_000
    assert total.interval.failed == 5
    assert total.interval.wrong == ["without card"]
    assert [total.interval.seconds, total.cpu_us] == pytest.approx([4.0, 200.0])
    assert [total.interval.load_busy, total.others_busy, total.program_busy] == pytest.approx([0.3, 0.15, 0.6])


@pytest.mark.processes
def test_the_exact_clock_of_a_sleeping_process_agrees_with_its_ticks() -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass\nprint('done', flush=True)\ntime.sleep(60)"
    with process(PROGRAM_CORE, python()[0], "-c", burn) as child:
        assert child.first_line == "done"
        exact_s = exact_cpu_s(child.pid)
        assert 0.3 <= exact_s < 1
        assert cpu_s(child.pid) == pytest.approx(exact_s, abs=0.03)
