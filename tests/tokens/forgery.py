"""Forged tokens with arbitrary header, payload and key."""

from __future__ import annotations

import hmac
import json
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from typing import Any


@dataclass
class Forged:
    """A header or payload of type str is used verbatim."""

    header: Any
    key: str
    payload: Any

    def text(self) -> str:
        signing_input = f"{_part(self.header)}.{_part(self.payload)}"
        return f"{signing_input}.{_base64(hmac.digest(self.key.encode(), signing_input.encode(), 'sha256'))}"


def bit_flipped(text: str, bit: int) -> str:
    """Flip one bit of the encoded text; the result may contain non-ASCII characters."""
    octets = bytearray(text.encode("ascii"))
    octets[bit // 8] ^= 1 << bit % 8
    return octets.decode("latin-1")


def _part(value: Any) -> str:
    return _base64((value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))).encode())


def _base64(octets: bytes) -> str:
    return urlsafe_b64encode(octets).rstrip(b"=").decode()
