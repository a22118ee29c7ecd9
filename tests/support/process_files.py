"""What Linux shows of a running process: its workers, open files and sockets.

Workers end and files close while a test looks. What has gone meanwhile is left out.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def worker_pids(supervisor: int) -> list[int]:
    """The living worker processes of a supervisor, oldest first."""
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    return [int(child) for child in children if b"spawn_main" in _command_line(child)]


def open_files(pid: int) -> list[str]:
    """Names of the open files: paths, or such as "socket:[4026]".

    Raises `FileNotFoundError` if the process has ended, so that a test of leaks fails.
    """
    names = []
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):  # closed meanwhile
            names.append(os.readlink(f"/proc/{pid}/fd/{descriptor}"))
    return names


def open_sockets(pid: int) -> int:
    return sum(name.startswith("socket:") for name in open_files(pid))


def socket_inode(port: int, *, listening: bool) -> str | None:
    """Of the listening or the connected IPv4 socket with this local port.

    None also if the list of the sockets, which is no snapshot, missed it.
    """
    wanted = "0A" if listening else "01"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].split(":")[1], 16) == port and fields[3] == wanted:
            return fields[9]
    return None


def _command_line(pid: str) -> bytes:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""
