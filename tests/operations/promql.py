"""Reads from PromQL what the tests ask about: selectors with their matchers, and grouping labels.

No parser of the whole language: promtool is one, and checks the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[A-Za-z_:$][\w:$.]*|\[[^\]]*\]|[=!]~|[=!<>]=|[\d.]+[a-z]*|\S')
_GROUPING = {"by", "without", "on", "ignoring", "group_left", "group_right"}
_OPERATORS = {"and", "or", "unless", "offset", "bool"}


class Matcher(NamedTuple):
    label: str
    operator: str
    value: str

    @property
    def values(self) -> tuple[str, ...]:
        """What it names. None for a variable or a pattern for everything."""
        if self.value.startswith("$") or self.value == ".*":
            return ()
        return tuple(self.value.split("|")) if self.operator.endswith("~") else (self.value,)


class Selector(NamedTuple):
    """`ranged`: it selects samples of a while, as for `rate`."""

    metric: str
    matchers: tuple[Matcher, ...]
    ranged: bool


class Expression(NamedTuple):
    selectors: tuple[Selector, ...]
    grouping: frozenset[str]


def parse(text: str) -> Expression:
    """Raises ValueError for braces without a metric."""
    tokens = _TOKEN.findall(text)
    selectors, grouping = [], set()
    at = 0
    while at < len(tokens):
        token = tokens[at]
        following = tokens[at + 1] if at + 1 < len(tokens) else ""
        if token in _GROUPING:
            end = tokens.index(")", at)
            grouping |= set(tokens[at + 2 : end]) - {","}
            at = end
        elif token == "{":
            raise ValueError(f"braces without a metric in {text}")
        elif _is_name(token) and token not in _OPERATORS and following not in ("(", "by", "without"):
            end = tokens.index("}", at) if following == "{" else at
            after = tokens[end + 1] if end + 1 < len(tokens) else ""
            selectors.append(Selector(token, tuple(_matchers(tokens[at + 2 : end])), after.startswith("[")))
            at = end
        at += 1
    return Expression(tuple(selectors), frozenset(grouping))


def _is_name(token: str) -> bool:
    return re.fullmatch(r"[A-Za-z_:][\w:]*", token) is not None


def _matchers(tokens: list[str]) -> Iterator[Matcher]:
    parts = [token for token in tokens if token != ","]
    for label, operator, value in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        yield Matcher(label, operator, value.strip('"'))
