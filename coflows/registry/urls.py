"""URLs of services: their one form, and which addresses may be dialled."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from typing import NamedTuple
from urllib.parse import urlsplit

from coflows.errors import NameInvalidError

MAX_URL = 500
LOOPBACK, PRIVATE = "loopback", "private"
REACHES = (LOOPBACK, PRIVATE)
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_PORTS = {"http": 80, "https": 443}
_SHARED = ipaddress.ip_network("100.64.0.0/10")


class Place(NamedTuple):
    """What of a URL says where to dial. ``url`` has no slash at its end."""

    url: str
    scheme: str
    host: str
    port: int


def check_url(url: object) -> Place:
    """A service's URL in its one form. Raises NameInvalidError unless it is http(s)://host[:port][/path]."""
    hint = "Expected http://host:port or https://host."
    if not isinstance(url, str) or not url or len(url) > MAX_URL or any(ord(sign) <= 32 for sign in url):
        raise NameInvalidError(f"{str(url)[:80]!r} is no URL of a service.", hint=hint)
    try:
        parts = urlsplit(url)
        port, host = parts.port, (parts.hostname or "").encode("idna" if not url.isascii() else "ascii").decode()
    except ValueError as error:
        raise NameInvalidError(f"{url[:80]!r} is no URL of a service.", hint=hint) from error
    if parts.scheme not in _PORTS or not host or "@" in parts.netloc or parts.query or parts.fragment or "\\" in url:
        raise NameInvalidError(f"{url[:80]!r} is no URL of a service.", hint=hint)
    shown = f"[{host}]" if ":" in host else host
    port = _PORTS[parts.scheme] if port is None else port
    place = shown if port == _PORTS[parts.scheme] else f"{shown}:{port}"
    return Place(f"{parts.scheme}://{place}{parts.path.rstrip('/')}", parts.scheme, host, port)


def is_loopback(host: str) -> bool:
    """Whether the host of a URL, without looking it up, is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def may_dial(address: Address, reach: Collection[str]) -> bool:
    """Whether an address may be connected to: public ones always; this machine and private networks when ``reach`` has
    "loopback" and "private"; link-local ones (where clouds keep their secrets), multicast and reserved ones never."""
    mapped = getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None)
    if mapped is not None:
        return may_dial(mapped, reach)
    if address.is_loopback:
        return LOOPBACK in reach
    if address.is_link_local or address.is_multicast or address.is_unspecified or address.is_reserved:
        return False
    if isinstance(address, ipaddress.IPv4Address) and address in _SHARED:
        return PRIVATE in reach and str(address) != "100.100.100.200"
    if address == ipaddress.ip_address("fd00:ec2::254"):
        return False
    if not address.is_global:
        return address.is_private and PRIVATE in reach
    # Ways around by translation: 64:ff9b::/96 leads to IPv4 addresses.
    if isinstance(address, ipaddress.IPv6Address) and address in ipaddress.ip_network("64:ff9b::/96"):
        return may_dial(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF), reach)
    return True
