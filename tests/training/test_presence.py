from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.training import small_cache
from training.errors import TrainingError
from training.learning.model import new_model
from training.presence import Presence, measure


def presence(scores: list[float], there: list[bool]) -> Presence:
    return Presence(np.array(scores), np.array(there))


def test_the_auc_counts_pairs_in_the_right_order() -> None:
    assert presence([3, 2, 1, 0], [True, True, False, False]).auc() == 1
    assert presence([3, 2, 1, 0], [False, False, True, True]).auc() == 0
    assert presence([3, 1, 2, 0], [True, True, False, False]).auc() == 0.75
    assert presence([0, 1, 1], [False, False, True]).auc() == 0.75  # equal scores count half


def test_without_a_pair_there_is_no_auc() -> None:
    with pytest.raises(TrainingError, match="frames without it"):
        presence([1, 2], [True, True]).auc()


@pytest.mark.slow
def test_clips_have_frames_of_both_kinds(tmp_path: Path) -> None:
    cache = small_cache(tmp_path, images=True)
    found = measure(new_model("masklet-nano.yaml", 64, 0).eval(), cache, size=64, clips=6)
    assert found.scores.shape == found.there.shape == (6 * 7,)
    assert 0 < found.there.mean() < 1
    assert 0 <= found.auc() <= 1
