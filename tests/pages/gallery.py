"""Every state of the pages, from fixture views, in any locale.

Run as a program it writes the documents, with their assets beside them, to look at in a browser:
`python -m tests.pages.gallery DIRECTORY`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from cashier.domain.local_format import format_amount, format_time
from cashier.domain.money import Money, instalments
from cashier.domain.order import Blocked
from cashier.domain.pay_method import ReasonCode
from cashier.domain.payment_message import MessageCode
from cashier.domain.text_form import Form as TextForm
from cashier.domain.wording import PayerProblem, Wording, text_of
from cashier.pages.asset_store import AssetStore
from cashier.pages.qr import draw
from cashier.pages.rendering import AnyView, Rendering
from cashier.pages.texts import PAGE_TEXTS
from cashier.pages.views import (
    AccountView,
    ActionView,
    AmountLine,
    AmountView,
    AppView,
    CardView,
    ChallengeType,
    ChallengeView,
    CheckoutView,
    CodeView,
    CouponRow,
    CouponsView,
    Deadline,
    Form,
    InstalmentView,
    Language,
    Link,
    MethodRow,
    Notice,
    NoticeTone,
    OptionRow,
    OrderView,
    Outcome,
    PageView,
    PaymentHead,
    ProblemView,
    QrView,
    RedirectView,
    ResultView,
    State,
    Step,
    View,
)
from cashier.settings.pages import BrandSettings
from tests.pages.till_gallery import till_states

LOCALES = ("zh-CN", "zh-TW", "en", "id", "ja", "ar")
_DEFAULTS = Path(__file__).parents[2] / "cashier" / "defaults" / "texts"
_NAMES = {
    "zh-CN": "简体中文",
    "zh-TW": "繁體中文",
    "en": "English",
    "id": "Bahasa Indonesia",
    "ja": "日本語",
    "ar": "العربية",
}
_GOODS = {
    "zh-CN": ("无线降噪耳机（曜石黑）", "山前小铺"),
    "zh-TW": ("無線降噪耳機（曜石黑）", "山前小舖"),
    "en": ("Wireless headphones, obsidian black", "Hillside Shop"),
    "id": ("Headphone nirkabel, hitam obsidian", "Toko Lereng"),
    "ja": ("ワイヤレスヘッドホン（ブラック）", "山前商店"),
    "ar": ("سماعات لاسلكية سوداء", "متجر التل"),
}
_COUPONS = {
    "zh-CN": ("满100减10", "新人红包", "招行信用卡立减"),
    "zh-TW": ("滿100折10", "新人紅包", "招行信用卡折抵"),
    "en": ("10 off 100", "Welcome gift", "Off with CMB credit cards"),
    "id": ("Potongan 10 dari 100", "Hadiah selamat datang", "Potongan kartu kredit CMB"),
    "ja": ("100以上で10引き", "はじめての特典", "CMBカード割引"),
    "ar": ("خصم 10 على 100", "هدية ترحيبية", "خصم لبطاقات CMB"),
}
_NOW = datetime(2026, 11, 30, 8, 0, tzinfo=UTC)


def gallery(locale: str) -> Iterator[tuple[str, PageView, AnyView]]:
    """Name, surroundings and view of each state."""
    yield from _Gallery(locale).states()


class _Gallery:
    def __init__(self, locale: str) -> None:
        self.locale = locale
        self.wording = msgspec.toml.decode((_DEFAULTS / f"{locale}.toml").read_bytes(), type=Wording)
        self.texts = PAGE_TEXTS[locale]
        self.form = Form("/cashier/o_1001/pay", (("csrf", "4f1c"), ("key", "k1")))
        self.head = PaymentHead(
            payment_id="pay_4mDq2TzX0a",
            amount=self.money(11_800),
            message="",
            method=self.card("CMB", "1014"),
            icon="bank/cmb",
        )

    def money(self, value: int) -> str:
        return format_amount(Money("CNY", value), self.wording.formats)

    def off(self, value: int) -> str:
        return f"\u2212{self.money(value)}"

    def at(self, hour: int, minute: int, day: int = 30) -> Deadline:
        moment = datetime(2026, 11, day, hour, minute, tzinfo=UTC)
        return Deadline(moment.isoformat(), format_time(moment, _NOW, "CN", self.wording.formats))

    def say(self, code: MessageCode, form: TextForm = TextForm.GENERAL) -> str:
        sums = {"received": self.money(8_000), "due": self.money(11_800), "difference": self.money(3_800)}
        return text_of(self.wording.payments[code], form).format(attempts=2, promotion="P", **sums)

    def reason(self, code: ReasonCode, amount: int = 0, form: TextForm = TextForm.GENERAL) -> str:
        text = text_of(self.wording.reasons[code], form)
        return text.format(amount=self.money(amount), until=self.at(9, 30).text, source="")

    def title(self, kind: str, **parts: str) -> str:
        every = {"bank_name": "", "type": "", "last4": "", "provider_name": "", "account": "", **parts}
        return next(each for name, each in self.wording.kinds.items() if name == kind).title.format(**every)

    def card(self, bank: str, last4: str, kind: str = "CREDIT") -> str:
        types = {str(name): text for name, text in self.wording.card_types.items()}
        return self.title("QUICK_PAY", bank_name=bank, last4=last4, type=types[kind])

    def account(self, kind: str) -> str:
        return next(text for name, text in self.wording.accounts.items() if name == kind)

    def page(self, *, pending: bool = False, bare: bool = False) -> PageView:
        title, merchant = _GOODS[self.locale]
        return PageView(
            locale=self.locale,
            now=_NOW.isoformat(),
            order=None if bare else OrderView("o_1001", title, self.money(12_800), merchant, self.at(8, 15)),
            back="https://shop.example/back",
            refresh="/cashier/o_1001/payment",
            refresh_after_s=5 if pending else None,
            live=None,
            languages=tuple(Language(each, _NAMES[each], f"?locale={each}") for each in LOCALES),
        )

    def long_names(self) -> PageView:
        """As shops write them: many words, and one without a space."""
        page, (title, merchant) = self.page(), _GOODS[self.locale]
        assert page.order is not None
        order = msgspec.structs.replace(page.order, title=" ".join([title] * 4), merchant=merchant.replace(" ", "") * 8)
        return msgspec.structs.replace(page, order=order)

    def states(self) -> Iterator[tuple[str, PageView, AnyView]]:
        for name, view in self.checkouts():
            yield name, self.page(), view
            if name == "checkout-changed":
                yield "checkout-long-names", self.long_names(), view
        for name, challenge in self.challenges():
            yield name, self.page(), challenge
        for name, action in self.actions():
            yield name, self.page(pending=True), action
        for name, result in self.results():
            yield name, self.page(pending=result.outcome in _PENDING), result
        for name, problem in self.problems():
            yield name, self.page(bare=True), problem
        yield (
            "card",
            self.page(),
            CardView(url="https://vault.example/form", host="vault.example", back="/cashier/o_1001"),
        )
        yield from self.tills()

    def tills(self) -> Iterator[tuple[str, PageView, AnyView]]:
        merchant, amount = _GOODS[self.locale][1], self.money(1_250)
        for name, view in till_states(self.texts, self.wording, merchant, amount, self.at(8, 15), self.say):
            page = msgspec.structs.replace(self.page(bare=True, pending=name == "sale-code"), back=None)
            yield name, page, view

    # --- Checkout ---

    def price(self, payable: int, discounts: tuple[tuple[int, int], ...] = (), fee: int = 0) -> AmountView:
        lines = tuple(AmountLine(_COUPONS[self.locale][which], self.off(value)) for which, value in discounts)
        return AmountView(
            payable=self.money(payable),
            order=self.money(12_800),
            discounts=lines,
            fee=self.money(fee) if fee else None,
        )

    def rows(self) -> tuple[MethodRow, ...]:
        texts = self.texts
        return (
            MethodRow(
                key="m-1",
                kind="QUICK_PAY",
                value="QUICK_PAY:c_2",
                title=self.card("CMB", "1014"),
                icon="bank/cmb",
                amount=self.price(11_300, ((0, 1_000), (2, 500))),
                badges=(texts.badge_last_used, texts.badge_saves.format(amount=self.money(1_500))),
                checked=True,
            ),
            MethodRow(
                key="m-2",
                kind="BALANCE",
                value="BALANCE:acc_1",
                title=self.account("BALANCE"),
                icon="account/balance",
                amount=self.price(11_800, ((0, 1_000),)),
                badges=(texts.badge_saves.format(amount=self.money(1_000)),),
            ),
            MethodRow(
                key="m-3",
                kind="WALLET",
                value="WALLET:w_1",
                title=self.title("WALLET", provider_name="Lianlian Pay"),
                icon="wallet/lianlian",
                amount=self.price(12_800),
                hint=texts.hint_redirect,
            ),
        )

    def more_rows(self) -> tuple[MethodRow, ...]:
        texts = self.texts
        return (
            MethodRow(
                key="m-4",
                kind="CARD",
                value="CARD",
                title=self.title("CARD"),
                icon="kind/card",
                amount=self.price(12_928, fee=128),
                hint=texts.hint_redirect,
            ),
            MethodRow(
                key="m-5",
                kind="INSTALMENT",
                value="INSTALMENT:1",
                title=self.title("INSTALMENT", provider_name="Huanbei"),
                icon="instalment/huanbei",
                amount=self.price(12_800),
                options=self.plans(),
                option_name="option.m-5",
            ),
            MethodRow(
                key="m-6",
                kind="NET_BANKING",
                value="NET_BANKING:1",
                title=self.title("NET_BANKING", provider_name="UnionPay"),
                icon="kind/net-banking",
                amount=self.price(12_800),
                hint=texts.hint_redirect,
                options=self.banks(),
                option_name="option.m-6",
            ),
            MethodRow(
                key="m-7",
                kind="BALANCE",
                value="BALANCE:acc_1+c_1",
                title=self.wording.combined.format(
                    account=self.account("BALANCE"), card=self.card("ICBC", "6601", "DEBIT")
                ),
                icon="account/balance",
                amount=AmountView(
                    payable=self.money(12_800),
                    order=self.money(12_800),
                    parts=(
                        AmountLine(self.account("BALANCE"), self.money(5_000)),
                        AmountLine(self.card("ICBC", "6601", "DEBIT"), self.money(7_800)),
                    ),
                ),
            ),
            MethodRow(
                key="m-8",
                kind="QUICK_PAY",
                value="QUICK_PAY:c_3",
                title=self.card("ABC", "8213", "DEBIT"),
                icon="bank/abc",
                state=State.CHECKING,
                amount=self.price(12_800),
            ),
            MethodRow(
                key="m-9",
                kind="BALANCE",
                value="BALANCE:acc_2",
                title=self.account("MONEY_FUND"),
                icon="account/money_fund",
                state=State.UNAVAILABLE,
                amount=self.price(12_800),
                reason=self.reason(ReasonCode.BALANCE_INSUFFICIENT, 5_000),
                remedy_link=Link(texts.remedy_top_up.format(amount=self.money(7_800)), "https://bank.example/", True),
            ),
            MethodRow(
                key="m-10",
                kind="QUICK_PAY",
                value="QUICK_PAY:c_4",
                title=self.card("CCB", "0042", "DEBIT"),
                icon="bank/ccb",
                state=State.UNAVAILABLE,
                amount=self.price(12_800),
                reason=self.reason(ReasonCode.CHANNEL_MAINTENANCE, form=TextForm.UNTIL),
            ),
            MethodRow(
                key="m-11",
                kind="OTC",
                value="OTC:1",
                title=self.title("OTC", provider_name="Family Corner"),
                icon="kind/otc",
                state=State.UNAVAILABLE,
                reason=self.reason(ReasonCode.NOT_OFFERED),
            ),
        )

    def plans(self) -> tuple[OptionRow, ...]:
        return tuple(
            OptionRow(
                key=f"m-5-o-{count}",
                value=f"t_{count}",
                title="",
                amount=self.price(12_800 + fee, fee=fee),
                instalment=InstalmentView(count, *self.split(12_800 + fee, count, rate)),
                state=State.AVAILABLE if count < 12 else State.UNAVAILABLE,
                reason=None if count < 12 else self.reason(ReasonCode.ABOVE_SINGLE_LIMIT, 12_900),
                checked=count == 3,
            )
            for count, fee, rate in ((3, 0, "0%"), (6, 256, "6.80%"), (12, 640, "8.90%"))
        )

    def split(self, value: int, count: int, rate: str) -> tuple[str, str, str | None]:
        each, last = instalments(value, count)
        return self.money(each), rate, self.money(last) if last != each else None

    def banks(self) -> tuple[OptionRow, ...]:
        names = (("icbc", "ICBC"), ("abc", "Agricultural Bank"), ("boc", "Bank of China"), ("ccb", "Construction Bank"))
        return tuple(
            OptionRow(
                key=f"m-6-o-{code}",
                value=code,
                title=name,
                icon=f"bank/{code}",
                state=State.UNAVAILABLE if code == "ccb" else State.AVAILABLE,
                reason=self.reason(ReasonCode.CHANNEL_CLOSED) if code == "ccb" else None,
            )
            for code, name in names
        )

    def coupons(self, *, automatic: bool) -> CouponsView:
        titles = _COUPONS[self.locale]
        return CouponsView(
            form=Form("/cashier/o_1001"),
            name="coupon",
            mode_name="coupons",
            automatic=automatic,
            saved=self.off(1_500) if automatic else None,
            coupons=(
                CouponRow(
                    key="c-1", value="p_1", title=titles[0], amount=self.off(1_000), checked=automatic, best=True
                ),
                CouponRow(key="c-2", value="p_2", title=titles[1], amount=self.off(288)),
                CouponRow(
                    key="c-3",
                    value="p_3",
                    title=titles[2],
                    amount=self.off(500),
                    checked=automatic,
                    best=True,
                    applies_to=self.card("CMB", "1014"),
                ),
            ),
        )

    def checkouts(self) -> Iterator[tuple[str, View]]:
        name, form = "method", self.form
        recommended, others, refused = self.rows(), self.more_rows()[:-3], self.more_rows()[-3:]
        yield (
            "checkout",
            CheckoutView(
                form=form,
                method_name=name,
                recommended=recommended,
                others=others,
                refused=refused,
                coupons=self.coupons(automatic=True),
                checking=True,
            ),
        )
        unfolded = tuple(msgspec.structs.replace(row, checked=row.key == "m-5") for row in others)
        unchosen = tuple(msgspec.structs.replace(row, checked=False) for row in recommended)
        yield (
            "checkout-instalments",
            CheckoutView(
                form=form,
                method_name=name,
                recommended=unchosen,
                others=unfolded,
                refused=refused,
                coupons=self.coupons(automatic=False),
                checking=True,
            ),
        )
        banks = tuple(msgspec.structs.replace(row, checked=row.key == "m-6") for row in others)
        yield (
            "checkout-banks-fault",
            CheckoutView(
                form=form,
                method_name=name,
                recommended=unchosen,
                others=banks,
                refused=refused,
                notice=Notice(NoticeTone.ERROR, self.texts.option_missing, field="m-6-options"),
            ),
        )
        checking = tuple(
            MethodRow(
                key=f"m-{number}",
                kind=kind,
                value=kind,
                title=next(each for name, each in self.wording.kinds.items() if name == kind).name,
                icon=icon,
                placeholder=True,
                state=State.CHECKING,
            )
            for number, (kind, icon) in enumerate(
                (("QUICK_PAY", "bank/unknown"), ("BALANCE", "account/balance"), ("WALLET", "wallet/unknown"))
            )
        )
        yield "checkout-refused", CheckoutView(form=form, method_name=name, refused=refused)
        yield "checkout-checking", CheckoutView(form=form, method_name=name, recommended=checking, checking=True)
        changes = self.wording.changes
        price = next(text for code, text in changes.items() if code == "PRICE")
        gone = next(text for code, text in changes.items() if code == "PROMOTION_GONE")
        problem = self.wording.problems[PayerProblem.CONSULT_CHANGED]
        yield (
            "checkout-changed",
            CheckoutView(
                form=form,
                method_name=name,
                recommended=recommended,
                others=others,
                refused=refused,
                notice=Notice(
                    NoticeTone.WARNING,
                    problem.message,
                    (price.format(before=self.money(11_300), after=self.money(11_800)), gone),
                ),
            ),
        )
        yield (
            "checkout-blocked",
            CheckoutView(form=form, method_name=name, blocked=self.wording.blocked[Blocked.ORDER_EXPIRED]),
        )
        yield (
            "checkout-paid",
            CheckoutView(form=form, method_name=name, blocked=self.wording.blocked[Blocked.ORDER_PAID], paid=True),
        )
        yield (
            "checkout-busy",
            CheckoutView(
                form=form,
                method_name=name,
                blocked=self.wording.blocked[Blocked.ORDER_IN_PROGRESS],
                resume=Link(self.texts.resume, "/cashier/o_1001/payment"),
            ),
        )

    # --- A payment ---

    def paying(self, code: MessageCode, form: TextForm = TextForm.GENERAL) -> PaymentHead:
        return msgspec.structs.replace(self.head, message=self.say(code, form))

    def challenges(self) -> Iterator[tuple[str, View]]:
        otp = ChallengeView(
            payment=self.paying(MessageCode.CHALLENGE, TextForm.SMS_OTP),
            type=ChallengeType.SMS_OTP,
            form=self.form,
            masked="138****1234",
            deadline=self.at(8, 5),
            resend=self.form,
            resend_after_s=30,
            cancel=self.form,
        )
        yield "otp", otp
        wrong = self.say(MessageCode.CHALLENGE_WRONG, TextForm.SMS_OTP)
        yield "otp-wrong", msgspec.structs.replace(otp, wrong=wrong)
        yield (
            "password",
            ChallengeView(
                payment=self.paying(MessageCode.CHALLENGE, TextForm.PASSWORD),
                type=ChallengeType.PASSWORD,
                form=self.form,
                cancel=self.form,
            ),
        )
        yield (
            "three-ds",
            ChallengeView(
                payment=self.paying(MessageCode.CHALLENGE, TextForm.THREE_DS),
                type=ChallengeType.THREE_DS,
                form=self.form,
                link="https://bank.example/3ds",
                deadline=self.at(8, 10),
                cancel=self.form,
            ),
        )
        yield (
            "biometric",
            ChallengeView(
                payment=self.paying(MessageCode.CHALLENGE, TextForm.BIOMETRIC),
                type=ChallengeType.BIOMETRIC,
                form=self.form,
                cancel=self.form,
            ),
        )

    def actions(self) -> Iterator[tuple[str, View]]:
        steps: dict[str, Step] = {
            "redirect": RedirectView(url="https://pay.bank.example/p/1", host="pay.bank.example"),
            "redirect-form": RedirectView(
                url="https://pay.bank.example/p", host="pay.bank.example", fields=(("order", "1"),), applink="wallet:1"
            ),
            "qr": QrView(svg=draw("https://pay.example/q/8f3c1a"), deadline=self.at(10, 0), link="wallet:qr"),
            "code": CodeView(
                code="8801 2234 9917",
                institution="Family Corner",
                deadline=self.at(20, 40),
                instructions="https://store.example/how",
            ),
            "account": AccountView(
                bank="Bank Mandiri",
                account_no="8810 0123 4567 8901",
                account_name="HILLSIDE SHOP",
                amount=self.money(11_800),
                amount_digits="118.00",
                deadline=self.at(8, 15),
            ),
            "app": AppView(),
        }
        for name, step in steps.items():
            yield (
                name,
                ActionView(
                    payment=self.head,
                    step=step,
                    paid=self.form,
                    replace=self.form,
                    cancel=self.form,
                ),
            )
        yield (
            "underpaid",
            ActionView(
                payment=self.head,
                step=msgspec.structs.replace(steps["account"], amount=None, amount_digits=None),
                notice=Notice(NoticeTone.WARNING, self.say(MessageCode.UNDERPAID)),
                paid=self.form,
                cancel=self.form,
            ),
        )

    def results(self) -> Iterator[tuple[str, ResultView]]:
        messages = {
            Outcome.PROCESSING: MessageCode.PROCESSING,
            Outcome.USER_PAYING: MessageCode.USER_PAYING,
            Outcome.CONFIRMING: MessageCode.CONFIRMING,
            Outcome.CLOSING: MessageCode.CLOSING,
            Outcome.UNKNOWN: MessageCode.OUTCOME_UNKNOWN,
            Outcome.UNDERPAID: MessageCode.UNDERPAID,
            Outcome.PAID: MessageCode.SUCCEEDED,
            Outcome.OVERPAID: MessageCode.OVERPAID,
            Outcome.REFUNDED: MessageCode.SUCCEEDED_REFUNDED,
            Outcome.FAILED: MessageCode.INSTRUMENT_DECLINED,
            Outcome.CANCELLED: MessageCode.CANCELLED,
            Outcome.CLOSED: MessageCode.CLOSED,
            Outcome.MONEY_COMES_BACK: MessageCode.CLOSED_REFUNDING,
            Outcome.MONEY_CAME_BACK: MessageCode.CLOSED_REFUNDED,
            Outcome.PAID_TWICE: MessageCode.PAID_TWICE_REFUNDING,
        }
        for outcome, code in messages.items():
            yield (
                f"result-{outcome.replace('_', '-')}",
                ResultView(
                    payment=self.paying(code),
                    outcome=outcome,
                    retry="/cashier/o_1001" if outcome in (Outcome.FAILED, Outcome.CANCELLED) else None,
                    cancel=self.form if outcome is Outcome.USER_PAYING else None,
                ),
            )

    def problems(self) -> Iterator[tuple[str, View]]:
        texts, retry, number = self.texts, "/cashier/o_1001", "9f31c0"
        yield "problem-closed", ProblemView(title=texts.closed_title, message=texts.closed_how)
        message = self.wording.problems[PayerProblem.INTERNAL].message
        yield "problem", ProblemView(title=texts.problem_title, message=message, retry=retry, request_id=number)
        yield (
            "problem-still-checking",
            ProblemView(title=texts.still_title, message=texts.still_how, waits=True, retry=retry, request_id=number),
        )


_PENDING = frozenset(list(Outcome)[:6])


def rendering() -> tuple[Rendering, AssetStore]:
    assets = AssetStore(BrandSettings())
    return Rendering(BrandSettings(), assets), assets


def write(directory: Path) -> None:
    """Every state in every locale, as `LOCALE/NAME.html`."""
    renderer, assets = rendering()
    for asset in assets.by_name.values():
        path = directory / "cashier-assets" / asset.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(asset.body)
    for locale in LOCALES:
        for name, page, view in gallery(locale):
            path = directory / locale / f"{name}.html"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(renderer.page(page, view).replace('"/cashier-assets/', '"../cashier-assets/'))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
