"""The layout of a store: a header, int64 cells, and a directory that only grows.

The directory names the children and their cells. Its length in the header is written last, so a
reader finds whole entries only. Another process reads the file at any time, while its writer may
be in the middle of an entry, may have been killed, or may be another version of this program.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

import msgspec
from msgspec import Struct

from cashier.metrics.families import FAMILIES
from cashier.metrics.snapshot import Snapshot, value_of

_MAGIC = b"cashier1"
# Magic, length of the directory in bytes.
_HEADER = struct.Struct("=8sq")
HEADER_BYTES = _HEADER.size
PUBLISHED_AT = 8
CELLS_AT = 64
CELLS = 1 << 16
DIRECTORY_AT = CELLS_AT + 8 * CELLS
DIRECTORY_BYTES = 3 << 18
SIZE = DIRECTORY_AT + DIRECTORY_BYTES
_ENTRY_LENGTH = struct.Struct("=H")


class Entry(Struct, frozen=True, array_like=True):
    """One child. `first`: the index of the first of its cells."""

    family: str
    labels: tuple[str, ...]
    first: int
    cells: int


class UnreadableStore(ValueError):
    """The file is no store, or is damaged."""


def write_header(memory: memoryview) -> None:
    memory[:HEADER_BYTES] = _HEADER.pack(_MAGIC, 0)


def directory_length(header: bytes) -> int:
    """Raises `UnreadableStore`."""
    if len(header) < HEADER_BYTES:
        raise UnreadableStore("the file is shorter than a store")
    magic, length = _HEADER.unpack(header)
    if magic != _MAGIC or not 0 <= length <= DIRECTORY_BYTES:
        raise UnreadableStore("the file is no store of this version")
    return int(length)


def encoded(entry: Entry) -> bytes:
    body = msgspec.json.encode(entry)
    return _ENTRY_LENGTH.pack(len(body)) + body


def entries_in(directory: bytes) -> Iterator[Entry]:
    """The entries of the families that this version knows. Raises `UnreadableStore`."""
    at = 0
    while at < len(directory):
        try:
            (length,) = _ENTRY_LENGTH.unpack_from(directory, at)
            entry = _DECODER.decode(directory[at + _ENTRY_LENGTH.size : at + _ENTRY_LENGTH.size + length])
        except (struct.error, msgspec.DecodeError):
            raise UnreadableStore("the directory is damaged") from None
        at += _ENTRY_LENGTH.size + length
        if not 0 <= entry.first <= entry.first + entry.cells <= CELLS:
            raise UnreadableStore("the directory points beyond the cells")
        family = FAMILIES.get(entry.family)
        if family is not None and entry.cells == family.cells and len(entry.labels) == len(family.labels):
            yield entry


def snapshot_of(entries: Iterable[Entry], cells: memoryview) -> Snapshot:
    snapshot: Snapshot = {}
    numbers = cells.tolist()
    for entry in entries:
        children = snapshot.get(entry.family)
        if children is None:
            children = snapshot[entry.family] = {}
        first = entry.first
        children[entry.labels] = value_of(FAMILIES[entry.family], numbers[first : first + entry.cells])
    return snapshot


_DECODER = msgspec.json.Decoder(Entry)
