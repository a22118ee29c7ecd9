"""All tokens of the service under one keyring. Their claims are in the module of each kind."""

from __future__ import annotations

from collections.abc import Sequence

from cashier.tokens.consult_token import ConsultTokens
from cashier.tokens.jws import Keyring
from cashier.tokens.page_session import PageTokens
from cashier.tokens.payment_state_token import PaymentTokens
from cashier.tokens.stream_ticket import StreamTickets


class TokenService:
    """Signs with the first secret and verifies with all. Raises `ValueError` like `Keyring`."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._keyring = Keyring(secrets)
        consult, payment = ConsultTokens(self._keyring), PaymentTokens(self._keyring)
        stream = StreamTickets(self._keyring)
        # Bound methods without a wrapper: the hot path signs one token per consultation.
        self.sign_consult_token = consult.sign
        self.read_consult_token = consult.read
        self.sign_payment_token = payment.sign
        self.read_payment_token = payment.read
        self.read_payment_choice = payment.read_choice
        self.sign_stream_ticket = stream.sign
        self.read_stream_ticket = stream.read
        self.pages = PageTokens(self._keyring)

    def __repr__(self) -> str:
        return f"<TokenService {self._keyring!r}>"
