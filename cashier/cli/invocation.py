"""What the commands share: the end of a run, the line for bad input, a few options."""

from __future__ import annotations

import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, NoReturn

import msgspec
import orjson
import typer
import uvloop
from rich.console import Console

from cashier.cli import service_client, weather_printer
from cashier.cli.checkout_client import CannotPay
from cashier.domain.money import Money
from cashier.domain.order import Country, Id
from cashier.sandbox import CASES, BadWeather
from cashier.settings.schema import ConfigurationError

# Far more than any amount has; Python refuses to read some thousands.
_MOST_DIGITS = 100

Locale = Annotated[str, typer.Option(help="Language of the texts: en, zh-CN, or another of texts.toml.")]


def run(work: Coroutine[Any, Any, Any], interrupted: int = 0) -> Any:
    try:
        return uvloop.run(work)
    except BadWeather as error:
        stop(weather_printer.refusal_text(error.field, error.detail, error.nearest))
    except (service_client.RequestFailed, CannotPay, OSError) as error:
        stop(str(error))
    except KeyboardInterrupt:
        raise typer.Exit(interrupted) from None


@contextmanager
def answers_of(url: str) -> Iterator[None]:
    """Stop at a JSON document in which its reader does not find what a service answers.

    Another program listens there, or another version of the service.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        lacking = f": it has no {error}" if isinstance(error, KeyError) else ""
        stop(f"{url} answers in another form, maybe of another version or program{lacking}")


def refuse(error: ConfigurationError) -> NoReturn:
    stop(*error.faults)


def stop(*lines: str, status: int = 1) -> NoReturn:
    for line in lines:
        _print(line, "red")
    raise typer.Exit(status)


def warn(line: str) -> None:
    _print(line, "yellow")


def _print(line: str, style: str) -> None:
    """To stderr. The line may quote a file or an upstream, which must not steer the terminal."""
    text = "".join(each if each.isprintable() or each == "\n" else "\N{REPLACEMENT CHARACTER}" for each in line)
    Console(stderr=True, highlight=False, soft_wrap=True).print(text, style=style, markup=False)


def known_case(name: str) -> Any:
    if name not in CASES:
        stop(f"there is no case {name!r}; `cashier cases` lists them")
    return CASES[name]


def input_fault(name: str, value: str) -> str | None:
    """Why `value` cannot be the input of a source with this name: a country, or an id."""
    try:
        msgspec.convert(value, Country if name == "country" else Id)
    except (msgspec.ValidationError, UnicodeEncodeError):
        return f"{value!r} is not {'a country of two capital letters' if name == 'country' else 'an id'}"
    return None


def known_inputs(*, amount: str | None, **given: str | None) -> dict[str, Any]:
    """The inputs of sources by name, as given on the command line."""
    known: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    for name, value in known.items():
        if fault := input_fault(name, value):
            stop(fault)
    if amount is not None:
        money = Money(**parse_money(amount))
        known |= {"amount": money, "currency": money.currency}
    return known


def parse_money(text: str, status: int = 1) -> dict[str, Any]:
    currency, _, value = text.partition(":")
    if not value.isdecimal() or len(value) > _MOST_DIGITS:
        stop(f"--amount {text!r} is not an amount; an example is CNY:12800", status=status)
    return {"currency": currency, "value": int(value)}


def print_json(document: Any) -> None:
    sys.stdout.buffer.write(orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
