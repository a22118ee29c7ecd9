"""Icons: our own drawings on a grid of 24, in one stroke. No trademarks.

Of a method the family of its icon is drawn, such as that of all banks; the tint of the tile tells
one bank or wallet from another.
"""

from __future__ import annotations

from functools import lru_cache
from zlib import crc32

from markupsafe import Markup

_TINTS = 6
# The sources of icons as the consultation names them, and their drawings.
_FAMILIES = {
    "bank": "bank",
    "account": "wallet",
    "wallet": "phone",
    "agreement": "repeat",
    "instalment": "calendar",
    "qr": "qr",
    "store": "store",
}
_BY_NAME = {
    "account/balance": "wallet",
    "account/money_fund": "growth",
    "account/gift": "gift",
    "kind/card": "card",
    "kind/net-banking": "globe",
    "kind/va": "transfer",
    "kind/otc": "store",
    "kind/consumer-qr": "barcode",
    "kind/free": "gift",
}
_DRAWINGS = {
    "card": '<rect x="3" y="5.5" width="18" height="13" rx="2.5"/><path d="M3 10h18M7 14.5h3.5"/>',
    "bank": '<path d="M3.5 9.5 12 4.5l8.5 5v1h-17zM6 13.5v4m4-4v4m4-4v4m4-4v4M3.5 20h17"/>',
    "globe": '<circle cx="12" cy="12" r="8.5"/><path d="M3.5 12h17M12 3.5c5.5 5.5 5.5 11.5 0 17-5.5-5.5'
    '-5.5-11.5 0-17z"/>',
    "transfer": '<path d="M4 8.5h15.5l-4-4M20 15.5H4.5l4 4"/>',
    "store": '<path d="M5 11v8.5h14V11M3.5 9 5.5 4.5h13L20.5 9a2.8 2.8 0 0 1-5.6 0 2.8 2.8 0 0 1-5.7 0'
    'A2.8 2.8 0 0 1 3.5 9zM10 19.5V15h4v4.5"/>',
    "wallet": '<path d="M17.5 7.5v-2a1.5 1.5 0 0 0-2-1.4l-10.5 3A2 2 0 0 0 3.5 9v9A2 2 0 0 0 5.5 20h13'
    'a2 2 0 0 0 2-2V9.5a2 2 0 0 0-2-2h-12"/><path d="M16.5 13.7h.01" stroke-width="2.6"/>',
    "phone": '<rect x="6.5" y="3" width="11" height="18" rx="2.5"/><path d="m9.5 12 2 2 3.5-4"/>',
    "repeat": '<path d="M4 11.5a8 8 0 0 1 14-4.5l2 2m0-5v5h-5M20 12.5A8 8 0 0 1 6 17l-2-2m0 5v-5h5"/>',
    "calendar": '<rect x="4" y="5.5" width="16" height="14.5" rx="2.5"/>'
    '<path d="M4 10h16M8.5 3.5v4m7-4v4M8 14h2m2 0h4m-8 3h4"/>',
    "qr": '<rect x="4" y="4" width="6" height="6" rx="1"/><rect x="14" y="4" width="6" height="6" rx="1"/>'
    '<rect x="4" y="14" width="6" height="6" rx="1"/><path d="M14 14h2.5v2.5M20 14v.01M20 18v2h-2.5M14 20v-.01"/>',
    "barcode": '<path d="M4 6v12M7.5 6v12M10.5 6v12M14 6v12M16.5 6v12M20 6v12"/>',
    "growth": '<path d="M4 19.5h16M5.5 15.5l4.5-4.5 3 3 6-7m-4 0h4v4"/>',
    "gift": '<path d="M4 8.5h16v4H4zM5.5 12.5V20h13v-7.5M12 8.5V20M12 8.5C9 8.5 7 7.5 7.5 5.5S11 4 12 8.5'
    'c1-4.5 4-5 4.5-3S15 8.5 12 8.5z"/>',
    "shield": '<path d="M12 3.5 5 6v5.5c0 4.5 3 7.5 7 9 4-1.5 7-4.5 7-9V6z"/><path d="m9 12 2.2 2.2L15.5 10"/>',
    "lock": '<rect x="5" y="10.5" width="14" height="9.5" rx="2"/><path d="M8 10.5V8a4 4 0 0 1 8 0v2.5"/>',
    "check": '<path d="m5 12.5 4.5 4.5L19 7.5"/>',
    "cross": '<path d="m7 7 10 10M17 7 7 17"/>',
    "clock": '<circle cx="12" cy="12" r="8.5"/><path d="M12 7.5V12l3 2"/>',
    "alert": '<path d="M12 4 2.8 19.5h18.4zM12 10v4.5M12 17v.01"/>',
    "info": '<circle cx="12" cy="12" r="8.5"/><path d="M12 11v5M12 8v.01"/>',
    "back": '<path d="M9 6.5H5.5V3M5.5 6.5C7.5 4.5 9.5 3.8 12 3.8a8.2 8.2 0 1 1-8.2 8.2"/>',
    "ticket": '<path d="M4 6.5h16v3.3a2.3 2.3 0 0 0 0 4.5v3.2H4v-3.2a2.3 2.3 0 0 0 0-4.5zM14 6.5v2m0 2.5v2m0 2.5v2"/>',
    "external": '<path d="M13.5 4.5h6v6M19 5l-8.5 8.5M17.5 14v4.5a1.5 1.5 0 0 1-1.5 1.5H6A1.5 1.5 0 0 1 4.5 18.5V8'
    'A1.5 1.5 0 0 1 6 6.5h4"/>',
    "copy": '<rect x="8.5" y="8.5" width="11.5" height="11.5" rx="2"/><path d="M15.5 8.5V6a2 2 0 0 0-2-2H6a2 2 0 0 0-2 '
    '2v7.5a2 2 0 0 0 2 2h2.5"/>',
    "chevron": '<path d="m7 10 5 5 5-5"/>',
    "refresh": '<path d="M19.5 12a7.5 7.5 0 1 1-2.2-5.3L19.5 9m0-5v5h-5"/>',
    "message": '<rect x="3.5" y="5" width="17" height="12.5" rx="2.5"/><path d="M8 21l3-3.5M8 10h8M8 13h5"/>',
    "key": '<circle cx="8" cy="15.5" r="4"/><path d="m11 12.5 8-8M15.5 8l2.5 2.5"/>',
    "face": '<path d="M4 8.5V6a2 2 0 0 1 2-2h2.5m7 0H18a2 2 0 0 1 2 2v2.5m0 7V18a2 2 0 0 1-2 2h-2.5m-7 0H6a2 2 0 0 1'
    '-2-2v-2.5M9 9.5v1m6-1v1M9 14.5c1.8 1.8 4.2 1.8 6 0"/>',
}


@lru_cache(maxsize=128)
def icon(name: str) -> Markup:
    """A drawing in the colour of the text around it, silent to screen readers."""
    # Ours, from the table above.
    drawing = Markup(_DRAWINGS[name])  # noqa: S704
    return Markup('<svg class="i" viewBox="0 0 24 24" aria-hidden="true">{}</svg>').format(drawing)


@lru_cache(maxsize=1024)
def method_icon(name: str) -> Markup:
    """The tile of a method or option, by its icon in the consultation, such as `bank/cmb`."""
    family, _, _ = name.partition("/")
    drawing = _BY_NAME.get(name) or _FAMILIES.get(family, "card")
    tint = crc32(name.encode()) % _TINTS
    return Markup('<span class="tile t{}">{}</span>').format(tint, icon(drawing))
