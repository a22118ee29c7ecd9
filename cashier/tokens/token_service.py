"""All tokens of the service under one ring of keys. What each of them says is in the file of its kind."""

from __future__ import annotations

from collections.abc import Sequence

from cashier.tokens.consult_token import ConsultTokens
from cashier.tokens.jws import Keyring
from cashier.tokens.payment_token import PaymentTokens


class TokenService:
    """Signs with the first secret and verifies with all. Raises `ValueError` where there is none, or one of fewer than 32 bytes."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._keyring = Keyring(secrets)
        consult, payment = ConsultTokens(self._keyring), PaymentTokens(self._keyring)
        # The methods themselves and none around them: the hot path signs one per consultation.
        self.consult_token = consult.sign
        self.read_consult_token = consult.read
        self.payment_token = payment.sign
        self.read_payment_token = payment.read

    def __repr__(self) -> str:
        return f"<Signer {self._keyring!r}>"
