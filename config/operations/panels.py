"""The panels of the dashboard: what each shows, and what to do when it moves."""

from __future__ import annotations

from typing import Any, NamedTuple

GREEN, YELLOW, RED = "green", "yellow", "red"


class Query(NamedTuple):
    expression: str
    legend: str = ""


class Panel(NamedTuple):
    """`shows`: what it shows; `advice`: what to do when it moves. `kind`: of Grafana.

    `steps`: thresholds, each with the colour from it on; the first one counts from the start.
    """

    title: str
    kind: str
    unit: str
    shows: str
    advice: str
    queries: tuple[Query, ...]
    width: int = 8
    height: int = 8
    steps: tuple[tuple[float, str], ...] = ()
    stacked: bool = False
    most: float | None = None
    names: dict[str, str] | None = None


def of(metric: str, *matchers: str) -> str:
    """A selector of the chosen jobs and instances."""
    chosen = ('job=~"$job"', 'instance=~"$instance"', *matchers)
    return f"{metric}{{{', '.join(chosen)}}}"


def of_source(metric: str, *matchers: str) -> str:
    return of(metric, 'source=~"$source"', *matchers)


def rate(selector: str) -> str:
    return f"rate({selector}[$__rate_interval])"


def total(by: str, selector: str) -> str:
    """The rate per second, added up by these labels."""
    return f"sum by ({by}) ({rate(selector)})" if by else f"sum({rate(selector)})"


def share(by: str, part: str, whole: str) -> str:
    """0 where nothing of the whole is of this part."""
    return f"({total(by, part)} or 0 * {total(by, whole)}) / {total(by, whole)}"


def quantile(share_below: float, by: str, bucket: str) -> str:
    labels = f"{by}, le" if by else "le"
    return f"histogram_quantile({share_below}, {total(labels, bucket)})"


def timeseries(title: str, unit: str, shows: str, advice: str, *queries: Query, **more: Any) -> Panel:
    return Panel(title, "timeseries", unit, shows, advice, queries, **more)


def stat(title: str, unit: str, shows: str, advice: str, *queries: Query, **more: Any) -> Panel:
    return Panel(title, "stat", unit, shows, advice, queries, width=4, height=4, **more)


CONSULTATIONS = of("cashier_consultation_duration_seconds_count")
REFUSED = of("cashier_shed_total", 'step=~"refused|queue"')
LATE = of("cashier_consultations_late_total")
FAILED = of("cashier_consultation_duration_seconds_count", 'outcome=~"unavailable|error"')
ANSWERS = of_source("cashier_source_answers_total", 'status!="SKIPPED"')
HEDGES = of_source("cashier_source_calls_total", 'kind="hedge"')
SILENT = of_source("cashier_source_answers_total", 'status!~"FRESH|CACHED|STALE|SKIPPED"')
CACHE = of_source("cashier_cache_requests_total", 'result!="fallback"')
METHODS = of("cashier_methods_total")
REQUESTS = of("cashier_http_requests_total")
AVAILABLE = of("cashier_methods_total", 'availability="AVAILABLE"')
INTERNAL, ERROR = 'code="INTERNAL"', 'outcome="error"'
# Requests that start a payment, of the API, the pages and the tills.
_SUBMIT_PATHS = (
    "/v1/payments|/cashier/{order_id}/pay|/cashier-embed/{order_id}/pay"
    "|/cashier-till/{merchant_id}/{terminal_id}/sales/{order_id}/scan"
)
SUBMITS = of("cashier_http_requests_total", f'path=~"{_SUBMIT_PATHS}"')
SUBMITS_FAILED = of("cashier_http_requests_total", f'path=~"{_SUBMIT_PATHS}"', 'status="5xx"')

