"""The OpenAPI 3.1 document, generated from the structs that the endpoints decode and encode."""

from __future__ import annotations

from cashier.web.openapi.document_builder import document

__all__ = ["document"]
