"""``NAME@SIZE`` over a real channel: in a server, in its clients, on the command line, and behind sam2's names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import masklet
from masklet import compat
from masklet.compat._models import server
from masklet_server.embedded import EmbeddedServer
from tests.cli.test_commands import run
from tests.support.e2e import NUM_FRAMES, frames, lossless, prompt, truth
from tests.support.synthetic import iou


@pytest.fixture(scope="module")
def sized() -> Iterator[str]:
    """A server with nano at two sizes, neither of them its own."""
    with EmbeddedServer(models=("nano@256", "nano@448"), dtype="float32") as address:
        yield address


def masks(client: masklet.Client, **options: object) -> list[np.ndarray]:
    return [frame.objects[1].mask for frame in client.track(lossless(), prompt("box"), **options)]  # type: ignore[arg-type]


def test_each_size_is_a_model_of_its_own(sized: str) -> None:
    with masklet.Client(sized) as client:
        known = {model.name: model for model in client.info().models}
        assert [name for name, model in known.items() if model.loaded] == ["nano@256", "nano@448"]
        assert [known[name].image_size for name in ("nano@256", "nano@448", "nano")] == [256, 448, 384]
        assert known["nano@256"].default
        assert known["nano@448"].description == known["nano"].description
        small, same, large = masks(client), masks(client, model="nano@256"), masks(client, model="nano@448")
        assert len(small) == len(large) == NUM_FRAMES
        for index, pair in enumerate(zip(small, same, strict=True)):
            np.testing.assert_array_equal(*pair, err_msg=f"frame {index}")
        assert any(not np.array_equal(*pair) for pair in zip(small, large, strict=True))
        for found in (small, large):
            assert np.mean([iou(mask, truth(0, i)) for i, mask in enumerate(found)]) > 0.6


def test_pictures_and_annotations_take_a_size(sized: str) -> None:
    box = prompt("box").box
    assert box is not None
    with masklet.Client(sized) as client:
        for size in (256, 448):
            found = client.segment(frames()[0], box=list(box), multimask_output=False, model=f"nano@{size}")
            assert found.logits is not None
            assert found.logits.shape[-2:] == (size // 4, size // 4)
            assert iou(found.masks[0], truth(0)) > 0.6
            with client.annotate(lossless(), model=f"nano@{size}") as annotation:
                assert iou(annotation.prompt(prompt("box")).object.mask, truth(0)) > 0.6


def test_a_size_that_is_not_loaded_says_how_to_load_it(sized: str) -> None:
    with masklet.Client(sized) as client:
        for call in (
            lambda name: masks(client, model=name),
            lambda name: client.segment(frames()[0], box=(1, 1, 9, 9), model=name),
        ):
            with pytest.raises(masklet.NotFound, match=r"'nano@512' is not loaded.*masklet serve --model nano@512"):
                call("nano@512")
            with pytest.raises(masklet.NotFound, match=r"'nano' is not loaded; this server has nano@256, nano@448"):
                call("nano")
            with pytest.raises(masklet.InvalidArgument, match="a multiple of 32 from 64 to 2048"):
                call("nano@500")


def test_a_models_own_size_is_the_model(client: masklet.Client) -> None:
    plain, named = masks(client), masks(client, model="nano@384")
    for pair in zip(plain, named, strict=True):
        np.testing.assert_array_equal(*pair)


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (("nano@100",), "model: is 'nano@100'.*a multiple of 32 from 64 to 2048"),
        (("nano", "nano@384"), "models: names nano more than once"),
        (("nano@256", "nano@256"), "models: names a model twice"),
    ],
)
def test_a_server_refuses_sizes_that_cannot_be(models: tuple[str, ...], message: str) -> None:
    with pytest.raises(masklet.InvalidArgument, match=message), EmbeddedServer(models=models):
        pass


def test_the_command_line_takes_a_size(
    sized: str, nano_server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("info", "--server", sized) == 0
    listed = capsys.readouterr().out
    assert "nano@256" in listed
    assert "nano@448" in listed
    (tmp_path / "clip.mkv").write_bytes(lossless())
    click = ",".join(str(round(value)) for value in prompt("point").point_coords[0])  # type: ignore[index]
    track = ("track", tmp_path / "clip.mkv", "--point", click, "--model", "nano@448", "--json", tmp_path / "clip.json")
    assert run(*track, "--server", sized) == 0
    assert len(masklet.Recording.load(tmp_path / "clip.json")) == NUM_FRAMES
    capsys.readouterr()
    assert run(*track, "--server", nano_server) == 1
    assert "masklet serve --model nano@448" in capsys.readouterr().err


def test_sams_names_take_a_size(sized: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKLET_SERVER", sized)
    monkeypatch.setenv("MASKLET_COMPAT_MODEL", "nano@448")
    assert compat.build_sam2("configs/sam2.1/sam2.1_hiera_t.yaml").image_size == 448
    monkeypatch.delenv("MASKLET_COMPAT_MODEL")
    assert compat.build_sam2("nano", hydra_overrides_extra=["++model.image_size=448"]).name == "nano@448"
    assert compat.build_sam2_hf("nano@256").name == "nano@256"
    with pytest.raises(masklet.NotFound, match=r"has not loaded the model 'nano', but nano@256, nano@448"):
        compat.build_sam2("nano")
    server.close()


def test_sams_names_start_a_server_with_that_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MASKLET_SERVER", raising=False)
    model = compat.build_sam2("nano", hydra_overrides_extra=["++model.image_size=128"], device="cpu")
    assert (model.name, model.image_size) == ("nano@128", 128)
    own_size = compat.build_sam2("nano", hydra_overrides_extra=["++model.image_size=384"], device="cpu")
    assert (own_size.name, own_size.image_size) == ("nano", 384)
    server.close()
