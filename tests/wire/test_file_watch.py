"""Files that change: what could not be read is read once the cause is gone."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from cashier.wire.file_watch import FileWatch

CAUSES = [errno.EMFILE, errno.ENFILE, errno.EIO, errno.EACCES, errno.ESTALE, errno.ENOMEM]


class Token:
    """The last text that could be read. `cause`: why none can be, now."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.cause: int | None = None
        self.renamed = False
        self.text = ""
        self.loads = 0

    def load(self) -> None:
        self.loads += 1
        if self.cause is not None:
            fault = OSError(self.cause, os.strerror(self.cause))
            if self.renamed:
                raise ValueError(fault.strerror) from fault
            raise fault
        text = self.file.read_text()
        if not text:
            raise ValueError("it is empty")
        self.text = text


@pytest.fixture
def token(tmp_path: Path) -> Token:
    file = tmp_path / "token"
    file.write_text("old")
    return Token(file)


@pytest.mark.parametrize("renamed", [False, True])
@pytest.mark.parametrize("cause", CAUSES, ids=errno.errorcode.get)
def test_a_file_that_could_not_be_read_is_read_once_the_cause_is_gone(token: Token, cause: int, renamed: bool) -> None:
    """`renamed`: by a loader that says which of its files it was, as of certificates."""
    token.renamed = renamed
    watch = FileWatch()
    watch.watch((str(token.file),), token.load)
    token.file.write_text("the new one")
    token.cause = cause
    with capture_logs() as logs:
        for _ in range(5):
            watch.check()
    assert token.text == "old"
    assert [log["reason"] for log in logs] == [os.strerror(cause)], "once, and not at each check"
    token.cause = None
    with capture_logs() as logs:
        watch.check()
        watch.check()
    assert token.text == "the new one"
    assert [log["event"] for log in logs] == ["changed files are in use"]


def test_another_cause_is_another_line(token: Token) -> None:
    watch = FileWatch()
    watch.watch((str(token.file),), token.load)
    token.file.write_text("the new one")
    with capture_logs() as logs:
        for token.cause in (errno.EMFILE, errno.EMFILE, errno.EIO, errno.EIO):
            watch.check()
    assert [log["reason"] for log in logs] == [os.strerror(errno.EMFILE), os.strerror(errno.EIO)]


def test_a_file_with_a_fault_is_not_read_again_before_it_changes(token: Token) -> None:
    watch = FileWatch()
    watch.watch((str(token.file),), token.load)
    token.file.write_text("")
    watch.check()
    loads = token.loads
    watch.check()
    assert token.loads == loads
    token.file.write_text("the new one")
    watch.check()
    assert token.text == "the new one"
