"""Compression of documents: four fifths of a page are its own repetitions.

A compressed document reveals by its length whether a guess that it repeats is in it (BREACH). The
only secrets in one are form tokens, which are salted anew in each, and the offer, which is signed
anew: there is nothing to guess twice.
"""

from __future__ import annotations

import gzip
import re

from starlette.responses import HTMLResponse, Response

# Two fifths of the time of the default level, for an eighth more bytes.
_LEVEL = 3
_LEAST_BYTES = 1_000
_TAKEN = re.compile(r"(?:^|,)\s*(?:x-)?gzip\s*(?:$|,|;(?!\s*q=0(?:\.0*)?\s*(?:,|$)))", re.IGNORECASE)


def takes_gzip(accept_encoding: str) -> bool:
    return _TAKEN.search(accept_encoding) is not None


def compressed(response: Response, accept_encoding: str) -> Response:
    """A document in gzip, if it is worth it and the browser takes it. Changes the response."""
    if not isinstance(response, HTMLResponse):
        return response
    response.headers["vary"] = "accept-encoding"
    body = bytes(response.body)
    if not takes_gzip(accept_encoding) or len(body) < _LEAST_BYTES:
        return response
    response.body = gzip.compress(body, _LEVEL, mtime=0)
    response.headers["content-encoding"] = "gzip"
    response.headers["content-length"] = str(len(response.body))
    return response
