"""Shares as operators read them."""

from __future__ import annotations


def percent(share: float) -> str:
    """Never rounds to 0 % or 100 % what is not."""
    if 0 < share < 0.001:
        return "< 0.1 %"
    if 0.999 < share < 1:
        return "> 99.9 %"
    return f"{share:.0%}".replace("%", " %") if share in (0, 1) else f"{share:.1%}".replace("%", " %")
