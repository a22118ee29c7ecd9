"""Secrets from files and variables: followed when they change, and in no text."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from cashier.sources.auth.bearer import BearerToken, authorization
from cashier.sources.auth.secret import Secret
from cashier.wire import file_watch
from cashier.wire.file_watch import FileWatch
from cashier.wire.transport import Request


def token_of(files: FileWatch, path: Path) -> BearerToken:
    return BearerToken(Secret("auth.bearer.token", str(path), None, authorization, files))


def sent(bearer: BearerToken) -> str:
    return dict(bearer.authenticate(Request("/a")).headers)["Authorization"]


def test_a_changed_file_is_read_again(token_file: Path) -> None:
    files = FileWatch()
    bearer = token_of(files, token_file)
    assert sent(bearer) == "Bearer first-token"
    token_file.write_text("second-token")
    files.check()
    assert sent(bearer) == "Bearer second-token"


def test_a_link_that_is_moved_is_a_change(tmp_path: Path) -> None:
    """As Kubernetes swaps the secrets of a volume: file -> ..data/file, ..data -> ..dated."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "token").write_text(f"token-{name}")
    (tmp_path / "..data").symlink_to("one")
    (tmp_path / "token").symlink_to("..data/token")
    files = FileWatch()
    bearer = token_of(files, tmp_path / "token")
    (tmp_path / "..next").symlink_to("two")
    (tmp_path / "..next").replace(tmp_path / "..data")
    files.check()
    assert sent(bearer) == "Bearer token-two"


def test_a_file_of_the_same_size_and_time_is_a_change(token_file: Path) -> None:
    files = FileWatch()
    bearer = token_of(files, token_file)
    before = os.stat(token_file)
    token_file.write_text("other-token\n")
    os.utime(token_file, ns=(before.st_atime_ns, before.st_mtime_ns))
    files.check()
    assert sent(bearer) == "Bearer other-token"


@pytest.mark.parametrize("content", ["", " \n", "two\nlines", "Bearer x", "x" * 70_000, None])
def test_a_file_that_cannot_be_used_leaves_the_last_token_and_one_warning(
    content: str | None, token_file: Path
) -> None:
    files = FileWatch()
    bearer = token_of(files, token_file)
    token_file.unlink() if content is None else token_file.write_text(content)
    with capture_logs() as logs:
        files.check()
        files.check()
    assert sent(bearer) == "Bearer first-token"
    (log,) = logs
    assert log["log_level"] == "warning"
    assert log["files"] == (str(token_file),)
    assert "lines" not in log["reason"].replace("several lines", "")
    token_file.write_text("third-token")
    with capture_logs() as logs:
        files.check()
    assert sent(bearer) == "Bearer third-token"
    assert "third" not in str(logs)


def watching() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "file-watch"]


async def test_an_open_watch_checks_by_itself_and_ends_with_its_close(
    token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_watch, "CHECK_S", 0.001)
    files = FileWatch()
    bearer = token_of(files, token_file)
    await files.open()
    (thread,) = watching()
    await asyncio.to_thread(token_file.write_text, "second-token")
    async with asyncio.timeout(30):
        while sent(bearer) != "Bearer second-token":  # noqa: ASYNC110 - a file sets no event
            await asyncio.sleep(0.001)
    await files.close()
    await asyncio.to_thread(thread.join, 30)
    assert watching() == []


async def test_without_files_nothing_runs() -> None:
    files = FileWatch()
    await files.open()
    assert watching() == []
    await files.close()


@pytest.mark.parametrize(
    ("file", "variable", "complaint"),
    [
        ("/no/such/file", None, "auth.x.token_file '/no/such/file': No such file"),
        ("/", None, "auth.x.token_file '/': Is a directory"),
        (None, "UNSET_t0ken", "auth.x.token_env names a variable that is not set"),
        (None, "EMPTY", "auth.x.token_env names a variable that is not set"),
        (None, "TWO", "auth.x.token_env: is no bearer token"),
    ],
)
def test_what_cannot_be_used_is_named_by_its_key_and_not_quoted(
    file: str | None, variable: str | None, complaint: str
) -> None:
    environ = {"EMPTY": "", "TWO": "t0ken t0ken"}
    with pytest.raises(ValueError, match=complaint) as refused:
        Secret("auth.x.token", file, variable, authorization, FileWatch(), environ)
    assert "t0ken" not in str(refused.value)


def test_a_variable_is_read_without_white_space() -> None:
    secret = Secret("auth.x.token", None, "T", authorization, FileWatch(), {"T": " t-1\n"})
    assert secret.value == (("Authorization", "Bearer t-1"),)
    assert "t-1" not in repr(secret) + repr(BearerToken(secret))
