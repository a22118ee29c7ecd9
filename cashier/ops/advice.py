"""What to do about what operators see: one sentence for each reason, status and state."""

from __future__ import annotations

from collections.abc import Mapping

# By `FailureReason`. A reason without a row has nothing to add to its name.
BY_REASON: Mapping[str, str] = {
    "DNS": "The host name does not resolve: check the url of the source, and the resolver of this machine.",
    "REFUSED": "Nothing listens at the address: check that the service runs, and the port in its url.",
    "TLS": "No TLS connection: check the certificate's expiry and names, and ca_file of the source; if its last"
    " failure says WRONG_VERSION_NUMBER, the port and scheme of its url.",
    "CONNECT_TIMEOUT": "No connection came about: check network, firewall, and that the host is up.",
    "UNREACHABLE": "No connection is possible: check route, socket file and network.",
    "TIMEOUT": "The service is too slow: ask its team, and compare its addresses.",
    "RESET": "Connections break before the answer: the service or a proxy in between restarts or crashes.",
    "STATUS_2XX": "The service answers without content: check the url, and the version of the service.",
    "STATUS_3XX": "The service redirects: put the final address into its url.",
    "STATUS_4XX": "The service refuses our requests: check its url, and ask its team.",
    "UNAUTHORIZED": "The service refuses our credential (401 or 403): check auth of the source: its token or key may"
    " have expired, been rotated, or lack a permission.",
    "NO_CREDENTIAL": "There is no token to call with: its last failure says why. Check the token endpoint, the client"
    " and its secret.",
    "SIGNATURE": "An answer is unsigned, or not signed by the service: it counts as none. Check the keys of auth and"
    " this machine's clock; if both are right, something on the way forges answers.",
    "STATUS_5XX": "The service fails: ask its team. Its own log has the cause.",
    "OVERLOADED": "The service asks for less load: ask its team for capacity.",
    "WRONG_PATH": "The path does not exist there: check the path in the url of the source.",
    "NOT_JSON": "The answer is no JSON: check the url; a proxy or another service may be answering.",
    "FIELD": "A field has another shape than agreed: the failure below names it. Tell the service's team.",
    "WRONG_IDENTITY": "The service answers about another user or order: tell its team at once.",
    "PROTOCOL": "The answer breaks HTTP: a proxy or another protocol may be answering.",
    "ADAPTER": "The adapter failed by itself: the log has the traceback.",
    "NO_TIME": "The callers' deadlines leave no time for it: see its p50, and the deadline of the callers.",
    "AT_LIMIT": "It has as many calls as it can bear: it is too slow for this load.",
    "QUEUE_FULL": "All connections are in use: raise http1.connections, or ask why it is slow.",
    "DIMMED": "Left out because this process is overloaded: see Runtime.",
    "BACKING_OFF": "The last new connections were broken: see the other reasons.",
}

DISCOVERY = "The last addresses are used: check what has the list, before the instances move."

# By importance: what its silence costs.
COST: Mapping[str, str] = {
    "REQUIRED": "consultations fail without it",
    "GATING": "methods that it could refuse are undetermined",
    "ENRICHING": "offers lack what it would add",
}

# By `PaymentEvent`: of payments whose outcome is unknown.
_BY_EVENT: Mapping[str, str] = {
    "engine silent": "The engine does not answer: ask its team whether it has this payment. Do not pay again by hand.",
    "engine: unknown": "The engine does not have it yet; a reversal will settle it by itself within minutes.",
    "acquirer silent": "The acquirer does not answer: ask its team what it knows about this order.",
}
LEFT_PAYMENT_ADVICE = "Its worker has gone. The next caller looks it up: the payer's page, or cashier payment."
# How long such a payment needs attention: then its order is over, or a caller has looked.
LEFT_FOR_S = 900.0
# From then on a payment that is unknown needs a person.
NEEDS_A_PERSON_S = 120.0


def payment_advice(event: str, *, unknown: bool, age_s: float) -> str:
    if not unknown:
        return ""
    if age_s < NEEDS_A_PERSON_S:
        return "It is looked up every few seconds; nothing to do yet."
    return _BY_EVENT.get(event, "Ask the engine's team for this payment.")
