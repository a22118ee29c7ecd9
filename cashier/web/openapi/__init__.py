"""The OpenAPI 3.1 document, generated from the structs that the door reads and writes, so that it says what the door does."""

from __future__ import annotations

from cashier.web.openapi.document_builder import document

__all__ = ["document"]
