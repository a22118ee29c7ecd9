"""Members, by a slow customer database: 202 and a place to ask again; camelCase lists of pairs."""

from __future__ import annotations

from itertools import count

from aiohttp import web

from cashier.sandbox.records import Json
from tests.company.services.records import Records

LIFECYCLE = {"ACTIVE": 1, "FROZEN": 2, "CLOSED": 9}


def routes(records: Records) -> list[web.RouteDef]:
    numbers = count(1)
    jobs: dict[str, str] = {}
    waited: set[str] = set()

    async def ask(request: web.Request) -> web.Response:
        job = f"j{next(numbers)}"
        jobs[job] = request.match_info["customer"]
        return later(job)

    async def collect(request: web.Request) -> web.Response:
        job = request.match_info["job"]
        if job not in waited:
            waited.add(job)
            return later(job)
        member = records.read("member", user_id=jobs[job])
        if member is None:
            return web.json_response({"outcome": "noSuchCustomer"})
        return web.json_response({"outcome": "found", "profile": profile(member)})

    return [web.get("/crm/profiles/{customer}", ask), web.get("/crm/jobs/{job}", collect)]


def later(job: str) -> web.Response:
    return web.Response(status=202, headers={"Location": f"/crm/jobs/{job}", "X-Retry-Ms": "1"})


def profile(member: Json) -> list[list[object]]:
    pairs: list[list[object]] = [
        ["customerId", member["user_id"]],
        ["lifecycle", LIFECYCLE[member["status"]]],
        ["homeCountry", member["country"]],
        ["verificationTier", f"T{member['kyc_level']}"],
        ["paymentHistory", [[row["kind"], row["count"]] for row in member["usage"]]],
    ]
    if last := member.get("last_used"):
        pairs.append(["lastPayment", [["means", last["kind"]], ["with", last.get("instrument_id")]]])
    return pairs