NOW = (
    stat(
        "Consultations",
        "reqps",
        "Consultations per second.",
        "A sudden fall to 0: callers do not reach the service, or it refuses them. Look at the gateway and at Refused.",
        Query(total("", CONSULTATIONS)),
    ),
    stat(
        "Late",
        "percentunit",
        "Share of the consultations that were answered after their deadline.",
        "Above 0.1 %: the budget of the month burns. See the row Deadline and outcomes.",
        Query(share("", LATE, CONSULTATIONS)),
        steps=((0, GREEN), (0.001, YELLOW), (0.0144, RED)),
    ),
    stat(
        "Failed",
        "percentunit",
        "Share of the consultations that ended without an answer.",
        "A required source is silent, or a bug: see Outcomes.",
        Query(share("", FAILED, CONSULTATIONS)),
        steps=((0, GREEN), (0.001, YELLOW), (0.01, RED)),
    ),
    stat(
        "Open breakers",
        "none",
        "Endpoints of sources that get probes only, because their calls fail.",
        "See Breakers for which, and Reasons of failures for why.",
        Query(f"count(max by (source, endpoint) ({of('cashier_breaker_state')}) > 0) or vector(0)"),
        steps=((0, GREEN), (1, RED)),
    ),
    stat(
        "Oldest unknown payment",
        "s",
        "Age of the oldest payment of which nobody says how it ended.",
        "Above ten minutes: look its id up in the console and at the engine. Money may have moved.",
        Query(f"max({of('cashier_payment_unknown_oldest_seconds')})"),
        steps=((0, GREEN), (120, YELLOW), (600, RED)),
    ),
    stat(
        "Refused",
        "percentunit",
        "Share of the callers that are refused because of overload.",
        "Above 1 % CashierSheds pages. Add workers or machines; see the row Runtime.",
        Query(f"{total('', REFUSED)} / ({total('', REFUSED)} + {total('', CONSULTATIONS)})"),
        steps=((0, GREEN), (0.001, YELLOW), (0.01, RED)),
    ),
)

DEADLINE = (
    timeseries(
        "Outcomes",
        "reqps",
        "Consultations per second by outcome.",
        "unavailable: a required source is silent, see Sources. error: a bug, search the log. degraded: see Degraded "
        "answers. abandoned: callers leave before their deadline.",
        Query(total("outcome", CONSULTATIONS), "{{outcome}}"),
        stacked=True,
    ),
    timeseries(
        "Duration",
        "s",
        "How long consultations take.",
        "If p99 comes near the deadline, compare with Duration of calls: the source that rises with it is the cause. "
        "If none does, look at Loop lag and Queue wait.",
        *(
            Query(quantile(q, "", of("cashier_consultation_duration_seconds_bucket")), f"p{round(q * 100)}")
            for q in (0.5, 0.95, 0.99)
        ),
    ),
    timeseries(
        "Late share",
        "percentunit",
        "Share of the consultations that were answered after their deadline, by instance.",
        "0.1 % is the objective; at 1.4 % for an hour CashierDeadlineBudgetBurnsFast pages. No source can cause it, "
        "because none is waited for beyond the deadline: look at Loop lag and Queue wait.",
        Query(share("instance", LATE, CONSULTATIONS), "{{instance}}"),
        steps=((0, GREEN), (0.001, YELLOW), (0.0144, RED)),
    ),
    Panel(
        "Distribution of durations",
        "heatmap",
        "s",
        "Consultations per second by duration.",
        "Two bands: one kind of request, or one endpoint, is slower than the rest. Compare Duration by endpoint.",
        (Query(total("le", of("cashier_consultation_duration_seconds_bucket")), "{{le}}"),),
        width=12,
    ),
    timeseries(
        "Degraded answers",
        "reqps",
        "Answers per second that lack the fresh data of a source.",
        "Look at the reasons of this source's failures. marketing: payers see no discounts, but can pay.",
        Query(total("source", of_source("cashier_degraded_total")), "{{source}}"),
        width=12,
    ),
)

