"""HTML from the plain text of a study's docstring: paragraphs, lists and `code`."""

from __future__ import annotations

import re
from html import escape


def to_html(text: str) -> str:
    return "".join(_block(block) for block in re.split(r"\n\s*\n", text.strip()) if block)


def _block(block: str) -> str:
    first, *items = re.split(r"(?:^|\n)[ \t]*- ", block)
    paragraph = f'<p class="about">{_line(first)}</p>' if first.strip() else ""
    listed = "".join(f"<li>{_line(item)}</li>" for item in items)
    return paragraph + (f'<ul class="about">{listed}</ul>' if listed else "")


def _line(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(" ".join(text.split())))
