"""The settings as operators see them: by an allow-list, so that a new key is hidden until it is
listed here.

Values are JSON texts. Of a hidden key only that it is set is shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from cashier.fanout.l2.valkey_url import parse_valkey_url
from cashier.settings.schema import Settings

HIDDEN = "hidden"
_TRANSPORT = (
    "connections", "queue", "connect_timeout_ms", "idle_s", "resolve_s", "max_age_s", "max_head_bytes",
    "max_headers", "max_body_bytes", "ca_file", "client_cert_file", "client_key_file",
)  # fmt: skip
# `*` stands for the name of a source, a service or a merchant.
_BY_SECTION: Mapping[str, tuple[str, ...]] = {
    "server": (
        "host", "port", "workers", "ready_wait_s", "shutdown_delay_s", "drain_s", "keep_alive_s", "backlog",
        "max_connections",
    ),
    "auth": (
        "mode", "issuer", "audience", "jwks_file", "scope", "leeway_s", "user_claim", "order_claim", "merchant_claim",
        "insecure",
    ),
    "operations": ("enabled", "host", "port", "hosts", "sandbox"),
    "pages": ("enabled", "public_url", "trusted_proxies", "session_s", "first_answer_ms", "developer"),
    "pages.brand": ("name", "color", "logo"),
    "pages.links": ("top_up", "bind_card", "update_card"),
    "pages.codes.*": ("name", "currency"),
    "telemetry": (
        "sample_bps", "slow_bps", "records_per_second", "lines_per_second", "otlp_url", "service_name",
        "payment_sample_bps", "log_level", "access_log",
    ),
    "consult": ("deadline_ms", "max_deadline_ms", "grace_ms", "reserve_ms", "locale", "extra_calls_bps"),
    "accept": (
        "check_ms", "decide_ms", "submit_ms", "look_ms", "every_gating_source", "wait_ms", "follow_s",
        "most_challenges", "most_under_way", "most_waiting", "most_in_background",
    ),
    "cache": ("l1_entries", "shared"),
    "shed": ("enabled", "dim_lag_ms", "refuse_lag_ms"),
    "limits": ("user_rate", "merchant_rate", "burst_s"),
    "tokens": ("ttl_s",),
    "merchants.*": ("origins",),
    "sources.*": (
        "url", "timeout_ms", "transport", "adapter", "adaptive_timeout", "retry", "late", "seals", "cache", "hedge",
        "breaker", "limiter", "batch",
    ),
    # Not the names of variables: a secret may stand there by mistake.
    "sources.*.auth.bearer": ("token_file",),
    "sources.*.auth.oauth2": ("client_id", "client_secret_file", "scope", "audience", "client_auth", "ca_file"),
    "sources.*.auth.hmac": ("key_id", "secret_file", "encoding"),
    "sources.*.auth.rsa2": ("app_id", "alipay_public_key_file", "private_key_file"),
    "sources.*.auth.wechat_pay": ("mchid", "serial_no", "platform_keys", "private_key_file"),
    "sources.*.cache": ("fresh_s", "stale_s", "error_s", "negative_s"),
    "sources.*.hedge": ("quantile_bps", "least_ms"),
    "sources.*.breaker": ("calls", "failed_bps", "open_s", "open_max_s"),
    "sources.*.limiter": ("start", "least", "most"),
    "sources.*.batch": ("path", "max", "wait_ms"),
    "sources.*.discover": ("dns", "srv", "file", "http", "format", "interval_s", "nameserver", "token_file", "ca_file"),
    "sources.*.tries": ("attempts", "attempt_ms", "first_wait_ms", "longest_wait_ms"),
    "sources.*.http1": (*_TRANSPORT, "ahead"),
    "sources.*.aiohttp": (*_TRANSPORT, "trust_env"),
}  # fmt: skip
SHOWN = frozenset(f"{section}.{key}" for section, keys in _BY_SECTION.items() for key in keys)


def shown_settings(settings: Settings) -> dict[str, str]:
    """The settings in effect by `section.key`, in the order of the schema. Unset ones are left out.

    The user and password of the shared cache's URL are left out.
    """
    return dict(_shown("", "", settings))


def _shown(key: str, pattern: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            # Below `sources` the fields are names of sources.
            below = "*" if key == "sources" else name
            yield from _shown(_joined(key, name), _joined(pattern, below), getattr(value, name))
    elif key in ("merchants", "pages.codes"):
        for name, of_merchant in value.items():
            yield from _shown(f"{key}.{name}", f"{pattern}.*", of_merchant)
    elif value is not None:
        yield key, _text(pattern, value)


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _text(pattern: str, value: Any) -> str:
    if pattern not in SHOWN:
        return HIDDEN if value else "not set"
    if pattern == "sources.*.discover.http":
        value = value.partition("?")[0].rpartition("@")[2]  # a query may hold a token
    if pattern == "cache.shared" and value:
        try:
            value = repr(parse_valkey_url(value))
        except ValueError:
            return HIDDEN  # a reload does not use it, and a wrong one may hold a password anywhere
    return msgspec.json.encode(value).decode()
