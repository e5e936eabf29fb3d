"""``sam2.build_sam``: the functions that make models, with the model on a masklet server."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from masklet.compat._models import names
from masklet.compat._models.locate import locate, locate_repository
from masklet.compat._models.model import SAM2Model
from masklet.compat._videos.camera import SAM2CameraPredictor
from masklet.compat._videos.predictor import SAM2VideoPredictor

_Path = str | os.PathLike[str]


def build_sam2(
    config_file: _Path,
    ckpt_path: _Path | None = None,
    device: Any = None,
    mode: str = "eval",
    hydra_overrides_extra: Sequence[str] = (),
    apply_postprocessing: bool = True,
    **kwargs: Any,
) -> SAM2Model:
    """A model for `SAM2ImagePredictor` and `SAM2AutomaticMaskGenerator`.

    Args:
        config_file: sam2's configuration, such as "configs/sam2.1/sam2.1_hiera_l.yaml"; or the name of a model here,
            such as "sam2.1-tiny@512".
        ckpt_path: The checkpoint. A server inside this process loads it from there, if there is such a file. Otherwise
            its name says which model it is. None: the official weights of `config_file`.
        device: Of a server inside this process. Otherwise it changes nothing.
        mode: "eval", which is what a server does.
        hydra_overrides_extra: "++model.image_size=512" chooses the model at that size. Others change nothing.
        apply_postprocessing: Changes nothing: servers do as sam2 does with True.
        kwargs: Change nothing.

    Raises:
        ValueError: `config_file` and `ckpt_path` are of different models.
        masklet.NotFound: The server does not have the model.
        masklet.MaskletError: The server cannot be reached or started.
    """
    choice, given = _chosen(config_file, ckpt_path, mode, hydra_overrides_extra, apply_postprocessing)
    return SAM2Model(*locate(choice, device, {**given, **kwargs}))


def build_sam2_hf(model_id: str, **kwargs: Any) -> SAM2Model:
    """As `build_sam2`, for a model's repository on Hugging Face.

    Args:
        model_id: Such as "facebook/sam2.1-hiera-large"; or the name of a model here.
        kwargs: As those of `build_sam2`.
    """
    return SAM2Model(*locate_repository(model_id, kwargs))


def build_sam2_video_predictor(
    config_file: _Path,
    ckpt_path: _Path | None = None,
    device: Any = None,
    mode: str = "eval",
    hydra_overrides_extra: Sequence[str] = (),
    apply_postprocessing: bool = True,
    vos_optimized: bool = False,
    **kwargs: Any,
) -> SAM2VideoPredictor:
    """A predictor for videos.

    Args:
        config_file: As for `build_sam2`.
        ckpt_path: As for `build_sam2`.
        device: As for `build_sam2`.
        mode: As for `build_sam2`.
        hydra_overrides_extra: As for `build_sam2`.
        apply_postprocessing: Changes nothing: servers do as sam2 does with True.
        vos_optimized: Changes nothing: the server decides what is compiled.
        kwargs: Change nothing.

    Raises:
        ValueError: As `build_sam2`.
        masklet.MaskletError: As `build_sam2`.
    """
    choice, given = _chosen(config_file, ckpt_path, mode, hydra_overrides_extra, apply_postprocessing)
    return SAM2VideoPredictor(*locate(choice, device, {**given, "vos_optimized": vos_optimized, **kwargs}))


def build_sam2_video_predictor_hf(model_id: str, **kwargs: Any) -> SAM2VideoPredictor:
    """As `build_sam2_video_predictor`, for a model's repository on Hugging Face.

    Args:
        model_id: Such as "facebook/sam2.1-hiera-large"; or the name of a model here.
        kwargs: As those of `build_sam2_video_predictor`.
    """
    return SAM2VideoPredictor(*locate_repository(model_id, kwargs))


def build_sam2_camera_predictor(
    config_file: _Path,
    ckpt_path: _Path | None = None,
    device: Any = None,
    mode: str = "eval",
    hydra_overrides_extra: Sequence[str] = (),
    apply_postprocessing: bool = True,
    vos_optimized: bool = False,
    **kwargs: Any,
) -> SAM2CameraPredictor:
    """A predictor for frames that come one by one; the arguments are those of `build_sam2_video_predictor`."""
    choice, given = _chosen(config_file, ckpt_path, mode, hydra_overrides_extra, apply_postprocessing)
    return SAM2CameraPredictor(*locate(choice, device, {**given, "vos_optimized": vos_optimized, **kwargs}))


def _chosen(
    config_file: _Path,
    ckpt_path: _Path | None,
    mode: str,
    hydra_overrides_extra: Sequence[str],
    apply_postprocessing: bool,
) -> tuple[names.ModelChoice, dict[str, Any]]:
    """The model that is asked for, and the arguments that change nothing."""
    size, others = names.size_in_overrides(hydra_overrides_extra)
    given = {"mode": mode, "hydra_overrides_extra": others, "apply_postprocessing": apply_postprocessing}
    return names.of_files(config_file, ckpt_path).at(size), given
