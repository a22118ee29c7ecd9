"""Pays at a running service and prints each step, for the command line and the demonstration."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from secrets import token_urlsafe
from typing import Any

from rich.console import Console

from cashier.cli import consultation_printer, payment_printer, service_client
from cashier.cli.checkout_client import CannotPay, CheckoutStep, Payer, PayerPreference, SelectedMethod, choose, follow
from cashier.cli.checkout_client import pay as submit_and_follow
from cashier.cli.layout import write
from cashier.cli.service_client import ServiceReply
from cashier.domain.payment_state import FINAL

# Challenges whose answer must not appear on the screen.
_HIDDEN = frozenset({"PASSWORD"})


def new_key() -> str:
    return f"k_{token_urlsafe(12)}"


class StepPrinter:
    """Prints each step as it happens. `payment` is the payment as last printed."""

    def __init__(self, console: Console, url: str) -> None:
        self.payment: dict[str, Any] | None = None
        self._console = console
        self._url = url

    def __call__(self, step: CheckoutStep) -> None:
        write(self._console, payment_printer.step_lines(step.action, step.reply, self.payment, self._console.width))
        if "code" not in step.reply.body:
            self.payment = step.reply.body

    def print_resume_hint(self) -> None:
        """Print how to continue, unless the payment is final."""
        if self.payment is not None and self.payment["status"] not in FINAL and "payment_token" in self.payment:
            write(self._console, payment_printer.resume_lines(self.payment, self._url, self._console.width))


async def consult_and_choose(
    console: Console, url: str, request: dict[str, Any], choice: PayerPreference
) -> SelectedMethod | ServiceReply:
    """Consult and choose a method; the problem where there is no consultation.

    Raises `CannotPay` and `RequestFailed`.
    """
    answer, took_ms = await service_client.consult(url, request)
    if "code" in answer:
        write(console, consultation_printer.problem_lines(answer, console.width))
        return ServiceReply(answer["status"], answer, took_ms)
    console.print()
    write(console, payment_printer.consulted_line(answer, took_ms, console.width))
    return choose(request, answer, choice)


async def pay(console: Console, url: str, chosen: SelectedMethod, key: str, payer: Payer) -> ServiceReply:
    """Submit, and follow to the end; the last reply.

    Raises `RequestFailed`, and `CannotPay` where a challenge stays without an answer.
    """
    write(console, payment_printer.chosen_lines(chosen, key, console.width))
    with _printing(console, url) as printer:
        async with service_client.payments_client(url) as payments:
            return await submit_and_follow(payments, chosen.body, key, payer, printer)


async def consult_and_pay(
    console: Console, url: str, request: dict[str, Any], choice: PayerPreference, key: str, payer: Payer
) -> ServiceReply:
    chosen = await consult_and_choose(console, url, request, choice)
    return chosen if isinstance(chosen, ServiceReply) else await pay(console, url, chosen, key, payer)


async def resume(console: Console, url: str, payment_id: str, token: str, cancel: bool, payer: Payer) -> ServiceReply:
    """Follow an existing payment to its end; `cancel` it first. Raises as `pay` does."""
    with _printing(console, url) as printer:
        async with service_client.payments_client(url) as payments:
            reply = await (payments.cancel(payment_id, token) if cancel else payments.status(payment_id, token))
            printer(CheckoutStep("cancel" if cancel else "status", reply))
            return await follow(payments, reply, payer, printer)


async def take_over(
    console: Console, url: str, request: dict[str, Any], action: str | None, payer: Payer
) -> ServiceReply:
    """Find the payment of an order whose token is lost.

    `action`: None, `resume`, which also follows it, or `replace`. `request`: the fields of both.
    Raises as `pay` does.
    """
    with _printing(console, url) as printer:
        async with service_client.payments_client(url) as payments:
            named = ("order_id", "merchant_id", "user_id", "locale")
            found = await payments.find({name: request[name] for name in named})
            printer(CheckoutStep("find", found))
            if action is None or "code" in found.body:
                return found
            reply = await payments.take_over(found.body["payment_id"], action, request)
            printer(CheckoutStep(action, reply))
            return await follow(payments, reply, payer, printer)


@contextmanager
def _printing(console: Console, url: str) -> Iterator[StepPrinter]:
    printer = StepPrinter(console, url)
    try:
        yield printer
    except (asyncio.CancelledError, KeyboardInterrupt, service_client.RequestFailed):
        printer.print_resume_hint()
        raise
    else:
        printer.print_resume_hint()


def challenge_answerer(otp: str | None) -> Callable[[dict[str, Any]], str]:
    """Answers challenges with `otp`, else by a prompt. Raises `CannotPay` without a terminal."""

    def answer(challenge: dict[str, Any]) -> str:
        if otp is not None:
            return otp
        if not sys.stdin.isatty():
            raise CannotPay(f"{challenge['type']} needs an answer: give it with --otp")
        console = Console(stderr=True, highlight=False)
        with _interruptible_prompt():
            return console.input(
                f"    {challenge['type']} {challenge['render_value']}: ", password=challenge["type"] in _HIDDEN
            ).strip()

    return answer


@contextmanager
def _interruptible_prompt() -> Iterator[None]:
    """Let Ctrl-C end a prompt at once; the event loop's handler waits for the next key."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
