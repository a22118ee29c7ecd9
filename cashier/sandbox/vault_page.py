"""The form of the sandbox's card vault as HTML. Pure; every value from outside is escaped.

It has test cards in place of fields: a real one cannot be entered.
"""

from __future__ import annotations

from html import escape

from cashier.sandbox.bank_page import STYLE

# By the beginning of its token, which decides what the engine does with it.
CARDS = {
    "tok_visa": "Visa 4242: pays at once",
    "tok_3ds": "Mastercard 3220: its bank asks the payer",
    "tok_declined": "Visa 0002: is declined",
}


def render_vault(return_url: str, state: str) -> str:
    hidden = "".join(
        f'<input type="hidden" name="{name}" value="{escape(value)}">'
        for name, value in (("return_url", return_url), ("state", state))
    )
    cards = "".join(
        f'<label><input type="radio" name="card" value="{card}"{" checked" if number == 0 else ""}> {label}</label>'
        for number, (card, label) in enumerate(CARDS.items())
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Card vault</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<header><strong>Card vault</strong>Card form of the sandbox</header>
<form method="post" action="/vault">{hidden}{cards}
<button class="primary">Use this card</button>
</form>
<form method="post" action="/vault">{hidden}<button>Back without a card</button></form>
<p class="note">These are test cards. Never enter a real one here.</p>
</main>
</body>
</html>
"""
