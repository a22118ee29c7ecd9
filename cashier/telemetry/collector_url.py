"""The URL of a collector of OTLP/HTTP, as a configuration names it."""

from __future__ import annotations

from urllib.parse import urlsplit

from msgspec import Struct

_PATH = "/v1/traces"
_NO_URL = "is no URL like http://127.0.0.1:4318"


class CollectorUrl(Struct, frozen=True):
    """Where exports go. `text` for logs."""

    secure: bool
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, url: str) -> CollectorUrl:
        """Of the collector, or of its endpoint for traces. Raises ValueError."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:  # its text quotes the URL
            raise ValueError(_NO_URL) from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(_NO_URL)
        if parts.username is not None or parts.password is not None:
            raise ValueError("must not hold a password; the environment's OTEL_EXPORTER_OTLP_HEADERS may")
        if parts.query or parts.fragment:
            raise ValueError("must have no query")
        if not parts.path.isascii() or any(character <= " " for character in parts.path):
            raise ValueError("must have a path of visible ASCII")
        path = parts.path.rstrip("/")
        secure = parts.scheme == "https"
        return cls(
            secure=secure,
            host=parts.hostname,
            port=port or (443 if secure else 80),
            path=path if path.endswith(_PATH) else path + _PATH,
        )

    @property
    def text(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.secure else 'http'}://{host}:{self.port}{self.path}"
