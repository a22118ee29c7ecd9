"""The authenticated caller of a request: its scopes, and its user, order and merchant."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Protocol

from msgspec import Struct

from cashier.web.problem import FieldProblem, ProblemCode, RequestRefused, invalid


class TokenScope(StrEnum):
    """What a service may be permitted."""

    CONSULT = "consult"
    PAY = "pay"
    SESSIONS = "sessions"
    INVALIDATE = "invalidate"
    OPERATIONS = "operations"


# All that a payer may do, for itself.
PAYER_SCOPES = frozenset((TokenScope.CONSULT, TokenScope.PAY))


class Owned(Protocol):
    """A request, or the choice that a payment was made from."""

    @property
    def order_id(self) -> str: ...
    @property
    def user_id(self) -> str | None: ...
    @property
    def merchant_id(self) -> str: ...


class Caller(Struct, frozen=True):
    """A service, or a payer, which has a `user_id`. The ids bind where they are not None.

    `expires_at`: end of the bearer token in seconds since 1970, leeway included.
    """

    scopes: frozenset[TokenScope]
    expires_at: float
    user_id: str | None = None
    order_id: str | None = None
    merchant_id: str | None = None

    @property
    def is_bound(self) -> bool:
        return (self.user_id, self.order_id, self.merchant_id) != (None, None, None)

    def require_scope(self, scope: TokenScope) -> None:
        """Raises `RequestRefused`: FORBIDDEN."""
        if scope not in self.scopes:
            raise lacks_scope(scope)

    def require_own(self, owned: Owned) -> None:
        """Raises `RequestRefused`: CALLER_MISMATCH for another's user, order or merchant.

        A payer is no walk-in, so its token is refused for a request without a user.
        """
        if self.user_id is not None and self.user_id != owned.user_id:
            raise _mismatch("is a payer's and belongs to another user")
        if self.order_id is not None and self.order_id != owned.order_id:
            raise _mismatch("is for another order")
        if self.merchant_id is not None and self.merchant_id != owned.merchant_id:
            raise _mismatch("is for another merchant")

    def require_merchant(self, merchant_id: str) -> None:
        """For what is a merchant's and no order's. Raises `RequestRefused`: CALLER_MISMATCH."""
        if self.order_id is not None:
            raise _mismatch("is for one order")
        if self.merchant_id is not None and self.merchant_id != merchant_id:
            raise _mismatch("is for another merchant")


# Every caller, if none is authenticated.
ANYONE = Caller(frozenset(TokenScope), math.inf)


def payer_of(caller: Caller, named: str | None, *, trusts_named: bool) -> str:
    """The user whose lost attempt the caller may see and take over.

    A payer is its own; `named` may only repeat it. A service has payment tokens for its payers and
    acts by them. Without authentication the caller names the user, where `trusts_named`. Raises
    `RequestRefused`: PAYER_REQUIRED, CALLER_MISMATCH, INVALID.
    """
    if caller.user_id is not None:
        if named not in (None, caller.user_id):
            raise _mismatch("is a payer's and belongs to another user")
        return caller.user_id
    if caller is not ANYONE:
        raise RequestRefused(ProblemCode.PAYER_REQUIRED, "This needs the bearer token of the payer, not of a service.")
    if not trusts_named:
        raise RequestRefused(
            ProblemCode.PAYER_REQUIRED, "Without authentication of payers this is served on loopback addresses only."
        )
    if named is None:
        raise invalid(FieldProblem("user_id", "MISSING", "is required"))
    return named


def lacks_scope(scope: str) -> RequestRefused:
    challenge = f'Bearer realm="cashier", error="insufficient_scope", scope="{scope}"'
    return RequestRefused(
        ProblemCode.FORBIDDEN,
        f"The bearer token lacks the scope {scope}.",
        headers=((b"www-authenticate", challenge.encode()),),
    )


def _mismatch(what: str) -> RequestRefused:
    return RequestRefused(ProblemCode.CALLER_MISMATCH, f"The bearer token {what}.")
