"""Short commands of `python -m cashier …`, each forked from a process that has done the imports.

Imports take most of the time of a short command. Everything after them is unchanged: arguments,
output, exit status and the interpreter's shutdown. Servers start from scratch
(`command_processes`).
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from tests.support.command_processes import ENVIRONMENT, ROOT, TIMEOUT_S, kill_group


class Run(Protocol):
    def __call__(self, *words: str) -> tuple[int, str, str]:
        """Run to the end. Exit status, standard output, standard error."""


@contextmanager
def commands() -> Iterator[Run]:
    words = [sys.executable, "-m", "tests.support.forked_commands"]
    pipe = subprocess.PIPE
    with (
        tempfile.TemporaryDirectory() as directory,
        subprocess.Popen(
            words, cwd=ROOT, env=ENVIRONMENT, stdin=pipe, stdout=pipe, text=True, start_new_session=True
        ) as parent,
    ):
        assert parent.stdin is not None
        assert parent.stdout is not None
        out, err = (Path(directory, name) for name in ("out", "err"))

        def run(*words: str) -> tuple[int, str, str]:
            assert parent.stdin is not None
            assert parent.stdout is not None
            watchdog = threading.Timer(TIMEOUT_S, kill_group, [parent.pid])
            watchdog.start()
            try:
                parent.stdin.write(json.dumps([words, str(out), str(err)]) + "\n")
                parent.stdin.flush()
                status = parent.stdout.readline()
                assert status, f"it did not end within {TIMEOUT_S:g} s: {words}"
                return int(status), out.read_text("utf-8"), err.read_text("utf-8")
            finally:
                watchdog.cancel()

        try:
            yield run
        finally:
            parent.stdin.close()
            kill_group(parent.pid)


def serve() -> None:
    """Fork a process for each line of standard input, and print its exit status."""
    importlib.import_module("cashier.cli.commands")
    # Pages that a child's collector does not touch stay shared with the parent; copying them is
    # most of a command's cost.
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        words, out, err = json.loads(line)
        child = os.fork()
        if not child:
            become(words, out, err)
            break
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)  # noqa: T201 - the parent reads it


def become(words: list[str], out: str, err: str) -> None:
    """Run the command in this process, as `python -m cashier` does."""
    overwrite = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    for descriptor, path, flags in ((0, os.devnull, os.O_RDONLY), (1, out, overwrite), (2, err, overwrite)):
        opened = os.open(path, flags)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.argv[1:] = words
    runpy.run_module("cashier", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    serve()
