"""sam2's names of models, and those here."""

from __future__ import annotations

from pathlib import Path

import pytest

from masklet.compat._models.names import ModelChoice, of_files, of_repository, size_in_overrides


@pytest.mark.parametrize(
    ("model_id", "name"),
    [
        ("facebook/sam2.1-hiera-large", "sam2.1-large"),
        ("facebook/sam2.1-hiera-base-plus", "sam2.1-base-plus"),
        ("facebook/sam2-hiera-tiny", "sam2.0-tiny"),
        ("somebody/sam2.1-hiera-large", "hub:somebody/sam2.1-hiera-large"),
        ("somebody/cells", "hub:somebody/cells"),
        ("nano", "nano"),
        ("sam2.1-small", "sam2.1-small"),
        ("sam2.1-small@512", "sam2.1-small@512"),
        ("facebook/sam2.1-hiera-tiny@512", "sam2.1-tiny@512"),
        ("somebody/cells@512", "hub:somebody/cells@512"),
    ],
)
def test_repositories(model_id: str, name: str) -> None:
    assert of_repository(model_id) == ModelChoice(name, name)


def test_every_repository_that_sam2_knows_is_a_model_of_the_registry() -> None:
    from sam2.build_sam import HF_MODEL_ID_TO_FILENAMES

    from masklet_server.models.registry import Registry

    registry = Registry.load()
    for repository, (config, checkpoint) in HF_MODEL_ID_TO_FILENAMES.items():
        spec = registry.get(of_repository(repository).name)
        assert (spec.hub, spec.config, spec.checkpoint) == (repository, config, checkpoint)
        assert of_files(config, f"checkpoints/{checkpoint}").name == spec.name
        assert of_files(Path(config).name, None).name == spec.name


def test_a_checkpoint_on_this_machine_is_loaded_from_there(tmp_path: Path) -> None:
    official, own = tmp_path / "sam2.1_hiera_large.pt", tmp_path / "my cells.pt"
    official.touch()
    own.touch()
    found = of_files("configs/sam2.1/sam2.1_hiera_l.yaml", official)
    assert found.name == "sam2.1-large", "on a server"
    assert found.embedded == f"sam2.1_hiera_large={official}:sam2.1-large"
    assert found.embedded_name == "sam2.1_hiera_large"
    found = of_files("configs/sam2.1/sam2.1_hiera_l.yaml", str(own))
    assert found == ModelChoice("my-cells", f"my-cells={own}:sam2.1-large")
    found = of_files("mine.yaml", own)
    assert found.embedded == f"my-cells={own}:mine.yaml"


def test_a_checkpoint_that_is_not_here_names_a_model() -> None:
    assert of_files("sam2.1_hiera_b+.yaml", "/elsewhere/cells.pt") == ModelChoice("cells", "cells")


@pytest.mark.parametrize("config", ["configs/sam2.1/sam2.1_hiera_t_512.yaml", "sam2.1-tiny@512"])
def test_a_configuration_of_another_size(config: str, tmp_path: Path) -> None:
    assert of_files(config, None).name == "sam2.1-tiny@512"
    assert of_files(config, "elsewhere/sam2.1_hiera_tiny.pt").name == "sam2.1-tiny@512"
    own = tmp_path / "cells.pt"
    own.touch()
    assert of_files(config, own) == ModelChoice("cells@512", f"cells@512={own}:sam2.1-tiny")
    assert of_files(config, own).embedded_name == "cells@512"
    with pytest.raises(ValueError, match=r"is sam2\.1-large, but config_file .* is sam2\.1-tiny@512"):
        of_files(config, "sam2.1_hiera_large.pt")


def test_a_size_among_the_overrides_of_hydra(tmp_path: Path) -> None:
    size, others = size_in_overrides(["++model.image_size=256", "++model.fill_hole_area=0", "model.image_size=512"])
    assert (size, others) == (512, ["++model.fill_hole_area=0"])
    assert size_in_overrides(["++model.image_size=wide"]) == (None, ["++model.image_size=wide"])
    assert of_repository("facebook/sam2.1-hiera-tiny").at(512).name == "sam2.1-tiny@512"
    assert of_repository("facebook/sam2.1-hiera-tiny@256").at(512).name == "sam2.1-tiny@512"
    own = tmp_path / "cells.pt"
    own.touch()
    chosen = of_files("sam2.1_hiera_t.yaml", own).at(512)
    assert chosen == ModelChoice("cells@512", f"cells@512={own}:sam2.1-tiny")


def test_what_contradicts() -> None:
    with pytest.raises(ValueError, match=r"is sam2\.1-large, but config_file .* is sam2\.1-tiny"):
        of_files("configs/sam2.1/sam2.1_hiera_t.yaml", "sam2.1_hiera_large.pt")
    with pytest.raises(ValueError, match="no configuration of sam2 itself"):
        of_files("configs/mine.yaml", None)
