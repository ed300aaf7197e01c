"""URLs of services: their one form, and which addresses may be dialled."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import urlsplit

from coflows.errors import NameInvalidError

MAX_URL = 500
LOOPBACK, PRIVATE = "loopback", "private"
REACHES = (LOOPBACK, PRIVATE)
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9.])?")
_PATH = re.compile(r"(/[A-Za-z0-9._~%+-]+)*/*")
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")
"""Leads to IPv4 addresses, where there is no way but by IPv6."""
_SECRETS = frozenset(map(ipaddress.ip_address, ("fd00:ec2::254", "100.100.100.200", "192.0.0.192", "168.63.129.16")))
"""Where clouds answer their machines, besides at link-local addresses."""

_SHARED = ipaddress.ip_network("100.64.0.0/10")


class Place(NamedTuple):
    """What of a URL says where to dial. ``url`` has no slash at its end."""

    url: str
    scheme: str
    host: str
    port: int


def check_url(url: object) -> Place:
    """A service's URL in its one form. Raises NameInvalidError unless it is http(s)://host[:port][/path]."""
    if isinstance(url, str) and 0 < len(url) <= MAX_URL and not any(ord(sign) <= 32 or sign in "\\@" for sign in url):
        with suppress(ValueError):
            return _place(url)
    raise NameInvalidError(
        f"{str(url)[:80]!r} is no URL of a service.", hint="Expected http://host:port or https://host."
    )


def _place(url: str) -> Place:
    """Raises ValueError, and so does all that reads parts of a URL."""
    parts = urlsplit(url)
    port, host = parts.port, (parts.hostname or "").encode("ascii" if url.isascii() else "idna").decode()
    if parts.scheme not in _PORTS or parts.query or parts.fragment or not _PATH.fullmatch(parts.path):
        raise ValueError(url)
    if not (_is_ipv6(host) if ":" in host else _HOST.fullmatch(host)):
        raise ValueError(url)
    shown = f"[{host}]" if ":" in host else host
    port = _PORTS[parts.scheme] if port is None else port
    place = shown if port == _PORTS[parts.scheme] else f"{shown}:{port}"
    return Place(f"{parts.scheme}://{place}{parts.path.rstrip('/')}", parts.scheme, host, port)


def _is_ipv6(host: str) -> bool:
    try:
        return ipaddress.IPv6Address(host).scope_id is None
    except ValueError:
        return False


def is_address(host: str) -> bool:
    """Whether the host of a URL is an address rather than a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def may_dial(address: Address, reach: Collection[str]) -> bool:
    """Whether an address may be connected to: public ones always; this machine and private networks when ``reach`` has
    "loopback" and "private"; link-local ones (where clouds keep their secrets), multicast and reserved ones never."""
    if isinstance(address, ipaddress.IPv6Address):
        translated = address.ipv4_mapped or address.sixtofour
        if address in _TRANSLATED:
            translated = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if translated is not None:
            return may_dial(translated, reach)
    if address.is_loopback:
        return LOOPBACK in reach
    if address.is_link_local or address.is_multicast or address.is_unspecified or address.is_reserved:
        return False
    if isinstance(address, ipaddress.IPv4Address) and address in _SHARED:
        return PRIVATE in reach and address not in _SECRETS
    if address in _SECRETS:
        return False
    if not address.is_global:
        return address.is_private and PRIVATE in reach
    return True
