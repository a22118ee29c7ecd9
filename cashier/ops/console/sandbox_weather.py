"""The weather of a sandbox: shows and changes it through the sandbox's own endpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import aiohttp
import orjson

# As `cashier weather` names them; the sandbox refuses those that a source does not have.
FAULTS: Mapping[str, str] = {
    "hang": "no answer comes",
    "error": "500",
    "overload": "503",
    "garbage": "the answer breaks the contract",
    "wrong_identity": "the answer names another user or order",
    "truncate": "the answer breaks off",
    "slow_body": "the body takes a second",
    "reset": "the connection is reset",
    "slow": "answers after the given time",
}
SHARES_BPS = frozenset({10_000, 5_000, 3_000, 1_000, 100})
_TIMEOUT = aiohttp.ClientTimeout(total=3.0)


class WeatherRefused(Exception):
    """The sandbox refused a change, or does not answer: its sentence."""


class SandboxWeather:
    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def __repr__(self) -> str:
        return f"<SandboxWeather of {self.url}>"

    async def show(self) -> dict[str, dict[str, str]] | None:
        """By source: latency, stragglers and faults in words. None if it does not answer."""
        try:
            profiles = await self._call("GET", "/weather")
            return {str(name): _described(profile) for name, profile in profiles.items()}
        except (WeatherRefused, AttributeError, KeyError, TypeError, ValueError):
            return None

    async def change(self, source: str, fault: str, share_bps: int, ms: float) -> None:
        """Raises `WeatherRefused`."""
        profile: dict[str, Any] = {"faults": {fault: share_bps}}
        if fault == "slow":
            profile = {"latency": {"shape": "constant", "ms": ms}}
        await self._call("PUT", f"/weather/{source}", profile)

    async def restore(self, source: str | None) -> None:
        """One source, or all. Raises `WeatherRefused`."""
        await self._call("DELETE", f"/weather/{source}" if source else "/weather")

    async def _call(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else orjson.dumps(body)
        try:
            async with (
                aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=False) as session,
                session.request(
                    method,
                    self.url + path,
                    data=data,
                    headers={"Content-Type": "application/json"},
                    allow_redirects=False,
                ) as response,
            ):
                answer = orjson.loads(await response.read())
                status = response.status
        except (aiohttp.ClientError, TimeoutError, ValueError, OSError):
            raise WeatherRefused("The sandbox does not answer.") from None
        if status != 200:
            detail = answer.get("detail") if isinstance(answer, dict) else None
            raise WeatherRefused(f"The sandbox refuses it: {detail or status}")
        return answer


def _described(profile: dict[str, Any]) -> dict[str, str]:
    latency, stragglers = dict(profile["latency"]), profile["stragglers"]
    shape = latency.pop("shape", "")
    faults = [f"{name} {share / 100:g} %" for name, share in (profile.get("faults") or {}).items()]
    planned = [f"next: {each['fault']}" for each in profile.get("next") or ()]
    share_bps = stragglers["share_bps"]
    numbers = ", ".join(f"{name.removesuffix('_ms').replace('_', ' ')} {value:g} ms" for name, value in latency.items())
    return {
        "latency": f"{shape}: {numbers.removeprefix('ms ')}",
        "stragglers": f"{share_bps / 100:g} % take {stragglers['factor']:g} times as long" if share_bps else "none",
        "faults": ", ".join([*faults, *planned]),
    }
