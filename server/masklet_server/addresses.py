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


def split_address(address: str) -> tuple[str, int] | None:
    """Host (without brackets) and port of HOST:PORT; None where the address has another form."""
    match = re.fullmatch(r"(?:\[([^\]]+)\]|([^\[\]:]+)):(\d{1,5})", address)
    if match is None or int(match[3]) > 65535:
        return None
    return match[1] or match[2], int(match[3])
