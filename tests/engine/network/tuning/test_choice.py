"""Choices are kept on disk, for the circumstances in which they were measured."""

from __future__ import annotations

import copy
import logging
from pathlib import Path

import pytest

from masklet_server.engine.network.tuning.choice import Choice, Circumstances, StoredChoices, fingerprint
from masklet_server.models.build import build_model
from masklet_server.models.registry import Registry

HERE = Circumstances(device="Card 1", driver="580.1", torch="2.13", masklet="1", model="abc", dtype="auto")
CHOICE = Choice("float16", {"4096 x 4096, 256 -> 256": "cudnn"}, graphs=True, pictures=2, buckets=(1, 2, 4))


def test_a_choice_is_found_again(tmp_path: Path) -> None:
    stored = StoredChoices(tmp_path / "new" / "tuning")
    assert stored.get(HERE) is None
    assert list(stored) == []

    stored.put(HERE, CHOICE)

    assert StoredChoices(tmp_path / "new" / "tuning").get(HERE) == CHOICE
    assert list(stored) == [(HERE, CHOICE)]


@pytest.mark.parametrize("name", list(Circumstances.model_fields))
def test_other_circumstances_are_measured_again(tmp_path: Path, name: str) -> None:
    stored = StoredChoices(tmp_path)
    stored.put(HERE, CHOICE)
    assert stored.get(HERE.model_copy(update={name: "another"})) is None


@pytest.mark.parametrize(
    ("old", "new"),
    [('"graphs": true', '"graphs": '), ("cudnn", "unheard of"), ('"pictures": 2', '"pictures": 0'), ("580.1", "570.9")],
)
def test_a_damaged_file_is_measured_again(tmp_path: Path, old: str, new: str, caplog: pytest.LogCaptureFixture) -> None:
    stored = StoredChoices(tmp_path)
    stored.put(HERE, CHOICE)
    (file,) = tmp_path.iterdir()
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))

    assert stored.get(HERE) is None

    assert ("measured again" in caplog.text) == (new != "570.9")


def test_a_folder_that_cannot_be_written_costs_only_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    stored = StoredChoices(tmp_path / "file" / "tuning")

    with caplog.at_level(logging.WARNING):
        stored.put(HERE, CHOICE)
        assert stored.get(HERE) is None

    assert "set MASKLET_CACHE to a folder that can be written to" in caplog.text


def test_without_a_folder_nothing_is_kept() -> None:
    stored = StoredChoices(None)
    stored.put(HERE, CHOICE)
    assert stored.get(HERE) is None
    assert list(stored) == []


def test_a_choice_can_be_read_by_people() -> None:
    assert str(CHOICE) == ("float16, attention: cudnn, with CUDA graphs, pictures a pass: 2, batches of 1, 2, 4")
    assert str(Choice()) == "bfloat16, attention: fused, without CUDA graphs, pictures a pass: 1, batches of any size"


def test_other_weights_are_another_model() -> None:
    model = build_model(Registry.load().get("nano"), image_size=64)
    same, other = copy.deepcopy(model), copy.deepcopy(model)
    other.sam_mask_decoder.iou_token.weight.data[0, 0] += 1e-3
    assert fingerprint(model) == fingerprint(same)
    assert fingerprint(model) != fingerprint(other)
    assert fingerprint(model) != fingerprint(build_model(Registry.load().get("nano"), image_size=128))
