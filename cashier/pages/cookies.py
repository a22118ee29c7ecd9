"""Cookies of a page: its session, and the token of its payment.

Each holds for the path of one order only. Over https they have the prefix by which browsers keep
pages without encryption from setting them.
"""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import Response

_SESSION = "cashier-session"
_PAYMENT = "cashier-payment"
# Browsers drop a cookie of more than 4096 bytes with its name and attributes, without a word.
_PART_CHARS = 3600
# Payment tokens have 1 to 3 KB; the longest that a submit allows takes this many parts.
_MOST_PARTS = 14


class PageCookies:
    """Of one order. `path`: of its pages, as browsers see it. `secure`: they come over https."""

    def __init__(self, path: str, *, secure: bool) -> None:
        self._path = path
        self._secure = secure

    def __repr__(self) -> str:
        return f"<PageCookies {self._path}>"

    def session(self, cookies: Mapping[str, str]) -> str | None:
        return cookies.get(self._name(_SESSION))

    def set_session(self, response: Response, token: str) -> None:
        self._set(response, self._name(_SESSION), token)

    def payment(self, cookies: Mapping[str, str]) -> tuple[str, str] | None:
        """The id and token of the last payment of this browser."""
        parts = []
        for number in range(_MOST_PARTS):
            part = cookies.get(self._name(f"{_PAYMENT}-{number}"))
            if not part:
                break
            parts.append(part)
        payment_id, separator, token = "".join(parts).partition(":")
        return (payment_id, token) if separator and token else None

    def set_payment(self, response: Response, payment_id: str, token: str, held: Mapping[str, str]) -> None:
        """`held`: the cookies of the request; parts of a longer token are dropped."""
        value = f"{payment_id}:{token}"
        parts = [value[start : start + _PART_CHARS] for start in range(0, len(value), _PART_CHARS)]
        for number, part in enumerate(parts):
            self._set(response, self._name(f"{_PAYMENT}-{number}"), part)
        self._drop_payment(response, held, len(parts))

    def drop_payment(self, response: Response, held: Mapping[str, str]) -> None:
        self._drop_payment(response, held, 0)

    def _drop_payment(self, response: Response, held: Mapping[str, str], first: int) -> None:
        for number in range(first, _MOST_PARTS):
            name = self._name(f"{_PAYMENT}-{number}")
            if name in held:
                response.delete_cookie(name, path=self._path, secure=self._secure, httponly=True, samesite="lax")

    def _set(self, response: Response, name: str, value: str) -> None:
        response.set_cookie(name, value, path=self._path, secure=self._secure, httponly=True, samesite="lax")

    def _name(self, name: str) -> str:
        return f"__Secure-{name}" if self._secure else name
