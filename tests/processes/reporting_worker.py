"""A worker whose order service is silent: consults until it is killed, and reports to `argv[1]`."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from cashier.asgi import open_and_reload
from cashier.consultation.answer import RequiredSourceUnavailable
from cashier.consultation.source_table import SOURCE_NAMES
from cashier.core import Cashier
from cashier.domain.order import ConsultRequest, Product, Terminal
from cashier.settings.schema import Configuration
from cashier.web.cross_origin import AllowedOrigins

REQUEST = ConsultRequest(
    order_id="o_1", user_id="u_1", merchant_id="m_1", product=Product.STANDARD_CASHIER, terminal=Terminal.H5
)


async def silent(**_inputs: Any) -> Any:
    raise ConnectionRefusedError


async def main(run_directory: Path) -> None:
    cashier = Cashier(sources=dict.fromkeys(SOURCE_NAMES, silent))

    def read() -> Configuration:
        return cashier.config

    async with open_and_reload(cashier, AllowedOrigins({}), read, run_directory):
        while True:
            with suppress(RequiredSourceUnavailable):
                await cashier.consult(REQUEST, request_id="r_1")
            await asyncio.sleep(0.02)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
