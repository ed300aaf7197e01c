"""What of an ``amqps://`` URL says whom to trust and as whom to be known: the parameters of RabbitMQ's own URLs."""

from __future__ import annotations

import re
import ssl
from urllib.parse import parse_qsl, urlencode, urlsplit

import pika

from coflows.errors import BrokerAuthError, ConfigurationError

CA, CERTIFICATE, KEY = "cacertfile", "certfile", "keyfile"


def split_tls(url: str) -> tuple[str, pika.SSLOptions | None]:
    """The URL as pika reads it, and the TLS options that it had; None where it had none. ``cacertfile``: whose
    certificates are trusted instead of the system's. ``certfile`` and ``keyfile``: the client's own. The server's
    certificate is always checked, and that it is its host's. Raises ConfigurationError for files that cannot be used,
    and ValueError for what is no URL."""
    parts = urlsplit(url)
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    files = {name: value for name, value in pairs if name in (CA, CERTIFICATE, KEY)}
    if not files:
        return url, None
    if parts.scheme != "amqps":
        raise ConfigurationError(f"The broker URL has {', '.join(files)} but no TLS.", hint="Write amqps://.")
    try:
        context = ssl.create_default_context(cafile=files.get(CA))
        if CERTIFICATE in files:
            # With a passphrase a key would have to be asked for, at a terminal that may not be there.
            context.load_cert_chain(files[CERTIFICATE], files.get(KEY), password=lambda: "")
    except OSError as error:  # ssl.SSLError is one.
        raise ConfigurationError(
            f"The files that the broker URL names for TLS cannot be used: {error.strerror or error}.",
            hint="cacertfile, certfile and keyfile are PEM files; the key has no passphrase.",
        ) from error
    rest = urlencode([(name, value) for name, value in pairs if name not in files])
    options = pika.SSLOptions(context, server_hostname=parts.hostname)
    return parts._replace(query=rest).geturl(), options


def tls_problem(url: str, error: str) -> BrokerAuthError | None:
    """What an error of the connection says of certificates, by its text (pure); None when nothing."""
    if "CERTIFICATE_VERIFY_FAILED" in error:
        why = error.partition("verify failed: ")[2].partition(" (_ssl")[0]
        return BrokerAuthError(
            f"The server at {url} does not prove that it is the one ({why}); it was told no password.",
            hint="?cacertfile=FILE in the broker URL names whose certificates are trusted; the host must be as in it.",
        )
    if re.search("ALERT_[A-Z_]*(CERTIFICATE|UNKNOWN_CA)", error):
        return BrokerAuthError(
            f"RabbitMQ at {url} wants a certificate of its clients, and not the one that it was shown, if it was.",
            hint="?certfile=FILE&keyfile=FILE in the broker URL name certificate and key.",
        )
    return None
