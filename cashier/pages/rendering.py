"""Rendering: views to HTML. Templates are compiled once, and escape everything but our own SVG."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from types import SimpleNamespace
from typing import Any, TypeAlias

from jinja2 import Environment, PackageLoader, StrictUndefined
from jinja2.compiler import CodeGenerator, Frame
from jinja2.nodes import Expr
from markupsafe import Markup, escape

from cashier.pages.asset_store import AssetStore
from cashier.pages.icons import icon, method_icon
from cashier.pages.texts import PAGE_TEXTS, direction, page_locale
from cashier.pages.till_views import MerchantCodeView, PrintedCodeView, SaleView, TillView
from cashier.pages.views import (
    ActionView,
    CardView,
    ChallengeView,
    CheckoutView,
    Outcome,
    PageView,
    ProblemView,
    ResultView,
    View,
)
from cashier.settings.pages import BrandSettings

AnyView: TypeAlias = View | TillView | SaleView | MerchantCodeView | PrintedCodeView

_NAMES: Mapping[type, str] = {
    CheckoutView: "checkout",
    ChallengeView: "challenge",
    ActionView: "action",
    ResultView: "result",
    CardView: "card",
    ProblemView: "problem",
    TillView: "till",
    SaleView: "sale",
    MerchantCodeView: "merchant_code",
    PrintedCodeView: "printed_code",
}

_SPECIAL = re.compile(r"""[&<>"']""").search

# The colour and sign of an outcome; those that are not final wait.
_MOODS: Mapping[str, str] = {
    Outcome.PAID: "good",
    Outcome.OVERPAID: "good",
    Outcome.FAILED: "bad",
    Outcome.CANCELLED: "calm",
    Outcome.CLOSED: "calm",
    Outcome.REFUNDED: "back",
    Outcome.MONEY_COMES_BACK: "back",
    Outcome.MONEY_CAME_BACK: "back",
    Outcome.PAID_TWICE: "back",
}


class Rendering:
    """The pages of one brand. `assets`: the style sheet, scripts and icons that they name."""

    def __init__(self, brand: BrandSettings, assets: AssetStore) -> None:
        self._brand = brand
        self._shared = {"brand": brand, "asset": assets.url, "logo": assets.logo}
        templates = environment()
        self._layout, self._frame = templates.get_template("layout.html"), templates.get_template("frame.html")
        self._templates = {view: templates.get_template(f"{name}.html") for view, name in _NAMES.items()}

    def page(self, page: PageView, view: AnyView) -> str:
        """The whole document."""
        return self.document(page, view, self.main(page, view))

    def title(self, page: PageView, view: AnyView) -> str:
        """Of the document."""
        return self._with_brand(_title(view, PAGE_TEXTS[page_locale(page.locale)]))

    def main(self, page: PageView, view: AnyView) -> str:
        """`<main>` alone: an update of an open page."""
        return "".join(self.pieces(page, view))

    def pieces(self, page: PageView, view: AnyView) -> Iterator[str]:
        """`<main>` in pieces, each of which is rendered when it is taken. See `turns`."""
        values = self._values(page.locale, page.prefix)
        return self._templates[type(view)].generate(values, page=page, view=view, name=name_of(view))

    def document(self, page: PageView, view: AnyView, main: str) -> str:
        """The whole document around `main`."""
        rendered = Markup(main)  # noqa: S704 - a template has escaped it
        values = self._values(page.locale, page.prefix)
        title = self.title(page, view)
        return self._layout.render(values, page=page, name=name_of(view), title=title, main=rendered)

    def frame(self, prefix: str, locale: str, shop: str) -> str:
        """The document of a challenge in a page of the origin `shop`."""
        return self._frame.render(self._values(locale, prefix), shop=shop)

    def _values(self, locale: str, prefix: str) -> dict[str, Any]:
        known = page_locale(locale)
        return {**self._shared, "prefix": prefix, "t": PAGE_TEXTS[known], "lang": known, "dir": direction(known)}

    def _with_brand(self, title: str) -> str:
        return f"{title} · {self._brand.name}"


def mood(outcome: str) -> str:
    return _MOODS.get(outcome, "wait")


def name_of(view: AnyView | type[AnyView]) -> str:
    """The name of its template, which `<main data-view>` has too."""
    return _NAMES[view if isinstance(view, type) else type(view)]


class _PlainOutput(CodeGenerator):
    """Escapes by `_ViewEnvironment.written`, without a `Markup` object for each value.

    The parts of a page are joined at once, so none needs to be marked as safe.
    """

    def _output_child_pre(self, node: Expr, frame: Frame, finalize: Any) -> None:
        if frame.eval_ctx.volatile or finalize.src is not None:
            super()._output_child_pre(node, frame, finalize)
        else:
            self.write("environment.written(")


class _ViewEnvironment(Environment):
    """A template names attributes of structs, a thousand times per page: Jinja's own search also
    tries items."""

    getattr = staticmethod(getattr)  # type: ignore[assignment]  # without the keywords that none uses
    code_generator_class = _PlainOutput

    @staticmethod
    def written(value: object) -> str:
        """As `escape`, without the type that says so where there is nothing to escape."""
        return value if type(value) is str and not _SPECIAL(value) else escape(value)


@cache
def environment() -> Environment:
    """All templates, compiled. The brand comes with the values."""
    templates = _ViewEnvironment(
        loader=PackageLoader("cashier.pages", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    templates.filters["fill"] = fill
    templates.globals |= {"icon": icon, "method_icon": method_icon, "mood": mood}
    # At the first page, compiling them would hold up all that the process does for 60 ms.
    for name in templates.list_templates():
        templates.get_template(name)
    return templates


def fill(text: str, **values: str) -> Markup:
    """The text with its placeholders, each isolated: an amount keeps its direction in Arabic."""
    isolated = {name: f"<bdi>{escape(value)}</bdi>" for name, value in values.items()}
    return Markup(str(escape(text)).format(**isolated))  # noqa: S704 - all of it is escaped


def _title(view: AnyView, texts: SimpleNamespace) -> str:
    match view:
        case ResultView():
            return str(getattr(texts, f"outcome_{view.outcome}"))
        case CardView():
            return str(texts.card_title)
        case ProblemView():
            return view.title
        case CheckoutView() if view.paid:
            return str(texts.outcome_paid)
        case SaleView() if view.outcome is not None:
            return str(getattr(texts, f"outcome_{view.outcome}"))
        case TillView() | SaleView():
            return str(texts.till_title if isinstance(view, TillView) else texts.sale_title)
        case MerchantCodeView() | PrintedCodeView():
            return view.merchant
        case CheckoutView() if view.blocked:
            return str(texts.cannot_pay)
        case CheckoutView():
            return str(texts.choose_method)
        case _:
            return str(texts.title)
