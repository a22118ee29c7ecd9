"""Every state of scan-to-pay, from fixture views."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace

from cashier.domain.pay_method import Kind
from cashier.domain.payment_message import MessageCode
from cashier.domain.wording import Wording
from cashier.pages.qr import draw
from cashier.pages.rendering import AnyView
from cashier.pages.till_views import AmountForm, CodeButton, MerchantCodeView, PrintedCodeView, SaleView, TillView
from cashier.pages.views import Deadline, Form, Link, Notice, NoticeTone, Outcome, QrView, State

TILL = "/cashier-till/m_5/till-1"
SALE = f"{TILL}/sales/o_sale_1"
FIELDS = (("form_token", "4f1c"), ("attempt", ""))
_PROVIDERS = (("ALIPAY", "wallet/alipay"), ("WECHAT_PAY", "wallet/wechat_pay"), ("UNIONPAY", "wallet/unionpay"))


def till_states(
    texts: SimpleNamespace,
    wording: Wording,
    merchant: str,
    amount: str,
    deadline: Deadline,
    say: Callable[[MessageCode], str],
) -> Iterator[tuple[str, AnyView]]:
    entry = AmountForm(form=Form(f"{TILL}/sales", FIELDS), currency="CNY", example="12.50")
    wrong = AmountForm(
        form=entry.form,
        currency="CNY",
        example="12.50",
        amount="12..5",
        note=merchant,
        notice=Notice(NoticeTone.ERROR, texts.amount_wrong, field="amount"),
    )
    yield "till", TillView(entry=entry, code=Link(texts.printed_code, f"{TILL}/code"))
    yield "till-wrong", TillView(entry=wrong)
    yield "merchant-code", MerchantCodeView(merchant=merchant, entry=entry)
    url = "https://pay.example.com/cashier-code/m_5"
    yield "printed-code", PrintedCodeView(merchant=merchant, svg=draw(url), url=url, back=TILL)
    kind = next(text for name, text in wording.kinds.items() if name == Kind.MERCHANT_QR)
    codes = tuple(
        CodeButton(
            form=Form(f"{SALE}/code", (*FIELDS, ("method", provider))),
            title=kind.title.format(
                provider_name=provider.title().replace("_", " "), bank_name="", type="", last4="", account=""
            ),
            icon=icon,
            state=State.UNAVAILABLE if provider == "UNIONPAY" else State.AVAILABLE,
            reason=texts.not_offered if provider == "UNIONPAY" else None,
        )
        for provider, icon in _PROVIDERS
    )
    scan, cancel = Form(f"{SALE}/scan", FIELDS), Form(f"{SALE}/cancel", FIELDS)
    yield "sale", SaleView(amount=amount, title=merchant, scan=scan, codes=codes, next_sale=TILL)
    ended = Notice(NoticeTone.WARNING, say(MessageCode.CLOSED_UNPAID))
    yield "sale-again", SaleView(amount=amount, notice=ended, scan=scan, codes=codes, next_sale=TILL, checking=True)
    svg = draw("https://qr.alipay.example/pay_h5k2xq7m3n4b6c2d5f7g3j4k6l")
    yield "sale-code", SaleView(amount=amount, qr=QrView(svg=svg, deadline=deadline), scan=scan, cancel=cancel)
    outcomes = {
        Outcome.USER_PAYING: MessageCode.USER_PAYING,
        Outcome.PAID: MessageCode.SUCCEEDED,
        Outcome.MONEY_COMES_BACK: MessageCode.CLOSED_REFUNDING,
    }
    for outcome, code in outcomes.items():
        waits = outcome is Outcome.USER_PAYING
        yield (
            f"sale-{outcome.replace('_', '-')}",
            SaleView(
                amount=amount,
                outcome=outcome,
                message=None if waits else say(code),
                cancel=cancel if waits else None,
                next_sale=None if waits else TILL,
            ),
        )
