from __future__ import annotations

from pathlib import Path

import pytest

from masklet.errors import InvalidArgument, NotFound
from masklet_server.engine.serving.loaded_model import LoadedModel, find_loaded
from masklet_server.models.build import build_model
from masklet_server.models.registry import Registry
from masklet_server.models.sizes import split_size


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


def test_a_name_may_end_in_a_size() -> None:
    assert split_size("nano") == ("nano", None)
    assert split_size("sam2.1-tiny@512") == ("sam2.1-tiny", 512)
    assert split_size("hub:us/ours@64") == ("hub:us/ours", 64)
    assert split_size("nano@2048") == ("nano", 2048)


@pytest.mark.parametrize(
    "size",
    ["", "0", "32", "100", "513", "2080", "4096", "-64", "+64", "0512", "512.0", "5e2", "٥١٢", " 512", "9" * 400],
)
def test_other_sizes_are_refused_and_the_message_says_which_are_allowed(registry: Registry, size: str) -> None:
    for name in ("nano", "hub:us/ours", "unknown"):
        with pytest.raises(InvalidArgument, match=r"a multiple of 32 from 64 to 2048") as caught:
            registry.resolve(f"{name}@{size}")
        assert caught.value.violations[0].field == "model"


@pytest.mark.parametrize("text", ["@512", "nano@512@512", "@"])
def test_a_size_needs_one_name(registry: Registry, text: str) -> None:
    with pytest.raises(InvalidArgument, match=r"write NAME@SIZE, such as sam2\.1-tiny@512|is no size"):
        registry.resolve(text)


def test_a_size_changes_the_name_and_the_input_and_nothing_else(registry: Registry) -> None:
    plain, sized = registry.resolve("sam2.1-tiny"), registry.resolve("sam2.1-tiny@512")
    assert (sized.name, sized.image_size, sized.chosen_size) == ("sam2.1-tiny@512", 512, 512)
    assert sized.checkpoint_path() == plain.checkpoint_path()
    assert sized.config_path() == plain.config_path()
    assert (sized.sha256, sized.url, sized.edges) == (plain.sha256, plain.url, plain.edges)
    assert registry.get("sam2.1-tiny@512") == sized
    assert registry.resolve("nano@256").edges == "guided"


def test_a_models_own_size_is_the_model_itself(registry: Registry) -> None:
    assert registry.resolve("nano@384") is registry.get("nano")
    assert registry.resolve("sam2.1-large@1024") is registry.get("sam2.1-large")


def test_own_weights_and_repositories_have_sizes_too(registry: Registry, tmp_path: Path) -> None:
    weights = tmp_path / "mine@home.pt"
    weights.write_bytes(b"weights")
    spec = registry.resolve(f"mine@512={weights}:sam2.1-tiny")
    assert (spec.name, spec.image_size, spec.checkpoint_path()) == ("mine@512", 512, weights)
    assert registry.resolve(f"mine@1024={weights}:sam2.1-tiny").name == "mine"
    hub = registry.resolve("hub:us/ours@512")
    assert (hub.name, hub.hub, hub.image_size) == ("hub:us/ours@512", "us/ours", 512)
    meta = registry.resolve("hub:facebook/sam2.1-hiera-tiny@512")
    assert (meta.name, meta.sha256) == ("sam2.1-tiny@512", registry.get("sam2.1-tiny").sha256)
    assert registry.resolve("meta@512=hub:facebook/sam2-hiera-large").name == "meta@512"
    with pytest.raises(InvalidArgument, match="of a known model; give your own"):
        registry.resolve(f"nano@512={weights}:nano")


def test_an_unknown_name_with_a_size_is_not_found(registry: Registry) -> None:
    with pytest.raises(NotFound, match=r"no model 'sam2\.1-tinny'; did you mean sam2\.1-tiny or "):
        registry.resolve("sam2.1-tinny@512")
    assert registry.find("sam2.1-tinny@512") is None
    assert registry.find("nano@13") is None


def test_the_size_reaches_the_model(registry: Registry) -> None:
    model = build_model(registry.get("nano@256"))
    assert (model.image_size, model.sam_image_embedding_size) == (256, 16)
    assert build_model(registry.get("nano@256"), image_size=128).image_size == 128


def loaded(name: str, size: int) -> LoadedModel:
    return LoadedModel(name, size, size // 4, "float32", "cpu", "a CPU", 1)


def test_a_request_finds_its_size() -> None:
    models = {model.name: model for model in (loaded("nano", 384), loaded("sam2.1-tiny@512", 512))}
    assert find_loaded(models, "").name == "nano"
    assert find_loaded(models, "nano@384").name == "nano"
    assert find_loaded(models, "sam2.1-tiny@512").image_size == 512
    with pytest.raises(
        NotFound, match=r"'nano@512' is not loaded; this server has nano, sam2\.1-tiny@512; .* --model nano@512"
    ):
        find_loaded(models, "nano@512")
    with pytest.raises(NotFound, match=r"'sam2\.1-tiny' is not loaded; this server has nano, sam2\.1-tiny@512$"):
        find_loaded(models, "sam2.1-tiny")
    with pytest.raises(InvalidArgument, match="a multiple of 32 from 64 to 2048"):
        find_loaded(models, "nano@500")
