"""One revision of cashier as a service: its package in its own directory, and its interpreter.

The directory is the service's current directory, and so the first place where `python -m` looks for
the package, before any editable installation. The service logs its imports (`PYTHONVERBOSE`); the
log proves that it runs this package and no other. Only the public command line and the
configuration are used, because a revision may name its modules differently.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import PackageNotFoundError, distribution, distributions
from pathlib import Path
from typing import Any, NamedTuple

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from benchmarks.git_revision import PACKAGE, PROJECT, Revision, copy_working_tree, last_line, unpack
from benchmarks.lab.process import PROGRAM_CORE, process
from benchmarks.lab.service import SECRET, STOP_AT_ONCE, Served, await_ready

INSTALL_S = 900.0
# The first two would change which files an import uses, or how the log names them.
_ENV = {"PYTHONSAFEPATH": "", "PYTHONPYCACHEPREFIX": "", "PYTHONVERBOSE": "1"}
_LOADED = re.compile(r"^# code object from '?(/.*?)'?$", re.MULTILINE)
_IMPORT_LOG = ("#", "import ", "Processing ", "Adding directory", "Python ", "[GCC", "[Clang", 'Type "help"')
_LIST_VERSIONS = (
    "import json; from importlib.metadata import distributions; "
    "print(json.dumps([[package.name, package.version] for package in distributions()]))"
)


class BuildFailed(Exception):
    """A revision cannot be installed or does not start. The message is one line with the reason."""


class Build(NamedTuple):
    """`env`: added to our environment. `origin`: text about where the dependencies come from."""

    title: str
    directory: Path
    python: str
    env: Mapping[str, str]
    origin: str = ""


def build_now(scratch: Path) -> Build:
    """A copy of the working tree's package, in the present environment."""
    directory = _make_directory(scratch / "now")
    copy_working_tree(directory)
    return Build("now", directory, sys.executable, _ENV)


def build_before(revision: Revision, scratch: Path) -> Build:
    """The revision's package, in the present environment if that satisfies its dependencies.

    Otherwise in a new virtual environment. Raises BuildFailed.
    """
    directory = _make_directory(scratch / "before")
    try:
        unpack(revision, directory)
        dependencies = dependencies_in(tomllib.loads((directory / PROJECT).read_text("utf-8")))
        missing = unmet(dependencies)
        if not missing:
            origin = "the same interpreter and packages as now: they satisfy its dependencies"
            return Build(f"revision {revision}", directory, sys.executable, _ENV, origin)
        python = _install(dependencies, scratch / "venv")
        origin = f"a virtual environment of its own, because the present one lacks {', '.join(missing)}"
        if differing := differing_versions(python):
            origin += f"; other versions than now: {', '.join(differing)}"
    except (ValueError, OSError, subprocess.SubprocessError) as problem:
        raise BuildFailed(f"revision {revision} cannot be installed: {_reason(problem)}") from problem
    return Build(f"revision {revision}", directory, python, {**_ENV, "PYTHONPATH": "", "PYTHONHOME": ""}, origin)


@contextmanager
def serving(build: Build, configuration: str, scratch: Path) -> Iterator[Served]:
    """Run `cashier serve` with one worker.

    Raises BuildFailed if it does not start, or runs another package than its own.
    """
    own = Path(tempfile.mkdtemp(prefix="build-", dir=scratch))
    config, log = own / "cashier.toml", own / "log"
    config.write_text(configuration)
    words = (build.python, "-m", PACKAGE, "serve", "--config", str(config), "--port", "0", "--workers", "1")
    with ExitStack() as running:
        try:
            env = {**SECRET, **build.env}
            child = running.enter_context(
                process(PROGRAM_CORE, *words, env=env, log=log, cwd=build.directory, end_signal=STOP_AT_ONCE)
            )
        except (RuntimeError, OSError) as problem:
            why = last_error(log.read_text(errors="replace")) or str(problem)
            raise BuildFailed(f"{build.title} does not start: {why}") from problem
        try:
            port = int(child.first_line.rpartition(":")[2])
            await_ready(port)
        except (RuntimeError, OSError, ValueError) as problem:
            raise BuildFailed(f"{build.title} does not start: {problem}") from problem
        check_imports(build, log.read_text(errors="replace"))
        yield Served(child.pid, port)


