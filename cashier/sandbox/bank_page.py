"""The bank page as HTML: amount, payee and buttons. Pure; every value from outside is escaped."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from msgspec import Struct

# ISO 4217 minor units of the currencies that do not have two.
_DIGITS = {"JPY": 0, "KWD": 3}

PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
STYLE = """
:root { color-scheme: light dark; --line: #d6dbe1; --ink: #1b2530; --soft: #5b6875; --paper: #fff;
  --ground: #f2f4f7; --primary: #0b5cad; }
@media (prefers-color-scheme: dark) {
  :root { --line: #33404d; --ink: #e8edf2; --soft: #9aa8b5; --paper: #1a222b; --ground: #10161c;
    --primary: #5aa5ee; }
}
* { box-sizing: border-box; }
body { margin: 0; padding: 2rem 1rem; background: var(--ground); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
main { max-width: 26rem; margin: 0 auto; padding: 1.75rem; background: var(--paper);
  border: 1px solid var(--line); border-radius: .75rem; }
header { margin-bottom: 1.25rem; color: var(--soft); font-size: .875rem; }
header strong { display: block; color: var(--ink); font-size: 1.125rem; }
h1 { margin: 0; font-size: 2.25rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
h1 small { color: var(--soft); font-size: 1rem; font-weight: 400; }
dl { display: grid; grid-template-columns: auto 1fr; gap: .4rem 1rem; margin: 1.25rem 0; padding: 1rem 0;
  border: solid var(--line); border-width: 1px 0; }
dt { color: var(--soft); }
dd { margin: 0; text-align: right; overflow-wrap: anywhere; }
form { display: grid; gap: .6rem; }
button { padding: .7rem 1rem; border: 1px solid var(--line); border-radius: .5rem;
  background: transparent; color: inherit; font: inherit; cursor: pointer; }
button.primary { border-color: var(--primary); background: var(--primary); color: var(--paper); font-weight: 600; }
button:focus-visible { outline: 3px solid var(--primary); outline-offset: 2px; }
p.note { margin: 1rem 0 0; color: var(--soft); font-size: .8125rem; }
a { color: var(--primary); }
p.state { margin: 0 0 1rem; font-weight: 600; }
"""


class BankPage(Struct, frozen=True, kw_only=True):
    """What the page shows.

    `status_text`: the outcome, empty while there is none. `buttons`: label by the value sent.
    `return_url`: a web address, shown once the payment is over.
    """

    bank: str
    payee: str
    title: str
    amount: str
    currency: str
    payment_id: str
    status_text: str
    buttons: Mapping[str, str]
    return_url: str | None


def format_amount(value: int, currency: str) -> str:
    """Format an amount in minor units, such as `25,000.00`."""
    digits = _DIGITS.get(currency, 2)
    units, fraction = divmod(value, 10**digits)
    return f"{units:,}.{fraction:0{digits}d}" if digits else f"{units:,}"


def render_page(page: BankPage) -> str:
    rows = {"To": page.payee, "For": page.title, "Payment": page.payment_id}
    list_items = "".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in rows.items())
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(page.bank)}: {escape(page.amount)} {escape(page.currency)}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<header><strong>{escape(page.bank)}</strong>Payment page of the sandbox</header>
<h1>{escape(page.amount)} <small>{escape(page.currency)}</small></h1>
<dl>{list_items}</dl>
{_form(page)}{_return_link(page)}
<p class="note">This is a test bank. No real money moves.</p>
</main>
</body>
</html>
"""


def _form(page: BankPage) -> str:
    state = f'<p class="state">{escape(page.status_text)}</p>' if page.status_text else ""
    buttons = "".join(_button(choice, label) for choice, label in page.buttons.items())
    return f'{state}<form method="post">{buttons}</form>' if buttons else state


def _button(choice: str, label: str) -> str:
    style = " class=primary" if choice == "pay" else ""
    return f'<button name="choice" value="{escape(choice)}"{style}>{escape(label)}</button>'


def _return_link(page: BankPage) -> str:
    return (
        f'<p><a href="{escape(page.return_url)}">Back to the shop</a></p>'
        if page.return_url and page.status_text
        else ""
    )
