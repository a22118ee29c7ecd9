"""Trials of adapters as lines for a terminal: what was sent, and what came out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import orjson
from rich.text import Text

from cashier.adapter_trial import Trial
from cashier.cli.layout import one_line, paragraph

_INDENT = 4


def trial_lines(trial: Trial, width: int) -> Iterator[Text]:
    for request in trial.requests:
        status = "" if request.status is None else f"  {request.status}"
        yield from paragraph(Text(f"{request.method} {request.target}{status}", style="bold"), width, 0, _INDENT)
        for name, value in request.headers:
            yield from paragraph(Text(f"{name}: {value}", style="dim"), width, _INDENT, _INDENT)
        if request.body:
            yield from paragraph(Text(one_line(request.body), style="dim"), width, _INDENT, 0)
    if trial.fault is not None:
        yield Text(one_line(trial.fault), style="red")
        if trial.raised is not None:
            yield Text(one_line(trial.raised), style="red")
        if trial.mapping is not None:
            yield Text("The adapter returned:")
            yield _json(trial.mapping)
    else:
        yield Text("There is none, which means:" if trial.none else "The answer of this source:", style="green")
        yield _json(trial.answer)
    for finding in trial.findings:
        yield from paragraph(Text(finding, style="yellow"), width, 0, 2)
    if trial.unused:
        yield Text(f"{trial.unused} of the samples were not asked for.", style="yellow")


def _json(value: Any) -> Text:
    return Text(msgspec.json.format(orjson.dumps(value), indent=2).decode())
