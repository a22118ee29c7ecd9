"""Cookies of a page: its session, the token of its payment, and what a till asked for.

Each holds for the path of one order only. Over https they have the prefix by which browsers keep
pages without encryption from setting them.
"""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import Response

_SESSION = "cashier-session"
_PAYMENT = "cashier-payment"
_ASKED = "cashier-asked"
# Browsers drop a cookie of more than 4096 bytes with its name and attributes, without a word. A
# longer value takes several, the first of which says how many.
_PART_CHARS = 3600
# Payment tokens have 1 to 3 KB; the longest that a submit allows takes this many parts.
_MOST_PARTS = 14


class PageCookies:
    """Of one order. `path`: of its pages, as browsers see it. `secure`: they come over https.

    `lasts_s`: None keeps them until the browser is closed.
    """

    def __init__(self, path: str, *, secure: bool, lasts_s: int | None = None) -> None:
        self._path = path
        self._secure = secure
        self._lasts_s = lasts_s

    def __repr__(self) -> str:
        return f"<PageCookies {self._path}>"

    def session(self, cookies: Mapping[str, str]) -> str | None:
        return self._read(cookies, _SESSION)

    def set_session(self, response: Response, token: str) -> None:
        self._write(response, _SESSION, token)

    def payment(self, cookies: Mapping[str, str]) -> tuple[str, str] | None:
        """The id and token of the last payment of this browser."""
        payment_id, separator, token = (self._read(cookies, _PAYMENT) or "").partition(":")
        return (payment_id, token) if separator and token else None

    def set_payment(self, response: Response, payment_id: str, token: str) -> None:
        self._write(response, _PAYMENT, f"{payment_id}:{token}")

    def asked(self, cookies: Mapping[str, str]) -> str | None:
        """The amount that an order was created for."""
        return self._read(cookies, _ASKED)

    def set_asked(self, response: Response, amount: str) -> None:
        self._write(response, _ASKED, amount)

    def _read(self, cookies: Mapping[str, str], name: str) -> str | None:
        """None also if a part is missing. What an older, longer value left over does not count."""
        count, separator, first = cookies.get(self._part(name, 0), "").partition("~")
        if not separator or not (count.isascii() and count.isdigit() and len(count) < 3):
            return None
        others = [cookies.get(self._part(name, number)) for number in range(1, min(int(count), _MOST_PARTS))]
        return first + "".join(part or "" for part in others) if all(others) else None

    def _write(self, response: Response, name: str, value: str) -> None:
        parts = [value[start : start + _PART_CHARS] for start in range(0, len(value), _PART_CHARS)]
        parts[0] = f"{len(parts)}~{parts[0]}"
        for number, part in enumerate(parts):
            response.set_cookie(
                self._part(name, number),
                part,
                max_age=self._lasts_s,
                path=self._path,
                secure=self._secure,
                httponly=True,
                samesite="lax",
            )

    def _part(self, name: str, number: int) -> str:
        plain = name if number == 0 else f"{name}-{number}"
        return f"__Secure-{plain}" if self._secure else plain
