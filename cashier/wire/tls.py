"""Verified TLS towards upstreams: trusted authorities and the client certificate.

Verification cannot be switched off.
"""

from __future__ import annotations

import ssl

from cashier.wire.file_watch import FileWatch


class ClientTls:
    """`context`: for the next connection. It follows its files; open connections keep theirs.

    ValueError names the file that cannot be used. A pair of certificate and key that do not belong
    together, as between the two steps of a rotation, changes nothing.
    """

    def __init__(
        self, ca_file: str | None, cert_file: str | None, key_file: str | None, files: FileWatch | None = None
    ) -> None:
        """Without `files` it does not follow them."""
        self._files = (ca_file, cert_file, key_file)
        self.context: ssl.SSLContext
        paths = [file for file in self._files if file is not None]
        if files is not None and paths:
            files.watch(paths, self._load)
        else:
            self._load()

    def _load(self) -> None:
        self.context = client_tls(*self._files)


def client_tls(ca_file: str | None, cert_file: str | None, key_file: str | None) -> ssl.SSLContext:
    """A context that presents the client certificate, if there is one.

    It trusts `ca_file` alone, or the system's authorities without one. ValueError names the file
    that cannot be used.
    """
    if key_file is not None and cert_file is None:
        raise ValueError(f"client_key_file {key_file!r} without client_cert_file")
    if ca_file == "":  # of a variable without a value; the system's authorities would be trusted
        raise ValueError("ca_file '': it names no file; leave the key out to trust the system's authorities")
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise ValueError(f"ca_file {ca_file!r}: {error.strerror or error}") from error
    if cert_file is not None:
        try:
            # Without a password it would ask for one at the terminal.
            context.load_cert_chain(cert_file, key_file, password="")
        except OSError as error:
            pair = f"{cert_file!r}" if key_file is None else f"{cert_file!r} with client_key_file {key_file!r}"
            raise ValueError(f"client_cert_file {pair}: {error.strerror or error}") from error
    context.set_alpn_protocols(["http/1.1"])
    return context
