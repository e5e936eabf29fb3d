from __future__ import annotations

import re
from pathlib import Path

import pytest

from masklet.errors import InvalidArgument, NotFound
from masklet_server.models import paths
from masklet_server.models.registry import ModelSpec, Registry


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "fine:tuned.pt"
    path.write_bytes(b"weights")
    return path


def test_the_registry_knows_nano_and_metas_models(registry: Registry) -> None:
    sizes = ("tiny", "small", "base-plus", "large")
    expected = ("nano", *(f"sam2.1-{size}" for size in sizes), *(f"sam2.0-{size}" for size in sizes))
    assert registry.names == expected
    assert len(registry) == 9
    assert "nano" in registry
    assert "macro" not in registry


def test_every_entry_is_complete(registry: Registry) -> None:
    for spec in registry:
        assert spec.config_path().is_file()
        assert spec.description
        assert spec.image_size in (384, 1024)
        assert spec.ships or spec.url.startswith("https://dl.fbaipublicfiles.com/segment_anything_2/")
        assert spec.ships or spec.url.endswith(spec.checkpoint)
        if not spec.name.startswith("sam2.0"):
            assert re.fullmatch("[0-9a-f]{64}", spec.sha256)
            assert spec.bytes > 1_000_000


def test_the_files_that_ship_are_where_the_registry_says(registry: Registry) -> None:
    nano = registry.get("nano")
    assert nano.checkpoint_path() == paths.checkpoints_folder() / "masklet-nano.safetensors"
    assert nano.checkpoint_path().stat().st_size == nano.bytes < 12_000_000
    assert not nano.is_downloadable


def test_an_unknown_name_lists_the_known_and_the_alike(registry: Registry) -> None:
    with pytest.raises(
        NotFound, match=r"no model 'sam2\.1-tinny'; did you mean sam2\.1-tiny or .* known models: nano, "
    ):
        registry.get("sam2.1-tinny")
    with pytest.raises(NotFound, match="no model 'xyz'; known models: nano, "):
        registry.resolve("xyz")


def test_own_weights_take_a_configuration_from_a_path_from_sam2_or_from_a_known_model(
    registry: Registry, checkpoint: Path, tmp_path: Path
) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text(registry.get("nano").config_path().read_text().replace("image_size: 384", "image_size: 256"))
    spec = registry.resolve(f"mine={checkpoint}:{config}")
    assert (spec.name, spec.checkpoint_path(), spec.config_path()) == ("mine", checkpoint, config)
    assert spec.image_size == 256
    assert not spec.is_downloadable
    for source in ("configs/sam2.1/sam2.1_hiera_t.yaml", "sam2.1-tiny"):
        spec = registry.resolve(f"mine={checkpoint}:{source}")
        assert spec.config_path() == registry.get("sam2.1-tiny").config_path()
        assert spec.image_size == 1024


@pytest.mark.parametrize("source", ["nano", "masklet-nano.yaml"])
def test_own_weights_of_nano_have_nanos_edges_and_scaling(registry: Registry, checkpoint: Path, source: str) -> None:
    assert registry.get("nano").edges == registry.resolve(f"mine={checkpoint}:{source}").edges == "guided"
    assert registry.get("nano").scaling == registry.resolve(f"mine={checkpoint}:{source}").scaling == "area"
    metas = registry.resolve(f"mine={checkpoint}:sam2.1-tiny")
    assert (metas.edges, metas.scaling) == ("none", "bicubic")
    assert {spec.scaling for spec in registry if spec.name != "nano"} == {"bicubic"}


def test_own_weights_that_are_not_there_are_not_found(registry: Registry, checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"model mine: there is no checkpoint at .*absent\.pt"):
        registry.resolve(f"mine={tmp_path / 'absent.pt'}:nano")
    with pytest.raises(NotFound, match=r"no configuration 'absent\.yaml'"):
        registry.resolve(f"mine={checkpoint}:absent.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mine=/x/y.pt", "lacks a checkpoint or a configuration"),
        ("mine=", "lacks a checkpoint or a configuration"),
        ("mine=/x/y.pt:", "lacks a checkpoint or a configuration"),
        ("=/x/y.pt:nano", "a name has letters, digits"),
        ("my model=/x/y.pt:nano", "a name has letters, digits"),
        ("nano=/x/y.pt:nano", "of a known model; give your own"),
        ("hub:../../etc", "no Hugging Face repository"),
        ("hub:justone", "no Hugging Face repository"),
        ("mine=hub:", "no Hugging Face repository"),
    ],
)
def test_other_forms_are_refused(registry: Registry, text: str, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message) as caught:
        registry.resolve(text)
    assert caught.value.violations[0].field == "model"


def test_metas_repositories_are_the_models_of_the_registry(registry: Registry) -> None:
    spec = registry.resolve("hub:facebook/sam2.1-hiera-tiny")
    known = registry.get("sam2.1-tiny")
    assert (spec.name, spec.sha256, spec.checkpoint_path()) == (known.name, known.sha256, known.checkpoint_path())
    assert spec.url == ""
    assert registry.resolve("meta=hub:facebook/sam2-hiera-large").name == "meta"


def test_other_repositories_are_kept_by_their_name(registry: Registry) -> None:
    spec = registry.resolve("mine=hub:us/ours")
    assert (spec.name, spec.hub, spec.is_hub_repository, spec.image_size) == ("mine", "us/ours", True, 0)
    assert registry.resolve("hub:us/ours").name == "hub:us/ours"


def test_an_extended_registry_finds_the_new_and_the_old(registry: Registry) -> None:
    more = registry.extended(ModelSpec("mine", "mine.yaml", "mine.pt"))
    assert more.get("mine").config == "mine.yaml"
    assert more.get("nano") is registry.get("nano")
    assert "mine" not in registry


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("MASKLET_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert paths.cache_folder() == tmp_path / ".cache" / "masklet"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert paths.cache_folder() == tmp_path / "xdg" / "masklet"
    monkeypatch.setenv("MASKLET_CACHE", "~/models")
    assert paths.cache_folder() == tmp_path / "models"
    assert Registry.load().get("sam2.0-tiny").checkpoint_path() == tmp_path / "models" / "sam2_hiera_tiny.pt"
