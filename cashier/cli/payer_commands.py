"""The commands of a payer at a running service: consult, pay, follow, and take a payment over."""

from __future__ import annotations

import signal
from collections.abc import Coroutine
from typing import Annotated, Any

import typer
from rich.console import Console

from cashier.cli import demo, payment_session, service_client
from cashier.cli.checkout_client import Payer, PayerPreference
from cashier.cli.invocation import Locale, answers_of, known_case, parse_money, print_json, run, stop
from cashier.cli.layout import terminal
from cashier.cli.payment_printer import TOKEN_VARIABLE
from cashier.domain.payment_state import PaymentStatus

Url = Annotated[str, typer.Option(help="Address of the service.")]
Otp = Annotated[
    str | None,
    typer.Option(help="Answer to a challenge; 246810 at the sandbox. Without it the terminal prompts for one."),
]
ChosenPromotions = Annotated[
    list[str] | None,
    typer.Option("--promotion", help="Promotion that may count; repeat it for more.", show_default="the best set"),
]
NoPromotions = Annotated[bool, typer.Option("--no-promotions", help="Use no promotion.")]
OrderId = Annotated[str | None, typer.Option(help="Order id.")]
UserId = Annotated[str | None, typer.Option(help="User id of the payer.")]
MerchantId = Annotated[str | None, typer.Option(help="Merchant id.")]
Product = Annotated[
    str | None, typer.Option(help="Checkout product.", show_default="that of the case, or STANDARD_CASHIER")
]
TerminalType = Annotated[
    str | None, typer.Option("--terminal", help="Terminal of the payer.", show_default="that of the case, or APP")
]
ClaimedAmount = Annotated[
    str | None, typer.Option(help="Claimed amount, in minor units of its currency, such as CNY:12800.")
]
ClaimedCountry = Annotated[str | None, typer.Option(help="Claimed country, two letters (ISO 3166).")]


_DEFAULT_CASE = "chinese_shop"


def consult(
    url: Url = "http://127.0.0.1:8080",
    case: Annotated[
        str | None, typer.Option(help="Order to consult, a name from `cashier cases`; the options below override it.")
    ] = None,
    order_id: OrderId = None,
    user_id: UserId = None,
    merchant_id: MerchantId = None,
    product: Product = None,
    terminal_type: TerminalType = None,
    amount: ClaimedAmount = None,
    country: ClaimedCountry = None,
    locale: Locale = "en",
    deadline_ms: Annotated[
        int | None,
        typer.Option(help="Deadline of the consultation, in ms.", show_default="[consult] deadline_ms of the service"),
    ] = None,
    promotion: ChosenPromotions = None,
    no_promotions: NoPromotions = False,
    json: Annotated[bool, typer.Option("--json", help="Print the response body as JSON.")] = False,
    stream: Annotated[
        bool, typer.Option("--stream", help="Stream the answers as they improve, with the time of each.")
    ] = False,
) -> None:
    """Ask a running service for the payment methods of an order."""
    request = order_request(
        case,
        order_id=order_id,
        user_id=user_id,
        merchant_id=merchant_id,
        product=product,
        terminal=terminal_type,
        amount=None if amount is None else parse_money(amount),
        country=country,
        locale=locale,
        deadline_ms=deadline_ms,
        chosen_promotions=chosen_promotions(promotion, no_promotions),
    )
    if json and stream:
        stop("--json and --stream exclude each other: choose one")
    if json:
        print_json(run(service_client.consult(url, request))[0])
        return
    with answers_of(url):
        shown = run((demo.show_stream if stream else demo.show_consultation)(terminal(), url, request))
    if not shown:
        raise typer.Exit(1)


