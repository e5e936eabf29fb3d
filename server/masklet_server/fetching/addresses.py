"""Which addresses the server may connect to."""

from __future__ import annotations

import ipaddress
import socket

from masklet_server.fetching.rules import FetchRules, url_refused

# Addresses in these ranges stand for an IPv4 address, which may be a private one: NAT64, 6to4, Teredo.
_EMBEDDING = tuple(ipaddress.IPv6Network(net) for net in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32"))


def resolve(host: str, port: int, rules: FetchRules) -> list[str]:
    """All addresses of a host; the server may connect to each of them.

    Raises:
        InvalidArgument: One of them is not public, and the rules do not name the host itself.
        OSError: The host has no address.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if not rules.names(host) and not all(is_public(address) for address in addresses):
        raise url_refused(
            f"leads to an address that is not public ({host}); the server's operator can allow that host by its name"
        )
    return addresses


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet, and does not contain another address that may not."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        elif any(ip in network for network in _EMBEDDING) or int(ip) < 2**32:
            return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved
