"""`cashier record`: keep the answers of real services for a sandbox, without whose they were."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from cashier.cli.invocation import known_inputs, refuse, run, stop, warn
from cashier.cli.layout import command, paragraph, terminal, write
from cashier.recording import NothingToRecord, Recording, record
from cashier.recording import write as write_recording
from cashier.settings.loader import load
from cashier.settings.schema import ConfigurationError


def record_command(
    order_id: Annotated[str, typer.Option(help="Id of an order that the acquirer knows.")],
    out: Annotated[Path, typer.Option(help="Folder of the recordings.")] = Path("recordings"),
    config: Annotated[Path, typer.Option("--config", "-c", help="Configuration file.")] = Path("config/cashier.toml"),
    user_id: Annotated[str | None, typer.Option(help="User id of the payer.", show_default="the order's")] = None,
    merchant_id: Annotated[str | None, typer.Option(help="Merchant id.", show_default="the order's")] = None,
) -> None:
    """Ask each source of a configuration once, and keep its answer for `cashier sandbox --replay`.

    Ids, names and all texts of people become pseudonyms; amounts, states, banks and channels stay.
    Moves no money: risk is not asked. Exit status 1 means that a source has no usable answer.
    """
    known = known_inputs(order_id=order_id, user_id=user_id, merchant_id=merchant_id, amount=None)
    try:
        recording, missing = run(record(load(config), known))
        file = write_recording(recording, out)
    except ConfigurationError as error:
        refuse(error)
    except NothingToRecord as error:
        stop(str(error))
    except OSError as error:
        stop(f"{out} cannot be written: {error.strerror}")
    console = terminal()
    names = ", ".join(answer.source for answer in recording.answers)
    write(console, paragraph(Text(f"{file}: {names}"), console.width, 0, 4))
    write(console, command(["cashier sandbox", f"--replay {out}"], console.width))
    write(console, command(_consult_words(recording), console.width))
    for exchange in missing:
        unasked = f"not asked, without {', '.join(exchange.missing)}" if exchange.missing else None
        warn(f"{exchange.source} is not recorded: {exchange.fault or unasked or 'a function of this process'}")
    if any(exchange.fault for exchange in missing):
        raise typer.Exit(1)


def _consult_words(recording: Recording) -> list[str]:
    request = recording.request
    amount = request["amount"]
    options = {name: request[name] for name in ("order_id", "user_id", "merchant_id", "product") if name in request}
    words = [f"--{name.replace('_', '-')} {value}" for name, value in options.items()]
    return [
        "cashier consult",
        *words,
        f"--amount {amount['currency']}:{amount['value']}",
        f"--country {request['country']}",
    ]
