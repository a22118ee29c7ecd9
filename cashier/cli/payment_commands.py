"""Pays at a running service and prints it, step by step: for the command line and the demonstration."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from secrets import token_urlsafe
from typing import Any

from rich.console import Console, RenderableType
from rich.text import Text

from cashier.cli import consultation_printer, payment_printer, service_client
from cashier.cli.payer import ChosenMethod, CannotPay, Payer, Step, PaymentChoice, choose, follow
from cashier.cli.payer import pay as pay_at
from cashier.cli.service_client import ServiceReply
from cashier.domain.payment_state import FINAL

# The provers whose answer is not to be seen on the screen.
_HIDDEN = frozenset({"PASSWORD"})


def new_key() -> str:
    return f"k_{token_urlsafe(12)}"


class StepPrinter:
    """Prints every step as it comes, and knows the payment as it was last."""

    def __init__(self, console: Console, url: str) -> None:
        self.payment: dict[str, Any] | None = None
        self._console = console
        self._url = url

    def __call__(self, step: Step) -> None:
        self._print(payment_printer.step_lines(step.asked, step.told, self.payment))
        if "code" not in step.told.body:
            self.payment = step.told.body

    def left(self) -> None:
        """Says how to go on, where it is not over."""
        if self.payment is not None and self.payment["status"] not in FINAL:
            self._print(payment_printer.resume_hint(self.payment, self._url))

    def _print(self, lines: Iterable[RenderableType]) -> None:
        for line in lines:
            self._console.print(line, soft_wrap=isinstance(line, Text))


async def consult_and_choose(console: Console, url: str, request: dict[str, Any], wish: PaymentChoice) -> ChosenMethod | ServiceReply:
    """Consult and choose; the problem where there is no answer to choose from. Raises `CannotPay`, `NoAnswer`."""
    answer, took_ms, _ = await service_client.consult(url, request)
    if "code" in answer:
        console.print(consultation_printer.problem(answer))
        return ServiceReply(answer["status"], answer, took_ms)
    console.print()
    console.print(payment_printer.consulted(answer, took_ms))
    return choose(request, answer, wish)


async def pay(console: Console, url: str, found: ChosenMethod, key: str, payer: Payer) -> ServiceReply:
    """Submit, and follow to the end. The last thing that was said. Raises `NoAnswer`, and `CannotPay` where a challenge is not answered."""
    console.print(payment_printer.chosen(found, key))
    with _printing(console, url) as printed:
        async with service_client.payments_client(url) as payments:
            return await pay_at(payments, found.body, key, payer, printed)


async def consult_and_pay(
    console: Console, url: str, request: dict[str, Any], wish: PaymentChoice, key: str, payer: Payer
) -> ServiceReply:
    found = await consult_and_choose(console, url, request, wish)
    return found if isinstance(found, ServiceReply) else await pay(console, url, found, key, payer)


async def resume(console: Console, url: str, payment_id: str, token: str, cancel: bool, payer: Payer) -> ServiceReply:
    """Go on with a payment that was begun elsewhere, or ask for its end, and follow it to the last word. Raises as `pay` does."""
    with _printing(console, url) as printed:
        async with service_client.payments_client(url) as payments:
            told = await (payments.cancel(payment_id, token) if cancel else payments.look(payment_id, token))
            printed(Step("cancel" if cancel else "look", told))
            return await follow(payments, told, payer, printed)


@contextmanager
def _printing(console: Console, url: str) -> Iterator[StepPrinter]:
    printed = StepPrinter(console, url)
    try:
        yield printed
    except (asyncio.CancelledError, KeyboardInterrupt, service_client.RequestFailed):
        printed.left()
        raise
    else:
        printed.left()


def challenge_answerer(otp: str | None) -> Callable[[dict[str, Any]], str]:
    """Answers a challenge with what was given, else by asking whoever sits at the terminal. Raises `CannotPay` where nobody does."""

    def prove(challenge: dict[str, Any]) -> str:
        if otp is not None:
            return otp
        if not sys.stdin.isatty():
            raise CannotPay(f"{challenge['type']} asks for an answer: give it with --otp")
        console = Console(stderr=True, highlight=False)
        with _interruptible():
            return console.input(
                f"    {challenge['type']} {challenge['render_value']}: ", password=challenge["type"] in _HIDDEN
            ).strip()

    return prove


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C ends what waits for a person. The event loop's own way of it would wait for the next key first."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
