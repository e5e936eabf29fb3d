"""Which addresses belong to the public internet."""

from __future__ import annotations

import pytest

from masklet_server.fetching.addresses import is_public


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("::ffff:8.8.8.8", True),
        ("224.0.0.1", False),
        ("ff0e::1", False),
        ("255.255.255.255", False),
        ("::7f00:1", False),
        ("2002:7f00:1::", False),
        ("2001:0:7f00:1::", False),
        ("fe80::1%eth0", False),
        ("nonsense", False),
    ],
)
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(address) is public
