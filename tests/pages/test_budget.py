"""What a page weighs, and what it costs to render one."""

from __future__ import annotations

import gc
import time

import pytest
from msgspec.structs import replace
from starlette.responses import HTMLResponse

from cashier.pages.compression import compressed
from cashier.pages.views import CheckoutView, MethodRow
from tests.pages.gallery import LOCALES, gallery, rendering

BYTES = 30 * 1024
CPU_S = 0.0015


@pytest.mark.parametrize("locale", LOCALES)
def test_document_style_and_script_are_within_30_kib(locale: str) -> None:
    renderer, assets = rendering()
    fixed = 0
    for name in ("page.css", "page.js"):
        gzipped = assets.asset(name).gzipped
        assert gzipped is not None
        fixed += len(gzipped)
    for name, page, view in gallery(locale):
        document = compressed(HTMLResponse(renderer.page(page, view)), "gzip")
        assert fixed + len(document.body) <= BYTES, name


def crowded(locale: str) -> CheckoutView:
    """21 methods, as many as a large merchant has."""
    view = next(view for name, _, view in gallery(locale) if name == "checkout-instalments")
    assert isinstance(view, CheckoutView)
    others: list[MethodRow] = [*view.others, *view.others, *view.others]
    return replace(view, others=tuple(others[: 21 - len(view.recommended) - len(view.refused)]))


def test_rendering_leaves_nothing_to_the_garbage_collector() -> None:
    """A collection is rare and dear: a cycle of each page would take its view along until then."""
    renderer, _ = rendering()
    states = list(gallery("en"))
    for _, page, view in states:
        renderer.page(page, view)
    gc.collect()
    gc.freeze()  # what there is now is not searched for each state
    gc.disable()
    try:
        for name, page, view in states:
            renderer.page(page, view)
            assert gc.collect() == 0, name
    finally:
        gc.enable()


@pytest.mark.timing
def test_a_page_of_21_methods_is_rendered_within_1500_us_of_cpu() -> None:
    renderer, _ = rendering()
    page = next(page for name, page, _ in gallery("ar") if name == "checkout")
    view, times = crowded("ar"), []
    for _ in range(200):
        start = time.process_time()
        renderer.page(page, view)
        times.append(time.process_time() - start)
    assert sorted(times)[len(times) // 2] <= CPU_S
