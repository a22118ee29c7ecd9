"""The style sheet of `<cashier-methods>`: that of the pages, within a shop's page.

What a shop may set are custom properties `--cashier-…`, see README.md.
"""

from __future__ import annotations

import re

# Of the element, in place of a document's `:root`, `html` and `body`.
_DOCUMENT = re.compile(r"(?<![\w.#-])(?::root|html|body)(?![\w-])")
# `main` in a selector, and no other word of the sheet.
_MAIN = re.compile(r"(?<![\w.#-])main(?=\s*[,{:>])")
# Light or dark is for the shop's page to say.
_SCHEME = re.compile(r"color-scheme: light dark;\s*")
_COLORS = re.compile(r"--(accent|fill|on-fill):")
_OWN = """
:host { display: block; min-block-size: 0; background: none; font: var(--cashier-font, inherit);
  --accent: var(--cashier-accent, var(--brand-accent)); --fill: var(--cashier-fill, var(--brand-fill));
  --on-fill: var(--cashier-on-fill, var(--brand-on-fill)); }
:host([hidden]) { display: none; }
[data-view] { max-inline-size: none; padding: 0; }
.order { display: none; }
.card { padding: var(--cashier-padding, 0); background: var(--cashier-surface, none);
  color: var(--cashier-ink, var(--ink)); border-radius: var(--cashier-radius, 1.25rem);
  box-shadow: var(--cashier-shadow, none); }
.paybar { position: static; inset: auto; margin: 0; padding-inline: 0; box-shadow: none; background: none; border: 0; }
.row[data-gone] { opacity: .6; }
iframe.challenge { inline-size: 100%; block-size: 26rem; border: 0; border-radius: var(--cashier-radius, 1.25rem); }
"""


def element_style(brand: str, page: str) -> str:
    """`brand`, `page`: the sheets of the pages."""
    colors = _COLORS.sub(r"--brand-\1:", brand)
    sheet = _MAIN.sub("[data-view]", colors + _SCHEME.sub("", page))
    return _DOCUMENT.sub(":host", sheet) + _OWN
