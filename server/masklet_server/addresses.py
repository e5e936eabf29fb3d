"""Network addresses as settings have them."""

from __future__ import annotations

import ipaddress
import re


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach the address. Names other than localhost count as reachable from others."""
    parts = split_address(address)
    if parts is None:
        return address.startswith("unix")
    host = parts[0]
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def network_of(host: str, ipv6_prefix: int) -> str:
    """The name of the network that counts as one client: of IPv4 the address, of IPv6 its first bits.

    Whoever has one address of IPv6 has as many as they like: providers give each customer at least 64 bits of them.

    Args:
        host: An address, or what is no address, which stays as it is.
        ipv6_prefix: Bits of an IPv6 address that belong to the network; 128: each address is a client.

    Returns:
        Such as "192.0.2.7" or "2001:db8:1:2::/64".
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    if address.is_loopback or ipv6_prefix == 128:
        return str(address)
    return str(ipaddress.IPv6Network((address, ipv6_prefix), strict=False))


def split_address(address: str) -> tuple[str, int] | None:
    """Host (without brackets) and port of HOST:PORT; None where the address has another form."""
    match = re.fullmatch(r"(?:\[([^\]]+)\]|([^\[\]:]+)):(\d{1,5})", address)
    if match is None or int(match[3]) > 65535:
        return None
    return match[1] or match[2], int(match[3])
