"""Converted models are kept on disk; a damaged or unwritable cache costs time, never the start of a server."""

from __future__ import annotations

import logging
from importlib import metadata
from pathlib import Path

import pytest
import torch
from torch import nn

from masklet_server.engine.network.openvino.cache import converted, fingerprint
from masklet_server.engine.network.openvino.compiled import Model
from masklet_server.models.build import build_model
from masklet_server.models.registry import Registry


class Doubling(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


class Converter:
    """Converts, and counts how often."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> Model:
        self.calls += 1
        return Model.convert(Doubling(), [torch.zeros(3)], [torch.float32, torch.float32])


def doubled(model: Model) -> list[float]:
    numbers: list[float] = model.compile("f32")(torch.tensor([1.0, 2.0, 3.0]))[0].tolist()
    return numbers


def test_the_second_time_the_file_is_read(tmp_path: Path) -> None:
    convert, path = Converter(), tmp_path / "folder" / "doubling.xml"
    assert doubled(converted(path, convert)) == doubled(converted(path, convert)) == [2.0, 4.0, 6.0]
    assert convert.calls == 1
    assert sorted(file.name for file in path.parent.iterdir()) == ["doubling.bin", "doubling.sum", "doubling.xml"]


@pytest.mark.parametrize("suffix", [".xml", ".bin", ".sum"])
@pytest.mark.parametrize("content", [b"", b"no graph", bytes(64)])
def test_a_damaged_file_is_made_anew(
    tmp_path: Path, suffix: str, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    convert, path = Converter(), tmp_path / "doubling.xml"
    converted(path, convert)
    path.with_suffix(suffix).write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert doubled(converted(path, convert)) == [2.0, 4.0, 6.0]
    assert "is made anew" in caplog.text
    assert doubled(converted(path, convert)) == [2.0, 4.0, 6.0]
    assert convert.calls == 2


def test_weights_that_were_changed_are_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    convert, path = Converter(), tmp_path / "doubling.xml"
    converted(path, convert)
    weights = path.with_suffix(".bin")
    weights.write_bytes(bytes(len(weights.read_bytes())))
    with caplog.at_level(logging.WARNING):
        assert doubled(converted(path, convert)) == [2.0, 4.0, 6.0]
    assert "is damaged and is made anew" in caplog.text


def test_without_a_folder_nothing_is_kept() -> None:
    assert doubled(converted(None, Converter())) == [2.0, 4.0, 6.0]


def test_a_folder_that_cannot_be_made_is_done_without(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING):
        for name in ("doubling.xml", "another.xml"):
            assert doubled(converted(tmp_path / "file" / name, Converter())) == [2.0, 4.0, 6.0]
    (warning,) = caplog.messages  # one for all files of the folder
    assert f"cannot be kept in {tmp_path / 'file'}, so the next start takes longer; set MASKLET_CACHE" in warning


def test_a_fingerprint_depends_on_the_configuration() -> None:
    spec = Registry.load().get("nano")
    small, large = (build_model(spec, image_size=size) for size in (64, 128))
    assert fingerprint(small) != fingerprint(large)
    assert fingerprint(small) == fingerprint(build_model(spec, image_size=64))


def test_a_fingerprint_depends_on_weights_and_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = nn.Linear(2, 2)
    before = fingerprint(layer)
    assert fingerprint(layer) == before
    with monkeypatch.context() as later:
        later.setattr(metadata, "version", lambda package: f"later than any {package}")
        assert fingerprint(layer) != before
    with torch.no_grad():
        layer.bias[0] += 1
    assert fingerprint(layer) != before
