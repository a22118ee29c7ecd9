"""Short commands: `python -m cashier …`, each a process of its own, forked from one that has imported what they need.

Importing is most of what a short command does, and the same for all of them. Whatever comes after it is as always: arguments, output, exit
status, and what the interpreter has to say at its end. Servers start from nothing (`running.py`).
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

from tests.support.command_processes import ENVIRONMENT, PATIENCE_S, ROOT, kill_group


class Run(Protocol):
    def __call__(self, *words: str) -> tuple[int, str, str]:
        """To its end. Exit status, and what it printed to standard output and to standard error."""


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
            watchdog = threading.Timer(PATIENCE_S, kill_group, [parent.pid])
            watchdog.start()
            try:
                parent.stdin.write(json.dumps([words, str(out), str(err)]) + "\n")
                parent.stdin.flush()
                status = parent.stdout.readline()
                assert status, f"it did not end within {PATIENCE_S:g} s: {words}"
                return int(status), out.read_text("utf-8"), err.read_text("utf-8")
            finally:
                watchdog.cancel()

        try:
            yield run
        finally:
            parent.stdin.close()
            kill_group(parent.pid)


def serve() -> None:
    """For every line of standard input a process, and for every one that has ended a line with its exit status."""
    importlib.import_module("cashier.cli.commands")
    # What a child's collector does not look at stays shared with its parent: otherwise most of a command is copying it.
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        words, out, err = json.loads(line)
        child = os.fork()
        if not child:
            become(words, out, err)
            break
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)  # noqa: T201 - the one who asked reads it


def become(words: list[str], out: str, err: str) -> None:
    """The command itself, in this process: from here on nothing is different from `python -m cashier`."""
    anew = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    for descriptor, path, how in ((0, os.devnull, os.O_RDONLY), (1, out, anew), (2, err, anew)):
        opened = os.open(path, how)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.argv[1:] = words
    runpy.run_module("cashier", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    serve()