SOURCES = (
    timeseries(
        "Silent sources",
        "percentunit",
        "Share of the asks that got no answer from a source, neither fresh nor cached.",
        "Above 5 % of a gating source CashierGatingSourceSilent pages. Read the reason beside, and ask its team.",
        Query(share("source", SILENT, ANSWERS), "{{source}}"),
    ),
    timeseries(
        "Reasons of failures",
        "reqps",
        "Asks per second without an answer, by reason.",
        "DNS, REFUSED, TLS, CONNECT_TIMEOUT: address or network. TIMEOUT: slow. STATUS_5XX: the source's fault. "
        "FIELD, NOT_JSON: its contract has changed; the log names the field.",
        Query(total("source, reason", SILENT), "{{source}} {{reason}}"),
    ),
    timeseries(
        "Duration of calls",
        "s",
        "p99 of calls by source.",
        "The one that has risen: ask its team. Compare its endpoints to find a single sick one.",
        Query(quantile(0.99, "source", of_source("cashier_source_duration_seconds_bucket")), "{{source}}"),
    ),
    timeseries(
        "Duration by endpoint",
        "s",
        "p99 of calls by configured url.",
        "One url far above its siblings: take it out of [sources.NAME] url, or ask the source's team to.",
        Query(
            quantile(0.99, "source, endpoint", of_source("cashier_source_duration_seconds_bucket")),
            "{{source}} {{endpoint}}",
        ),
    ),
    timeseries(
        "Calls by kind",
        "reqps",
        "Calls per second to the sources: first ones, hedges, retries, late and batch calls.",
        "More hedges and retries: a source is slow or fails. They stop at their budget by themselves.",
        Query(total("source, kind", of_source("cashier_source_calls_total")), "{{source}} {{kind}}"),
    ),
    timeseries(
        "Hedges won",
        "percentunit",
        "Share of the hedges that answered before the first call.",
        "Far below a half: hedges cost calls and gain little. Raise the quantile of the hedge.",
        Query(
            f"{total('source', of_source('cashier_hedges_won_total'))} / {total('source', HEDGES)}",
            "{{source}}",
        ),
        most=1,
    ),
    Panel(
        "Breakers",
        "state-timeline",
        "none",
        "The worst breaker of each configured url, over all workers and addresses.",
        "Open: nearly all calls fail, and only probes are sent. Read Reasons of failures; the source's team must act.",
        (
            Query(
                f"max by (source, endpoint) ({of_source('cashier_breaker_state')})",
                "{{source}} {{endpoint}}",
            ),
        ),
        steps=((0, GREEN), (1, YELLOW), (2, RED)),
        names={"0": "closed", "1": "half open", "2": "open"},
    ),
    timeseries(
        "In flight",
        "none",
        "Calls that have no answer yet, by configured url.",
        "Rising while the calls per second do not: the source hangs. Its limiter bounds it.",
        Query(
            f"sum by (source, endpoint) ({of_source('cashier_in_flight')})",
            "{{source}} {{endpoint}}",
        ),
    ),
    timeseries(
        "Budget of extra calls",
        "percentunit",
        "What is left of the budget for hedges and retries.",
        "At 0 the source fails for longer than retries can bridge. Do not raise the budget: it protects the source.",
        Query(f"min by (source) ({of_source('cashier_extra_call_budget_ratio')})", "{{source}}"),
        most=1,
    ),
)

CACHES = (
    timeseries(
        "Hit ratio",
        "percentunit",
        "Share of the asks that are answered without a call of their own.",
        "A fall after a roll-out or a reload: its lifetimes, or invalidations that cover too much.",
        Query(
            share("source", of_source("cashier_cache_requests_total", 'result!~"miss|fallback"'), CACHE),
            "{{source}}",
        ),
        most=1,
    ),
    timeseries(
        "Look-ups by result",
        "reqps",
        "Asks per second. shared: found in Valkey. joined: waits for the call of another ask. fallback: an old answer "
        "in the place of a failure, counted besides.",
        "Many stale: the source does not refresh in time. fallback: it fails. Many misses: look at invalidations.",
        Query(total("source, result", of_source("cashier_cache_requests_total")), "{{source}} {{result}}"),
        stacked=True,
    ),
    timeseries(
        "Entries and evictions",
        "none",
        "Answers in the caches of all workers, and those that left for lack of room, per second.",
        "Evictions while the hit ratio falls: raise [cache] l1_entries.",
        Query(f"sum({of('cashier_cache_entries')})", "entries"),
        Query(total("", of("cashier_cache_evictions_total")), "evictions/s"),
    ),
)

