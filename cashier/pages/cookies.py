"""Cookies of a page: its session, the token of its payment, and what a till asked for.

Each holds for the path of one order only. Over https they have the prefix by which browsers keep
pages without encryption from setting them. A page of another subdomain can still set one of our
names for all of them, so a name may come several times, and the reader takes what is ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice, product
from typing import TypeAlias

from starlette.responses import Response

_SESSION = "cashier-session"
_PAYMENT = "cashier-payment"
_ASKED = "cashier-asked"
# Browsers drop a cookie of more than 4096 bytes with its name and attributes, without a word. A
# longer value takes several, the first of which says how many.
_PART_CHARS = 3600
# Payment tokens have 1 to 3 KB; the longest that a submit allows takes this many parts.
_MOST_PARTS = 14
# Of a name that comes several times: the values that are tried.
_MOST_VALUES = 16

SentCookies: TypeAlias = Mapping[str, Sequence[str]]
"""The values of each name, in the browser's order: that of the longest path first."""


def sent_cookies(headers: Iterable[tuple[bytes, bytes]]) -> SentCookies:
    """A browser may split its cookies into several lines (RFC 9113, section 8.2.3)."""
    found: dict[str, list[str]] = {}
    for line in (value.decode("latin-1") for name, value in headers if name == b"cookie"):
        for pair in line.split(";"):
            name, separator, value = pair.partition("=")
            if separator:
                found.setdefault(name.strip(), []).append(value.strip())
    return found


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

    def sessions(self, sent: SentCookies) -> Iterator[str]:
        """What may be a session's token, and need not be ours."""
        return self._read(sent, _SESSION)

    def set_session(self, response: Response, token: str) -> None:
        self._write(response, _SESSION, token)

    def payments(self, sent: SentCookies) -> Iterator[tuple[str, str]]:
        """What may be the id and token of the last payment of this browser, likewise."""
        for value in self._read(sent, _PAYMENT):
            payment_id, _, token = value.partition(":")
            if token:
                yield payment_id, token

    def set_payment(self, response: Response, payment_id: str, token: str) -> None:
        self._write(response, _PAYMENT, f"{payment_id}:{token}")

    def asked(self, sent: SentCookies) -> Iterator[str]:
        """The amount that an order was created for."""
        return self._read(sent, _ASKED)

    def set_asked(self, response: Response, amount: str) -> None:
        self._write(response, _ASKED, amount)

    def _read(self, sent: SentCookies, name: str) -> Iterator[str]:
        """Nothing if a part is missing. What an older, longer value left over does not count."""
        return islice(
            (value for first in sent.get(self._part(name, 0), ()) for value in self._whole(sent, name, first)),
            _MOST_VALUES,
        )

    def _whole(self, sent: SentCookies, name: str, value: str) -> Iterator[str]:
        count, separator, first = value.partition("~")
        if not separator or not (count.isascii() and count.isdigit() and len(count) < 3):
            return
        others = [sent.get(self._part(name, number), ()) for number in range(1, min(int(count), _MOST_PARTS))]
        for parts in product(*others):
            yield first + "".join(parts)

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