def check_imports(build: Build, log: str) -> None:
    """Raises BuildFailed unless the import log names the build's own package only."""
    files = [Path(name) for name in _LOADED.findall(log)]
    sources = [file.parent.parent / file.name if file.parent.name == "__pycache__" else file for file in files]
    packages = {file.parent for file in sources if file.parent.name == PACKAGE and file.name.startswith("__init__.")}
    expected = (build.directory / PACKAGE).resolve()
    if packages != {expected}:
        actual = ", ".join(str(package) for package in sorted(packages)) or "no package that its import log names"
        raise BuildFailed(f"{build.title} runs {actual} instead of {expected}")


def last_error(log: str) -> str:
    """The last lines of a failed service as one line, without its import log."""
    lines = [line.strip() for line in log.splitlines() if line.strip() and not line.startswith(_IMPORT_LOG)]
    has_traceback = any(line.startswith("Traceback ") for line in lines)
    return " ".join(lines[-1:] if has_traceback else lines[-3:])[-300:]


def dependencies_in(project: Mapping[str, Any]) -> list[str]:
    """Return its dependencies.

    Raises ValueError if it declares none or requires another Python than this one.
    """
    try:
        table = project["project"]
        dependencies: list[str] = table["dependencies"]
    except KeyError as missing:
        raise ValueError(f"its {PROJECT} has no {missing}") from None
    python = str(table.get("requires-python", ""))
    if platform.python_version() not in SpecifierSet(python, prereleases=True):
        raise ValueError(f"it requires Python {python}; this is {platform.python_version()}")
    return dependencies


def unmet(requirements: Sequence[str]) -> list[str]:
    """Requirements that the environment lacks, including those of installed packages."""
    missing: dict[str, None] = {}
    seen: set[str] = set()

    def visit(text: str, extra: str) -> None:
        wanted = Requirement(text)
        if f"{wanted} {extra}" in seen or (wanted.marker and not wanted.marker.evaluate({"extra": extra})):
            return
        seen.add(f"{wanted} {extra}")
        try:
            installed = distribution(wanted.name)
        except PackageNotFoundError:
            missing[text] = None
            return
        if not wanted.specifier.contains(installed.version, prereleases=True):
            missing[text] = None
        for requirement in installed.requires or ():
            for its_extra in ("", *wanted.extras):
                visit(requirement, its_extra)

    for text in requirements:
        visit(text, "")
    return list(missing)


def _make_directory(directory: Path) -> Path:
    directory.mkdir(parents=True)
    return directory.resolve()


def _install(dependencies: Sequence[str], directory: Path) -> str:
    python = str(directory / "bin" / "python")
    pip = (python, "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check")
    for words in ((sys.executable, "-m", "venv", str(directory)), (*pip, *dependencies)):
        subprocess.run(words, capture_output=True, text=True, check=True, timeout=INSTALL_S)
    return python


def differing_versions(python: str) -> list[str]:
    """Packages of this interpreter in other versions than ours."""
    listed = subprocess.run((python, "-I", "-c", _LIST_VERSIONS), capture_output=True, check=True, timeout=60)
    ours = {canonicalize_name(package.name): package.version for package in distributions()}
    theirs = {canonicalize_name(name): version for name, version in json.loads(listed.stdout)}
    ignored = {"pip", "setuptools", "wheel"}
    return [
        f"{name} {version} (now {ours[name]})"
        for name, version in sorted(theirs.items())
        if name not in ignored and ours.get(name, version) != version
    ]


def _reason(problem: Exception) -> str:
    """The reason of a failure; for pip its error rather than its warnings."""
    if not isinstance(problem, subprocess.CalledProcessError):
        return str(problem)
    output = str(problem.stderr or problem.stdout or "")
    errors = [line for line in output.splitlines() if line.startswith("ERROR:")]
    return errors[-1].removeprefix("ERROR:").strip() if errors else last_line(output)
