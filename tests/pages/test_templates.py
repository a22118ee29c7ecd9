"""The templates, from fixture views."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import msgspec
import pytest

from cashier.pages.rendering import environment, name_of
from cashier.pages.views import ActionView, RedirectView, ResultView
from tests.pages.gallery import LOCALES, gallery, rendering

HOSTILE = """"><img src=x onerror=alert(1)>'{{7*7}}{0}</script>&\u202e"""
STATES = {name: (page, view) for name, page, view in gallery("en")}
# What a browser runs, loads or styles from within a document.
INLINE = re.compile(r"<style|<script(?! src=)| style=| on[a-z]+=|javascript:|<iframe|<object|<base", re.I)


class Elements(HTMLParser):
    """The start tags of a document, with their attributes."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(document)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def named(self, *tags: str) -> Iterator[dict[str, str | None]]:
        return (attributes for tag, attributes in self.found if tag in tags)


@pytest.mark.parametrize("locale", LOCALES)
def test_every_state_is_rendered_in_every_language(locale: str) -> None:
    renderer, _ = rendering()
    for name, page, view in gallery(locale):
        document = renderer.page(page, view)
        assert f'<html lang="{locale}"' in document, name
        assert renderer.main(page, view) in document, name


def test_all_templates_are_compiled_before_the_first_page() -> None:
    templates = environment.__wrapped__()
    assert templates.cache is not None
    assert {name for _, name in templates.cache} == set(templates.list_templates())


def test_a_document_has_nothing_inline_and_loads_three_things() -> None:
    renderer, assets = rendering()
    for name, (page, view) in STATES.items():
        document = renderer.page(page, view)
        assert not INLINE.search(document), name
        loaded = [each["href"] for each in Elements(document).named("link") if each["rel"] != "expect"]
        loaded += [each.get("src") for each in Elements(document).named("script", "img")]
        assert sorted(map(str, loaded)) == sorted(map(assets.url, ("page.css", "icon.svg", "page.js"))), name


def hostile(value: Any) -> Any:
    """The same view with every text replaced that others could have chosen."""
    if isinstance(value, msgspec.Struct):
        kept = {"key", "field", "svg", "state", "type", "outcome", "tone", "locale", "option_name", "icon", "refresh"}
        fields = {name: getattr(value, name) for name in value.__struct_fields__}
        return type(value)(**{name: each if name in kept else hostile(each) for name, each in fields.items()})
    if isinstance(value, tuple):
        return tuple(hostile(each) for each in value)
    return HOSTILE if type(value) is str else value


@pytest.mark.parametrize("name", STATES)
def test_no_text_of_others_becomes_markup(name: str) -> None:
    renderer, _ = rendering()
    page, view = STATES[name]
    plain, attacked = Elements(renderer.page(page, view)), Elements(renderer.page(hostile(page), hostile(view)))
    assert "img" not in [tag for tag, _ in attacked.found]
    known = {attribute for _, attributes in plain.found for attribute in attributes}
    assert {attribute for _, attributes in attacked.found for attribute in attributes} <= known | {"hidden"}
    assert "49" not in renderer.main(hostile(page), hostile(view)).replace("4f1c", "")


def test_ids_are_unique_and_each_label_has_its_control() -> None:
    renderer, _ = rendering()
    for name, (page, view) in STATES.items():
        elements = Elements(renderer.page(page, view))
        ids = [attributes["id"] for _, attributes in elements.found if "id" in attributes]
        assert len(ids) == len(set(ids)), name
        referred = [each.get("for") for each in elements.named("label")]
        referred += [part for _, each in elements.found for part in (each.get("aria-describedby") or "").split()]
        assert set(referred) <= set(ids), name


def test_nothing_takes_the_focus_from_a_field_that_is_typed_or_scanned_into() -> None:
    renderer, _ = rendering()
    focused = 0
    for name, (page, view) in STATES.items():
        elements = Elements(renderer.page(page, view)).found
        wanting = [each for _, each in elements if "autofocus" in each or "data-focus" in each]
        if any("autofocus" in each for each in wanting):
            assert len(wanting) == 1, name
            focused += 1
    assert focused > 5


def test_a_settled_payment_shows_no_time_to_pay() -> None:
    renderer, _ = rendering()
    for page, view in STATES.values():
        if isinstance(view, ResultView):
            assert "data-expires-at" not in renderer.main(page, view)


def test_a_pending_page_refreshes_itself_without_a_script_only() -> None:
    renderer, _ = rendering()
    document = renderer.page(*STATES["result-processing"])
    assert '<noscript><meta http-equiv="refresh" content="5;url=/cashier/o_1001/payment"></noscript>' in document
    assert "http-equiv" not in renderer.page(*STATES["result-paid"])


def test_a_banks_form_posts_its_fields_to_the_bank_alone() -> None:
    renderer, _ = rendering()
    page, view = STATES["redirect-form"]
    assert isinstance(view, ActionView)
    assert isinstance(view.step, RedirectView)
    main = renderer.main(page, view)
    form = main[main.index(f'action="{view.step.url}"') :].partition("</form>")[0]
    assert 'name="order" value="1"' in form
    assert "csrf" not in form


@pytest.mark.parametrize("unchosen", ["checkout-instalments", "checkout-banks-fault"])
def test_the_folded_rest_is_open_while_the_choice_is_in_it(unchosen: str) -> None:
    renderer, _ = rendering()
    assert re.search(r'<details class="more" id="others" open>', renderer.main(*STATES[unchosen]))
    assert re.search(r'<details class="more" id="others">', renderer.main(*STATES["checkout"]))


def test_without_a_script_the_button_names_no_amount_that_could_be_wrong() -> None:
    renderer, _ = rendering()
    assert "<span>Pay now</span> <bdi data-payable hidden>" in renderer.main(*STATES["checkout"])


def test_what_cannot_be_chosen_says_why() -> None:
    renderer, _ = rendering()
    document = renderer.page(*STATES["checkout"])
    disabled = [each for each in Elements(document).named("input") if "disabled" in each]
    assert disabled
    for each in disabled:
        described = re.search(rf'id="{each["aria-describedby"]}">(.*?)</span>', document)
        assert described is not None
        assert re.sub(r"<[^>]*>", "", described[1]).strip()


def test_the_name_of_a_template_is_what_scripts_find() -> None:
    renderer, _ = rendering()
    for page, view in STATES.values():
        assert f'data-view="{name_of(view)}"' in renderer.main(page, view)