def pay(
    url: Url = "http://127.0.0.1:8080",
    case: Annotated[
        str | None,
        typer.Option(
            help="Order to pay, a name from `cashier cases`; the options below override it.",
            show_default="chinese_shop, without --order-id",
        ),
    ] = None,
    order_id: OrderId = None,
    user_id: UserId = None,
    merchant_id: MerchantId = None,
    product: Product = None,
    terminal_type: TerminalType = None,
    amount: ClaimedAmount = None,
    country: ClaimedCountry = None,
    method: Annotated[
        str | None,
        typer.Option(help="Payment method, a method_id of the consultation.", show_default="the first available"),
    ] = None,
    option: Annotated[
        str | None,
        typer.Option(
            help="Bank, store chain, instalment term or card of that method, an option_id.",
            show_default="the first available, where one is needed",
        ),
    ] = None,
    promotions: Annotated[
        str | None,
        typer.Option(
            help="Promotion ids that must still apply, separated by commas.", show_default="those of the offer"
        ),
    ] = None,
    card_token: Annotated[
        str | None, typer.Option(help="Card token, for CARD; at the sandbox tok_1, tok_3ds_1 or tok_declined_1.")
    ] = None,
    auth_code: Annotated[str | None, typer.Option(help="Code on the payer's phone, for CONSUMER_QR.")] = None,
    return_url: Annotated[str | None, typer.Option(help="Address to which the payer returns.")] = None,
    key: Annotated[str | None, typer.Option(help="Idempotency-Key.", show_default="a random one")] = None,
    otp: Otp = None,
    cancel_after: Annotated[
        float | None, typer.Option(min=0, help="Cancel the payment after this time, in s.", show_default="never")
    ] = None,
    promotion: ChosenPromotions = None,
    no_promotions: NoPromotions = False,
    locale: Locale = "en",
    json: Annotated[bool, typer.Option("--json", help="Print only the last response body, as JSON.")] = False,
) -> None:
    """Pay for an order at a running service and follow the payment to its end.

    Exit status 0 means paid.
    """
    request = order_request(
        _DEFAULT_CASE if case is None and order_id is None else case,
        order_id=order_id,
        user_id=user_id,
        merchant_id=merchant_id,
        product=product,
        terminal=terminal_type,
        amount=None if amount is None else parse_money(amount),
        country=country,
        locale=locale,
        chosen_promotions=chosen_promotions(promotion, no_promotions),
    )
    ids = None if promotions is None else tuple(part for part in promotions.split(",") if part)
    choice = PayerPreference(
        method_id=method,
        option_id=option,
        promotion_ids=ids,
        card_token=card_token,
        auth_code=auth_code,
        return_url=return_url,
    )
    payer = Payer(answer_challenge=payment_session.challenge_answerer(otp), cancel_after_s=cancel_after)
    key = key or payment_session.new_key()
    _finish_payment(url, payment_session.consult_and_pay(_console(json), url, request, choice, key, payer), json)


def payment(
    payment_id: Annotated[str, typer.Argument(help="Payment id.")],
    token: Annotated[str, typer.Option(envvar=TOKEN_VARIABLE, help="The payment's latest payment_token.")],
    url: Url = "http://127.0.0.1:8080",
    cancel: Annotated[bool, typer.Option("--cancel", help="Cancel the payment first.")] = False,
    otp: Otp = None,
    json: Annotated[bool, typer.Option("--json", help="Print only the last response body, as JSON.")] = False,
) -> None:
    """Follow an existing payment to its end, or cancel it. Exit status 0 means paid."""
    payer = Payer(answer_challenge=payment_session.challenge_answerer(otp))
    _finish_payment(url, payment_session.resume(_console(json), url, payment_id, token, cancel, payer), json)


def attempt(
    url: Url = "http://127.0.0.1:8080",
    case: Annotated[str, typer.Option(help="Order, a name from `cashier cases`.")] = _DEFAULT_CASE,
    order_id: Annotated[str | None, typer.Option(help="Order id, instead of the case's.")] = None,
    user_id: Annotated[str | None, typer.Option(help="User id of the payer, instead of the case's.")] = None,
    merchant_id: Annotated[str | None, typer.Option(help="Merchant id, instead of the case's.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Get a new token, and follow the payment.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="End the payment, to pay in another way.")] = False,
    locale: Locale = "en",
    json: Annotated[bool, typer.Option("--json", help="Print only the last response body, as JSON.")] = False,
) -> None:
    """Find the payment of an order, whose token is lost; resume or replace it.

    The service has to run without authentication, on a loopback address. Exit status 0 means found
    or replaced, with --resume that it is paid.
    """
    if resume and replace:
        stop("--resume and --replace exclude each other: choose one")
    known = known_case(case).request
    request = {name: known[name] for name in ("order_id", "user_id", "merchant_id", "product", "terminal")}
    given = {"order_id": order_id, "user_id": user_id, "merchant_id": merchant_id, "locale": locale}
    request |= {name: value for name, value in given.items() if value is not None}
    action = "resume" if resume else "replace" if replace else None
    payer = Payer(answer_challenge=payment_session.challenge_answerer(None))
    work = payment_session.take_over(_console(json), url, request, action, payer)
    done = {"resume": ("SUCCEEDED",), "replace": ("FAILED", "CLOSED"), None: tuple(PaymentStatus)}[action]
    _finish_payment(url, work, json, done)


def _finish_payment(
    url: str, work: Coroutine[Any, Any, service_client.ServiceReply], json: bool, done: tuple[str, ...] = ("SUCCEEDED",)
) -> None:
    """Run to the last reply. Exit status 0 for a payment in one of these states."""
    with answers_of(url):
        reply = run(work, interrupted=128 + signal.SIGINT)
        if json:
            print_json(reply.body)
        status = reply.body["status"]
    if status not in done:
        raise typer.Exit(1)


def _console(json: bool) -> Console:
    """The terminal; nothing is printed to it where the output is JSON."""
    return Console(quiet=True) if json else terminal()


def order_request(case: str | None, **given: Any) -> dict[str, Any]:
    """A consultation's request: that of the case, if any, with the given fields instead."""
    request = {"product": "STANDARD_CASHIER", "terminal": "APP"} if case is None else known_case(case).request
    return {**request, **{name: value for name, value in given.items() if value is not None}}


def chosen_promotions(promotions: list[str] | None, none: bool) -> list[str] | None:
    """The promotions that may count; None: the best set."""
    if none and promotions:
        stop("--promotion and --no-promotions exclude each other: choose one")
    return [] if none else promotions or None
