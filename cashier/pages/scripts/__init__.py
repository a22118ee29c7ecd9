"""The scripts, composed of parts that they share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files

_PARTS: Mapping[str, tuple[str, ...]] = {
    "page.js": ("core", "page"),
    "cashier.js": ("core", "remote", "cashier"),
    "frame.js": ("core", "remote", "frame"),
}
# A comment on a line of its own, and indentation. No text of the scripts spans lines.
_IDLE = re.compile(r"^[ ]*(?://.*)?\n?", re.MULTILINE)


def scripts() -> dict[str, bytes]:
    """Each script by its name, without comments, as one function whose names are its own."""
    return {name: _composed(parts).encode() for name, parts in _PARTS.items()}


def _composed(parts: tuple[str, ...]) -> str:
    folder = files(__name__)
    text = "\n".join(folder.joinpath(f"{part}.js").read_text("utf-8") for part in parts)
    return f'(() => {{\n"use strict";\n{_IDLE.sub("", text)}}})();\n'
