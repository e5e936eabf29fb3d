"""Whatever the bytes, a parser of bytes from outside raises nothing but what it says: seeds, and Hypothesis."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.hostile.parsers import PARSERS, SEEDS


@pytest.mark.parametrize(("name", "seed"), [(name, seed) for name, seeds in SEEDS.items() for seed in seeds])
def test_what_was_worth_trying_before(name: str, seed: bytes) -> None:
    PARSERS[name](seed)


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=150)
@given(data=st.data())
def test_any_bytes(name: str, data: st.DataObject) -> None:
    seed = data.draw(st.sampled_from(SEEDS[name]))
    at = data.draw(st.integers(0, len(seed)))
    PARSERS[name](seed[:at] + data.draw(st.binary(max_size=200)) + seed[at:])
