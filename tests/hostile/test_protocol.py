"""Sequences of messages, most of them wrong: each ends in a status that is no bug's, and leaves nothing behind.

``MASKLET_HOSTILE_SEQUENCES=20000 scripts/test tests/hostile/test_protocol.py`` tries more of them. The same sequences
come in each run of the same number; a failure prints the one that failed.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.hostile.messages import PICTURE_REQUESTS, SEQUENCES, STREAMS, Attack
from tests.hostile.stage import Stage, nothing_is_left

pytestmark = pytest.mark.slow

# A session of these ends soon when nothing more comes.
QUICK = {"idle_timeout_seconds": 2, "annotation_idle_timeout_seconds": 2, "max_sessions": 0}
FUZZ = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    "suppress_health_check": list(HealthCheck),
    "phases": (Phase.explicit, Phase.generate),
}


@pytest.fixture(scope="module")
def quick_stage() -> Iterator[Stage]:
    stage = Stage(real_video=False, **QUICK)
    yield stage
    stage.close()


@pytest.fixture(scope="module")
def real_stage() -> Iterator[Stage]:
    stage = Stage(real_video=True, **QUICK)
    yield stage
    stage.close()


@pytest.mark.timeout(0)
def test_streams(quick_stage: Stage) -> None:
    @settings(max_examples=SEQUENCES, **FUZZ)  # type: ignore[arg-type]
    @given(attack=STREAMS)
    def fuzz(attack: Attack) -> None:
        quick_stage.stream(attack)

    with nothing_is_left(quick_stage):
        fuzz()
    assert quick_stage.codes["OK"] > SEQUENCES // 50, "some do what is right, or nothing deep is reached"
    assert len(quick_stage.codes) > 4, quick_stage.codes


@pytest.mark.timeout(0)
def test_streams_with_real_decoders(real_stage: Stage) -> None:
    @settings(max_examples=SEQUENCES // 20, **FUZZ)  # type: ignore[arg-type]
    @given(attack=STREAMS)
    def fuzz(attack: Attack) -> None:
        real_stage.stream(attack)

    with nothing_is_left(real_stage):
        fuzz()


@pytest.mark.timeout(0)
def test_picture_requests(real_stage: Stage) -> None:
    @settings(max_examples=SEQUENCES // 5, **FUZZ)  # type: ignore[arg-type]
    @given(message=PICTURE_REQUESTS)
    def fuzz(message: bytes) -> None:
        real_stage.request(message)

    with nothing_is_left(real_stage):
        fuzz()
