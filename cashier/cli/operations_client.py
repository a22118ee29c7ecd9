"""Client of the operations port, for the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, urlsplit

import aiohttp
import msgspec

from cashier.cli.service_client import RequestFailed, endpoint_address, transport_errors
from cashier.ops.overview import Overview
from cashier.ops.records_endpoint import RecordList, StepList

TOKEN_VARIABLE = "CASHIER_OPERATIONS_TOKEN"  # noqa: S105 - a name
_TIMEOUT = aiohttp.ClientTimeout(total=5)
# The overview of 8 sources with 32 addresses each has some 100 kB.
_MOST_BYTES = 1 << 24
_decoder = msgspec.json.Decoder(Overview)
_records_decoder = msgspec.json.Decoder(RecordList)
_steps_decoder = msgspec.json.Decoder(StepList)
T = TypeVar("T")

_REFUSALS = {
    401: f"it wants a token with the scope `operations`: name its file with --token-file, or set {TOKEN_VARIABLE}",
    403: "the token has not the scope `operations`, or is bound to a user, order or merchant",
    404: "this is no operations port; `cashier serve` prints the address of its own",
    421: "it does not answer to this name: use its address, or add the name to [operations] hosts",
}


class OperationsClient:
    """The operations port at `url`. Without `token_file` the token is `token`, if any.

    The file is read for each request, because tokens expire and are written anew.
    """

    def __init__(self, url: str, token_file: Path | None, token: str | None) -> None:
        self.url = url.rstrip("/")
        self._token_file = token_file
        self._token = token

    async def overview(self) -> tuple[Overview, bytes]:
        """The overview, decoded and as JSON. Raises `RequestFailed`."""
        body = await self._get("/api/overview")
        return self._decoded(body, _decoder), body

    async def records(self, order_id: str | None = None) -> RecordList:
        """Recorded consultations, the latest first; of one order. Raises `RequestFailed`."""
        with transport_errors(self.url, "cashier serve"):
            query = "" if order_id is None else f"?order_id={quote(order_id, safe='')}"
        return self._decoded(await self._get(f"/api/records{query}"), _records_decoder)

    async def record(self, key: str) -> bytes:
        """A record as JSON. Raises `RequestFailed`."""
        return await self._get(f"/api/records/{key}")

    async def steps(self, payment_id: str) -> StepList:
        """The steps of a payment, the first one first. Raises `RequestFailed`."""
        body = await self._get(f"/api/payments/{quote(payment_id, safe='')}/steps")
        return self._decoded(body, _steps_decoder)

    def _decoded(self, body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
        try:
            return decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RequestFailed(f"{self.url} answers in another form, maybe of another version: {error}") from None

    async def _get(self, path: str) -> bytes:
        headers = self._headers()
        with transport_errors(self.url, "cashier serve"):
            # A new connection each time: the port may have been restarted.
            async with (
                aiohttp.ClientSession(timeout=_TIMEOUT) as session,
                session.get(endpoint_address(self.url, path), headers=headers, allow_redirects=False) as response,
            ):
                if response.status != 200:
                    raise RequestFailed(self._refusal(response.status))
                return await _whole(response)

    def _headers(self) -> dict[str, str]:
        token = self._token
        if self._token_file is not None:
            try:
                token = self._token_file.read_text("ascii").strip()
            except (OSError, ValueError) as error:
                raise RequestFailed(f"--token-file {self._token_file}: {error}") from None
        if not token:
            return {}
        if not token.isascii() or not token.isprintable() or " " in token:
            raise RequestFailed("the token is none: it has a space, a line break or another odd character")
        return {"Authorization": f"Bearer {token}"}

    def _refusal(self, status: int) -> str:
        where = f"{urlsplit(self.url).netloc or self.url} answers {status}"
        return f"{where}: {_REFUSALS.get(status, 'look at the log of the service')}"


async def _whole(response: aiohttp.ClientResponse) -> bytes:
    parts, size = [], 0
    async for part in response.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > _MOST_BYTES:
            raise RequestFailed(f"{response.url} answers more than {_MOST_BYTES} bytes")
    return b"".join(parts)