METHODS_ROW = (
    timeseries(
        "Offers per consultation",
        "none",
        "Available methods of each kind in an average consultation.",
        "A fall of one kind is the failure that raises no error: a channel was closed, a contract has ended, a list "
        "has become shorter. See the reasons beside; then `cashier why` for a known payer.",
        Query(
            f"{total('kind', AVAILABLE)} / on () group_left () {total('', CONSULTATIONS)}",
            "{{kind}}",
        ),
    ),
    timeseries(
        "Refused methods",
        "reqps",
        "Methods per second that were listed as unavailable, by kind and reason.",
        "A reason that rises at once for all payers is no payer's fault: ask the team of its source.",
        Query(total("kind, reason", of("cashier_methods_total", 'availability="UNAVAILABLE"')), "{{kind}} {{reason}}"),
    ),
    timeseries(
        "Undetermined methods",
        "percentunit",
        "Share of the methods that could not be offered because a source was silent.",
        "Every per cent is turnover. See Silent sources.",
        Query(share("kind", of("cashier_methods_total", 'availability="UNDETERMINED"'), METHODS), "{{kind}}"),
    ),
)

PAYMENTS = (
    timeseries(
        "Payments by status",
        "reqps",
        "Payments per second that reached a status.",
        "FAILED rises, SUCCEEDED does not: compare the channels below, and the acquirer's own numbers.",
        Query(total("status", of("cashier_payments_total")), "{{status}}"),
    ),
    timeseries(
        "Share of successes",
        "percentunit",
        "Of the payments that ended, those that succeeded, by kind.",
        "A fall of one kind: its channel or bank. Routing moves payments away; look at Routes.",
        Query(
            share(
                "kind",
                of("cashier_payments_total", 'status="SUCCEEDED"'),
                of("cashier_payments_total", 'status=~"SUCCEEDED|FAILED|CLOSED|CLOSED_REFUNDING"'),
            ),
            "{{kind}}",
        ),
        most=1,
    ),
    timeseries(
        "Unknown payments",
        "none",
        "Payments of which neither engine nor acquirer says how they ended.",
        "Rising: engine or acquirer does not answer. Each settles by a look-up; never submit one again by hand.",
        Query(f"sum({of('cashier_payments_unknown')})", "unknown"),
    ),
    timeseries(
        "Age of the oldest unknown payment",
        "s",
        "How long the oldest of them has been unknown.",
        "Above ten minutes CashierPaymentOutcomeUnknown pages: look the id up at the engine.",
        Query(f"max by (instance) ({of('cashier_payment_unknown_oldest_seconds')})", "{{instance}}"),
        steps=((0, GREEN), (120, YELLOW), (600, RED)),
    ),
    timeseries(
        "Routes",
        "reqps",
        "Payments per second by the rule that chose their channel.",
        "A shift: a channel has become unhealthy, or the rules have changed. Compare with the last reload.",
        Query(total("rule, channel", of("cashier_route_total")), "{{rule}} {{channel}}"),
        stacked=True,
    ),
    timeseries(
        "Corrections by the acquirer",
        "none",
        "Final statuses that the acquirer has corrected, per hour.",
        "Each was a payer who saw a wrong end. The log has both; find out which of engine and acquirer was late.",
        Query(f"sum(increase({of('cashier_payment_corrections_total')}[1h]))", "corrections"),
    ),
)

