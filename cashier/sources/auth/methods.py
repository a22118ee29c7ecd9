"""The authenticators of a configuration. Sources with equal settings share one, and its token."""

from __future__ import annotations

from functools import partial
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from cashier.sources.auth.alipay_gateway import AlipayGateway
from cashier.sources.auth.authenticator import Authenticator
from cashier.sources.auth.bearer import BearerToken, authorization
from cashier.sources.auth.client_credentials import ClientCredentials
from cashier.sources.auth.message_signature import MessageSignature, secret_bytes
from cashier.sources.auth.rsa_keys import private_key, public_key
from cashier.sources.auth.secret import Secret
from cashier.sources.auth.settings import ClientCredentialsSettings, UpstreamAuthSettings
from cashier.sources.auth.wechat_pay import WechatPay
from cashier.wire.file_watch import FileWatch
from cashier.wire.http1 import Http1Client, Http1Settings
from cashier.wire.resolver import Resolver


class AuthMethods:
    """`token_fetchers`: to be opened and closed."""

    def __init__(self, files: FileWatch, resolver: Resolver) -> None:
        self._files = files
        self._resolver = resolver
        self._made: dict[tuple[str, str], Authenticator] = {}
        self.token_fetchers: list[ClientCredentials] = []

    def of(self, settings: UpstreamAuthSettings, prefix: str) -> Authenticator:
        """ValueError names the key that is wrong. `prefix`: of the paths of the source's url."""
        signs_path = settings.hmac is not None or settings.wechat_pay is not None
        key = (repr(settings), prefix if signs_path else "")
        if key not in self._made:
            self._made[key] = self._make(settings, prefix)
        return self._made[key]

    def _make(self, settings: UpstreamAuthSettings, prefix: str) -> Authenticator:
        files = self._files
        if (bearer := settings.bearer) is not None:
            return BearerToken(Secret("auth.bearer.token", bearer.token_file, bearer.token_env, authorization, files))
        if settings.oauth2 is not None:
            return self._client_credentials(settings.oauth2)
        if (hmac := settings.hmac) is not None:
            convert = partial(secret_bytes, encoding=hmac.encoding)
            secret = Secret("auth.hmac.secret", hmac.secret_file, hmac.secret_env, convert, files)
            return MessageSignature(hmac.key_id, secret, prefix)
        if (rsa2 := settings.rsa2) is not None:
            key = Secret("auth.rsa2.private_key", rsa2.private_key_file, rsa2.private_key_env, private_key, files)
            gateway_key = Secret("auth.rsa2.alipay_public_key", rsa2.alipay_public_key_file, None, public_key, files)
            _refuse_own(gateway_key, key, "auth.rsa2.alipay_public_key_file", "Alipay's")
            return AlipayGateway(rsa2.app_id, key, gateway_key)
        wechat = settings.wechat_pay
        assert wechat is not None, "upstream_auth_faults lets no empty table pass"  # noqa: S101
        key = Secret("auth.wechat_pay.private_key", wechat.private_key_file, wechat.private_key_env, private_key, files)
        platform_keys = {
            serial: Secret(f"auth.wechat_pay.platform_keys.{serial}", file, None, public_key, files)
            for serial, file in wechat.platform_keys.items()
        }
        for serial, platform_key in platform_keys.items():
            _refuse_own(platform_key, key, f"auth.wechat_pay.platform_keys.{serial}", "WeChat Pay's")
        return WechatPay(wechat.mchid, wechat.serial_no, key, platform_keys, prefix)

    def _client_credentials(self, settings: ClientCredentialsSettings) -> ClientCredentials:
        file, variable = settings.client_secret_file, settings.client_secret_env
        secret = Secret("auth.oauth2.client_secret", file, variable, bytes, self._files)
        parts = urlsplit(settings.token_url)
        endpoint = Http1Client(
            [f"{parts.scheme}://{parts.netloc}"],
            Http1Settings(connections=1, ahead=0, ca_file=settings.ca_file),
            self._resolver,
            files=self._files,
        )
        fetcher = ClientCredentials(settings, secret, endpoint)
        self.token_fetchers.append(fetcher)
        return fetcher


def _refuse_own(theirs: Secret[RSAPublicKey], own: Secret[RSAPrivateKey], key: str, whose: str) -> None:
    """Raise ValueError if the key of the other side is our own, which is a frequent mistake."""
    if theirs.value.public_numbers() == own.value.public_key().public_numbers():
        raise ValueError(f"{key} is the public half of private_key: it needs {whose} key, which verifies answers")
