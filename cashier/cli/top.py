"""`cashier top`: the overview of the operations port, drawn anew every second."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from cashier.cli.invocation import run
from cashier.cli.layout import one_line, paragraph, terminal, write
from cashier.cli.operations_client import TOKEN_VARIABLE, OperationsClient
from cashier.cli.overview_printer import clock, overview_lines
from cashier.cli.service_client import RequestFailed
from cashier.ops.overview import Overview

_QUIT = frozenset(b"qQ\x03")


def command(
    url: Annotated[str, typer.Option(help="Address of the operations port.")] = "http://127.0.0.1:9464",
    token: Annotated[
        str | None, typer.Option(envvar=TOKEN_VARIABLE, help="Bearer token with the scope operations.")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="File with that token. It is read again at each request.")
    ] = None,
    interval: Annotated[float, typer.Option(min=0.2, max=3600, help="Seconds between two requests.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Print once and end.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print a line of JSON per request.")] = False,
) -> None:
    """Watch a running service: what needs attention, sources (worst first), payments, workers.

    It shows the first page of the operations port's console. q or Ctrl-C ends it.
    Prints once if the output is no terminal.
    """
    client = OperationsClient(url, token_file, token)
    console = terminal()
    if json and once:
        print(run(client.overview())[1].decode())  # noqa: T201
    elif json:
        run(follow_json(client, interval))
    elif once or not console.is_terminal:
        run(print_once(console, client))
    else:
        run(watch(console, client, interval))


class Screen:
    """What is known: the last overview, and since when there is none that is newer."""

    def __init__(self, url: str, interval_s: float) -> None:
        self.url = url
        self.interval_s = interval_s
        self.overview: Overview | None = None
        self.received_s = 0.0
        self.fault: str | None = None

    def received(self, overview: Overview) -> None:
        self.overview, self.received_s, self.fault = overview, time.monotonic(), None

    def lines(self, width: int) -> Iterator[Text]:
        yield from paragraph(self._heading(), width)
        if self.fault is not None:
            again = f" Trying again every {self.interval_s:g} s."
            yield from paragraph(Text(f"{one_line(self.fault)}.{again}", style="bold red"), width)
            if self.overview is not None:
                age_s = time.monotonic() - self.received_s
                yield Text(f"What follows is {age_s:.0f} s old.", style="bold red")
        yield Text()
        if self.overview is not None:
            yield from overview_lines(self.overview, width)

    def _heading(self) -> Text:
        at = f"  {clock(self.overview.at)}" if self.overview is not None else ""
        return Text.assemble(("cashier top", "bold"), f"  {self.url}{at}")


async def watch(console: Console, client: OperationsClient, interval_s: float) -> None:
    """Draw until q or Ctrl-C. A port that is down, restarts or refuses is tried again."""
    screen = Screen(client.url, interval_s)
    stopped, redraw = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    loop.add_signal_handler(signal.SIGWINCH, redraw.set)
    with _keys(stopped), Live(console=console, screen=True, auto_refresh=False) as live:
        async with asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(_ask_again_and_again(client, screen, redraw))
            while not stopped.is_set():
                live.update(_frame(screen, console), refresh=True)
                await _first(redraw, stopped)
                redraw.clear()
            asking.cancel()


async def follow_json(client: OperationsClient, interval_s: float) -> None:
    """Print an overview as a line of JSON again and again; what fails goes to standard error."""
    while True:
        try:
            _, body = await client.overview()
            print(body.decode(), flush=True)  # noqa: T201
        except RequestFailed as failed:
            print(failed, file=sys.stderr, flush=True)  # noqa: T201
        await asyncio.sleep(interval_s)


async def print_once(console: Console, client: OperationsClient) -> None:
    """Raises `RequestFailed`."""
    screen = Screen(client.url, 0.0)
    screen.received((await client.overview())[0])
    write(console, screen.lines(console.width))


async def _ask_again_and_again(client: OperationsClient, screen: Screen, redraw: asyncio.Event) -> None:
    while True:
        try:
            screen.received((await client.overview())[0])
        except RequestFailed as failed:
            screen.fault = str(failed)
        redraw.set()
        await asyncio.sleep(screen.interval_s)


async def _first(*events: asyncio.Event) -> None:
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()


def _frame(screen: Screen, console: Console) -> Group:
    """The lines that the screen has room for; the last one says how to leave."""
    width, height = console.size
    lines = list(screen.lines(width))
    hidden = max(0, len(lines) - (height - 1))
    more = f"{hidden} more lines: make the terminal taller.  " if hidden else ""
    shown = lines[: height - 1]
    for line in shown:
        line.truncate(width, overflow="ellipsis")
    return Group(*shown, Text(f"{more}q quits", style="dim"))


@contextmanager
def _keys(stopped: asyncio.Event) -> Iterator[None]:
    """Set `stopped` at q. Without a terminal to read from only signals stop."""
    if not sys.stdin.isatty():
        yield
        return
    loop, descriptor = asyncio.get_running_loop(), sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)

    def pressed() -> None:
        typed = os.read(descriptor, 64)
        if not typed or _QUIT & frozenset(typed):  # nothing: the terminal is gone
            stopped.set()

    tty.setcbreak(descriptor)
    loop.add_reader(descriptor, pressed)
    try:
        yield
    finally:
        loop.remove_reader(descriptor)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
