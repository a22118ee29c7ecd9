"""The bank's page as HTML: what is paid to whom, and the buttons. Text in, text out; everything that comes from outside is escaped."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from msgspec import Struct

# ISO 4217 minor units of the currencies that have not two.
_DIGITS = {"JPY": 0, "KWD": 3}

_STYLE = """
:root { color-scheme: light dark; --line: #d6dbe1; --ink: #1b2530; --soft: #5b6875; --paper: #fff; --ground: #f2f4f7; --deed: #0b5cad; }
@media (prefers-color-scheme: dark) {
  :root { --line: #33404d; --ink: #e8edf2; --soft: #9aa8b5; --paper: #1a222b; --ground: #10161c; --deed: #5aa5ee; }
}
* { box-sizing: border-box; }
body { margin: 0; padding: 2rem 1rem; background: var(--ground); color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; }
main { max-width: 26rem; margin: 0 auto; padding: 1.75rem; background: var(--paper); border: 1px solid var(--line); border-radius: .75rem; }
header { margin-bottom: 1.25rem; color: var(--soft); font-size: .875rem; }
header strong { display: block; color: var(--ink); font-size: 1.125rem; }
h1 { margin: 0; font-size: 2.25rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
h1 small { color: var(--soft); font-size: 1rem; font-weight: 400; }
dl { display: grid; grid-template-columns: auto 1fr; gap: .4rem 1rem; margin: 1.25rem 0; padding: 1rem 0; border: solid var(--line);
  border-width: 1px 0; }
dt { color: var(--soft); }
dd { margin: 0; text-align: right; overflow-wrap: anywhere; }
form { display: grid; gap: .6rem; }
button { padding: .7rem 1rem; border: 1px solid var(--line); border-radius: .5rem; background: transparent; color: inherit; font: inherit;
  cursor: pointer; }
button.deed { border-color: var(--deed); background: var(--deed); color: var(--paper); font-weight: 600; }
button:focus-visible { outline: 3px solid var(--deed); outline-offset: 2px; }
p.note { margin: 1rem 0 0; color: var(--soft); font-size: .8125rem; }
a { color: var(--deed); }
p.state { margin: 0 0 1rem; font-weight: 600; }
"""


class BankPage(Struct, frozen=True, kw_only=True):
    """What the page tells. `state`: what became of it, empty while nothing has. `buttons`: what there is left to do, by what they send.
    `way_back`: a web address, shown once the payment is over."""

    bank: str
    payee: str
    title: str
    amount: str
    currency: str
    payment_id: str
    state: str
    buttons: Mapping[str, str]
    way_back: str | None


def format_amount(value: int, currency: str) -> str:
    """An amount in minor units as people write it: `25,000.00`."""
    digits = _DIGITS.get(currency, 2)
    whole, part = divmod(value, 10**digits)
    return f"{whole:,}.{part:0{digits}d}" if digits else f"{whole:,}"


def render_page(slip: BankPage) -> str:
    """The whole document."""
    rows = {"To": slip.payee, "For": slip.title, "Payment": slip.payment_id}
    listed = "".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in rows.items())
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(slip.bank)}: {escape(slip.amount)} {escape(slip.currency)}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<header><strong>{escape(slip.bank)}</strong>Payment page of the sandbox</header>
<h1>{escape(slip.amount)} <small>{escape(slip.currency)}</small></h1>
<dl>{listed}</dl>
{_form(slip)}{_way_back(slip)}
<p class="note">This is a test bank. No real money moves.</p>
</main>
</body>
</html>
"""


def _form(slip: BankPage) -> str:
    state = f'<p class="state">{escape(slip.state)}</p>' if slip.state else ""
    buttons = "".join(
        f'<button name="choice" value="{escape(choice)}"{" class=deed" if choice == "pay" else ""}>{escape(text)}</button>'
        for choice, text in slip.buttons.items()
    )
    return f'{state}<form method="post">{buttons}</form>' if buttons else state


def _way_back(slip: BankPage) -> str:
    return f'<p><a href="{escape(slip.way_back)}">Back to the shop</a></p>' if slip.way_back and slip.state else ""
