"""Where a service listens, and whether it may there: beyond this machine with TLS, or when it is told to go without."""

from __future__ import annotations

import ssl
from typing import NamedTuple

from coflows.errors import ConfigurationError
from coflows.model.hosts import is_loopback
from coflows.registry.options import Options
from coflows.registry.urls import check_url


class Listening(NamedTuple):
    """``tls``: certificate and key, when it speaks TLS itself."""

    host: str
    port: int
    tls: tuple[str, str | None] | None


def where_to_listen(options: Options) -> Listening:
    """Read from the options (pure, but for the certificate, which is looked at). Who changes something signs for it in
    any case; TLS is for what is read. Raises ConfigurationError."""
    place = check_url(options.url)
    host, port = place.host, place.port
    if options.listen:
        host, _, text = options.listen.rpartition(":")
        if not text.isdigit() or int(text) > 65535:
            raise ConfigurationError(f"Cannot listen at {options.listen!r}.", hint="Write HOST:PORT.")
        host, port = host.strip("[]"), int(text)
    tls = _checked(options)
    if tls is not None and place.scheme != "https":
        raise ConfigurationError(f"{options.url} is no https URL, but there is a certificate.")
    if tls is None and place.scheme == "https" and options.listen is None:
        raise ConfigurationError(
            f"{options.url} is to be served without a certificate.",
            hint="Give tls_certificate and tls_key, or listen HOST:PORT behind a proxy that has one.",
        )
    if tls is None and not is_loopback(host) and not options.allow_plaintext:
        raise ConfigurationError(
            f"The service would be open to other machines at {host}:{port} without TLS.",
            hint="Give tls_certificate and tls_key and an https URL; or listen at 127.0.0.1 behind a proxy; or, where "
            "nobody is on the wire, --allow-plaintext (allow_plaintext=True).",
        )
    # Also on Windows and macOS, "localhost" is the address that peers of this machine dial.
    return Listening("127.0.0.1" if host == "localhost" else host, port, tls)


def _checked(options: Options) -> tuple[str, str | None] | None:
    if options.tls_certificate is None:
        return None
    certificate, key = str(options.tls_certificate), None if options.tls_key is None else str(options.tls_key)
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key, password=lambda: "")
    except OSError as error:  # ssl.SSLError is one.
        raise ConfigurationError(
            f"The certificate {certificate} and its key cannot be used: {error.strerror or error}.",
            hint="They are PEM files; the key has no passphrase.",
        ) from error
    return certificate, key
