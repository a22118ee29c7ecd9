"""Resources of a process, read from /proc: memory, sockets by state, threads.

Works for processes of our own user on Linux. Timers of an event loop are not visible from outside.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

# States of include/net/tcp_states.h that a process can hold.
CLOSING, LEFT = "closing", "closed by the other side"
ENDING = (CLOSING, LEFT)
_STATES = {"01": "established", "02": "connecting", "04": CLOSING, "05": CLOSING, "08": LEFT, "0A": "listening"}
_OTHER = "other"


def private_kb(pid: int) -> float:
    """Memory of this process alone, which its end would free."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return float(
        sum(
            int(line.split()[1])
            for line in rollup.splitlines()
            if line.startswith(("Private_Clean:", "Private_Dirty:"))
        )
    )


def threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def sockets(pid: int) -> Counter[str]:
    """Open sockets by state. Other than TCP, or no longer listed: "other"."""
    states = dict(_tcp(pid))
    return Counter(states.get(inode, _OTHER) for inode in _inodes(pid))


def _inodes(pid: int) -> Iterator[str]:
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):  # closed meanwhile
            name = os.readlink(f"/proc/{pid}/fd/{descriptor}")
            if name.startswith("socket:["):
                yield name[8:-1]


def _tcp(pid: int) -> Iterator[tuple[str, str]]:
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            yield fields[9], _STATES.get(fields[3], _OTHER)