HTTP = (
    timeseries(
        "Requests by endpoint",
        "reqps",
        "Requests per second by the path of their endpoint.",
        "A sudden change of one path: a caller has changed, or lost its way. other: nothing is at that path.",
        Query(total("path", REQUESTS), "{{path}}"),
        stacked=True,
    ),
    timeseries(
        "Requests that failed",
        "reqps",
        "Requests per second without a good answer, by path and class of the status; none: the caller left first.",
        "5xx: see Problems for the code. 4xx of one path: its caller is at fault. none: callers do not wait as long as "
        "answers take; compare their timeouts with Duration.",
        Query(total("path, status", of("cashier_http_requests_total", 'status!="2xx"')), "{{path}} {{status}}"),
    ),
    timeseries(
        "Problems",
        "reqps",
        "Problems per second in answers, by code.",
        "INTERNAL: a bug, search the log. OVERLOADED: see Refused. UNAUTHENTICATED, TOKEN_EXPIRED: keys or clocks. The "
        "README of the API says for each code what the caller does.",
        Query(total("code", of("cashier_http_problems_total")), "{{code}}"),
    ),
    timeseries(
        "Client connections",
        "none",
        "Open connections of clients.",
        "Near [server] max_connections times the workers: idle ones are closed, then new ones are refused. Let callers "
        "reuse connections, or raise the bound.",
        Query(f"sum by (instance) ({of('cashier_http_connections')})", "{{instance}}"),
    ),
    timeseries(
        "Submits that failed",
        "percentunit",
        "Share of the submits of payments that were answered with 5xx, by the path of the API, a page or a till.",
        "Above 1 % CashierPaymentsFail pages. See Problems for the code, then Silent sources: risk, the engine or a "
        "source of the recheck.",
        Query(share("path", SUBMITS_FAILED, SUBMITS), "{{path}}"),
    ),
    timeseries(
        "Internal errors",
        "none",
        "Requests and consultations that ended with an internal error in the last 15 minutes, by instance.",
        "Each is a bug: the log of the instance has its traceback, and its request_id leads to the request. "
        "CashierBugs is its ticket.",
        Query(
            f"sum by (instance) (increase({of('cashier_http_problems_total', INTERNAL)}[15m]))",
            "{{instance}} responses",
        ),
        Query(
            f"sum by (instance) (increase({of('cashier_consultation_duration_seconds_count', ERROR)}[15m]))",
            "{{instance}} consultations",
        ),
    ),
)

RUNTIME = (
    timeseries(
        "Loop lag",
        "s",
        "p95 of the time by which the event loop runs late.",
        "Above 5 ms optional work is left out, above 20 ms callers are refused. Add workers, or find what blocks.",
        Query(quantile(0.95, "instance", of("cashier_loop_lag_seconds_bucket")), "{{instance}}"),
        steps=((0, GREEN), (0.005, YELLOW), (0.02, RED)),
    ),
    timeseries(
        "Queue wait",
        "s",
        "p99 of the time that those consultations waited that had to.",
        "It is part of the deadline. Above a few ms: bursts that the workers cannot take. Add workers.",
        Query(quantile(0.99, "instance", of("cashier_queue_wait_seconds_bucket")), "{{instance}}"),
    ),
    timeseries(
        "Refused",
        "reqps",
        "Callers per second that were refused for overload, by priority.",
        "Any of priority high or critical: add workers now. Only low: look for the caller that sends so many.",
        Query(total("priority", of("cashier_shed_total", 'step=~"refused|queue"')), "{{priority}}"),
    ),
    timeseries(
        "Left out under load",
        "reqps",
        "Calls to enriching sources that were not made, and old answers that were served without a refresh.",
        "It goes before callers are refused. For longer than a few minutes: add workers.",
        Query(total("step", of("cashier_shed_total", 'step=~"dimmed|stale"')), "{{step}}"),
    ),
    timeseries(
        "Workers",
        "none",
        "Workers that run, and that have ended in the last hour.",
        "Ended ones were replaced; the log has the exit code. SIGKILL: the kernel's memory killer; look at the limit "
        "of the machine or the pod.",
        Query(f"sum by (instance) ({of('cashier_workers')})", "{{instance}} run"),
        Query(f"sum by (instance) (increase({of('cashier_worker_ends_total')}[1h]))", "{{instance}} ended"),
    ),
    timeseries(
        "Reloads",
        "none",
        "Reloads of the configuration in the last five minutes, by result and over all workers.",
        "refused, error: the last good configuration is in use, and a restart would fail. Run `cashier check`. "
        "partial: the log names what takes a restart.",
        Query(
            f"sum by (instance, result) (increase({of('cashier_config_reload_total')}[5m]))", "{{instance}} {{result}}"
        ),
    ),
    timeseries(
        "Versions",
        "none",
        "Instances by version.",
        "Two versions for longer than a roll-out takes: it is stuck.",
        Query(f"count by (version) ({of('cashier_build_info')})", "{{version}}"),
        stacked=True,
    ),
)

ROWS = (
    ("Now", NOW),
    ("Deadline and outcomes", DEADLINE),
    ("Sources", SOURCES),
    ("Caches", CACHES),
    ("Methods", METHODS_ROW),
    ("Payments", PAYMENTS),
    ("HTTP", HTTP),
    ("Runtime", RUNTIME),
)
