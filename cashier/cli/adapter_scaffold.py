"""A new adapter and its test, as text. They read the contract's own shape until changed."""

from __future__ import annotations

import json
import keyword
import re
import sys
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from cashier.consultation.source_table import SOURCE_SPECS
from cashier.contract.examples import examples
from cashier.contract.operations import OPERATIONS, Operation

_MONEY = {"currency", "value"}
_AMOUNT = {"currency": "CNY", "value": 12800}
_KNOWN = {"order_id": "o_1001", "user_id": "u_1", "merchant_id": "m_1", "currency": "CNY", "country": "CN"}
_ADAPTER = '''\
"""The adapter of the source `{source}`, for a service of ours.

    [sources.{source}]
    url = "https://{source}.example.com"
    adapter = "{name}"

`cashier adapter try {source} --live` asks the service. Recipes: the cookbook of cashier/sources.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from cashier.wire.transport import Request, Response

# The statuses that `parse` understands. Every other one is a failure of the service.
statuses = {{200, 404}}


def request(asked: Mapping[str, Any]) -> Request:
{request}


def parse(response: Response, asked: Mapping[str, Any]) -> dict[str, Any] | None:
    """On the left the contract's fields, on the right those of the service. None: there is none."""
    if response.status == 404:
        return None
    answer = response.json()
    return {mapping}
'''
_TEST = '''\
"""`python -m pytest test_{name}.py`: samples of the service, through the adapter and all checks."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from cashier.adapter_trial import Trial, try_adapter
from cashier.domain.money import Money
from cashier.settings.loader import configuration
from cashier.wire.transport import Response

CONFIG = configuration(
    {{"sources": {{"{source}": {{"url": "http://127.0.0.1", "adapter": "{name}"}}}}}}, __file__, Path(__file__).parent
)
KNOWN: dict[str, Any] = {known}
# What the service answers.
ANSWER: Any = json.loads("""
{answer}
""")


def tried(status: int, answer: Any) -> Trial:
    body = json.dumps(answer).encode()
    return asyncio.run(try_adapter(CONFIG, "{source}", KNOWN, [Response(status, body)]))


def test_an_answer_can_be_used() -> None:
    trial = tried(200, ANSWER)
    assert trial.fault is None, trial.raised or trial.fault
    assert [sent.target for sent in trial.requests] == ["{sent}"]


def test_there_may_be_none() -> None:
    assert tried(404, {{}}).none


def test_another_shape_is_a_fault_and_not_an_answer() -> None:
    assert tried(200, {{}}).fault is not None
'''


def adapter_files(name: str, source: str) -> dict[str, str]:
    """The text by file name. Raises ValueError for a name or a source that there cannot be."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise ValueError(f"{name!r} names no Python module: use letters, digits and underscores, such as wallet")
    if name in sys.stdlib_module_names or name in sys.modules:
        raise ValueError(f"{name!r} is a module of Python or of a library: choose another name, such as my_{name}")
    specs = {spec.source.name: spec for spec in SOURCE_SPECS}
    if source not in specs:
        raise ValueError(f"there is no source {source!r} of a consultation; known are {', '.join(specs)}")
    answer = _first_of_each(examples()[f"{source}_read"]["200"])
    # The subject of the example.
    known = {need: answer.get(need, _KNOWN[need]) for need in specs[source].needs if need != "amount"}
    values = {**_AMOUNT, **known}
    (operation,) = (each for each in OPERATIONS if each.source == source)
    query = urlencode({each: values[each] for each in operation.query})
    inputs = [f'"{need}": {json.dumps(value)}' for need, value in known.items()]
    if "amount" in specs[source].needs:
        inputs.append(f'"amount": Money("{_AMOUNT["currency"]}", {_AMOUNT["value"]})')
    return {
        f"{name}.py": _ADAPTER.format(
            source=source,
            name=name,
            request=_request(operation, known),
            mapping=_expression(answer, "answer", 1),
        ),
        f"test_{name}.py": _TEST.format(
            source=source,
            name=name,
            known="{" + ", ".join(inputs) + "}",
            answer=json.dumps(answer, ensure_ascii=False, indent=2),
            sent=operation.path.format_map(values) + (f"?{query}" if query else ""),
        ),
    }


def _first_of_each(value: Any) -> Any:
    """One item of each list, so that the adapter knows all fields of the sample."""
    if isinstance(value, dict):
        return {name: _first_of_each(part) for name, part in value.items()}
    return [_first_of_each(part) for part in value[:1]] if isinstance(value, list) else value


def _request(operation: Operation, known: Mapping[str, Any]) -> str:
    """The body of `request`."""

    def value(name: str) -> str:
        return f'asked["{name}"]' if name in known else f'asked["amount"].{name}'

    lines = [f'{name} = quote({value(name)}, safe="")' for name in operation.path_parameters]
    target = f'f"{operation.path}"' if lines else f'"{operation.path}"'
    if operation.query:
        lines.append("query = urlencode({" + ", ".join(f'"{each}": {value(each)}' for each in operation.query) + "})")
        target = f'f"{operation.path}?{{query}}"'
    return "\n".join(f"    {line}" for line in (*lines, f"return Request({target})"))


def _expression(value: Any, access: str, depth: int) -> str:
    """Source text that copies `value` field by field from `access`."""
    inner, outer = "    " * (depth + 1), "    " * depth
    if isinstance(value, dict) and value.keys() != _MONEY:
        rows = (
            f'"{name}": {_expression(part, f"{access}[{json.dumps(name)}]", depth + 1)}' for name, part in value.items()
        )
        return "{\n" + "".join(f"{inner}{row},\n" for row in rows) + outer + "}"
    if isinstance(value, list) and value and isinstance(value[0], dict):
        item = "item" if access.startswith("answer") else "part"
        return f"[\n{inner}{_expression(value[0], item, depth + 1)}\n{inner}for {item} in {access}\n{outer}]"
    return access
