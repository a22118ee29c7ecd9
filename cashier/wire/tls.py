"""Verified TLS towards upstreams: trusted authorities and the client certificate.

Verification cannot be switched off.
"""

from __future__ import annotations

import ssl


def client_tls(ca_file: str | None, cert_file: str | None, key_file: str | None) -> ssl.SSLContext:
    """A context that presents the client certificate, if there is one.

    It trusts `ca_file` alone, or the system's authorities without one. ValueError names the file
    that cannot be used.
    """
    if key_file is not None and cert_file is None:
        raise ValueError(f"client key {key_file!r} without a client certificate")
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise ValueError(f"CA file {ca_file!r}: {error.strerror or error}") from error
    if cert_file is not None:
        try:
            context.load_cert_chain(cert_file, key_file)
        except OSError as error:
            raise ValueError(
                f"client certificate {cert_file!r} with key {key_file!r}: {error.strerror or error}"
            ) from error
    context.set_alpn_protocols(["http/1.1"])
    return context
