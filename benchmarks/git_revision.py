"""Find and unpack revisions of this project in git."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "cashier"
PROJECT = "pyproject.toml"


class Revision(NamedTuple):
    """`name`: as given. `commit`: its full hash."""

    name: str
    commit: str

    def __str__(self) -> str:
        short = self.commit[:10]
        return short if self.commit.startswith(self.name) else f"{self.name} ({short})"


def find(name: str) -> Revision:
    """Find a commit by name. Raises ValueError without git, a repository or such a commit."""
    try:
        commit = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}").decode().strip()
    except ValueError as problem:
        raise ValueError(f"no revision {name!r}: {str(problem) or 'git has no commit of this name'}") from None
    return Revision(name, commit)


def unpack(revision: Revision, directory: Path) -> None:
    """Unpack the package and the project file. Raises ValueError if the revision has none."""
    archive = directory.with_suffix(".zip")
    _git("archive", "--format=zip", f"--output={archive}", revision.commit, PACKAGE, PROJECT)
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(directory)
    archive.unlink()


def copy_working_tree(directory: Path) -> None:
    """Copy the package on disk, uncommitted changes included.

    Later edits do not affect the copy.
    """
    shutil.copytree(ROOT / PACKAGE, directory / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))


def describe(revision: Revision) -> str:
    return _git("show", "--no-patch", "--format=%h of %cs, “%s”", revision.commit).decode().strip()


def describe_working_tree() -> str:
    commit = _git("rev-parse", "--short", "HEAD").decode().strip()
    changed = _git("status", "--porcelain", "--", PACKAGE)
    return f"the working tree at {commit}, {'with uncommitted changes' if changed else 'without changes'} in {PACKAGE}"


def _git(*words: str) -> bytes:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, check=False)
    except FileNotFoundError:
        raise ValueError("git is not installed") from None
    if done.returncode:
        raise ValueError(last_line(done.stderr.decode(errors="replace")))
    return done.stdout


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
