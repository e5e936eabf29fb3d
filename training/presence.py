"""How well the object score tells whether an object is there: its ROC AUC on clips whose object is away for a while.

    python -m training.presence --cache CACHE --checkpoint FILE [--clips N] [--model-config FILE]

CACHE is one that ``training.prepare --only-held-out`` wrote: of videos that were never trained on. The object is given
as a mask on the first frame. Later it is painted over for some frames, or another video is shown instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import numpy.typing as npt
import torch
import typer
from safetensors.torch import load_file

from training.cli import run
from training.config import PromptMix
from training.data.cache import Cache
from training.errors import TrainingError
from training.learning.forward import ClipForward, ClipPlan
from training.learning.model import new_model
from training.learning.prompts import draw_prompt
from training.samples.dataset import ClipDataset, ClipRecipe, batches
from training.samples.scenes import SceneKind

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base

_LENGTH = 8
_MASK = PromptMix(point=0, points=0, box=0, mask=1, logits=0)


@dataclass(frozen=True)
class Presence:
    """Object scores of tracked frames.

    Attributes:
        scores: ``float[N]``: logits.
        there: ``bool[N]``: whether the object can be seen.
    """

    scores: npt.NDArray[np.float64]
    there: npt.NDArray[np.bool_]

    def auc(self) -> float:
        """Part of the pairs of a frame with the object and one without that the scores put in the right order.

        Raises:
            TrainingError: There are no such pairs.
        """
        count, absent = int(self.there.sum()), int((~self.there).sum())
        if not count or not absent:
            raise TrainingError("object scores need frames with the object and frames without it")
        _, group, sizes = np.unique(self.scores, return_inverse=True, return_counts=True)
        ranks = np.cumsum(sizes) - (sizes - 1) / 2  # equal scores share their mean rank
        total = float(ranks[group][self.there].sum())
        return (total - count * (count + 1) / 2) / (count * absent)


@torch.inference_mode()
def measure(model: SAM2Base, cache: Cache, *, size: int, clips: int, seed: int = 0) -> Presence:
    """Follow objects of a cache's videos through clips in which they are away for some frames."""
    recipe = ClipRecipe(size=size, frames=_LENGTH, mix={SceneKind.film: 1.0}, absence=1.0)
    dataset = ClipDataset(cache, recipe, (seed, 2), clips)
    scores, there = [], []
    for number, (frames, masks) in enumerate(batches(dataset, 1)):
        truth = masks.flatten(0, 1)
        rng = np.random.default_rng((seed, number))
        outputs = ClipForward(model, frames, draw_prompt(rng, truth[:, 0].numpy(), _MASK)).run(rng, truth, ClipPlan())
        for output in outputs:
            scores.append(output.presence[:, 0].double().numpy())
            there.append(truth[:, output.frame].flatten(1).any(dim=1).numpy())
    return Presence(np.concatenate(scores), np.concatenate(there))


def load_model(checkpoint: Path, config: str, size: int) -> SAM2Base:
    """A model with a checkpoint's weights, as it is used.

    Raises:
        TrainingError: The weights are not this model's.
    """
    model = new_model(config, size, 0)
    different = model.load_state_dict(load_file(checkpoint), strict=False)
    if different.missing_keys or different.unexpected_keys:
        raise TrainingError(f"{checkpoint} holds no weights of {config}")
    return model.eval()


def main(
    cache: Annotated[Path, typer.Option(metavar="CACHE", help="Of videos that were never trained on.")],
    checkpoint: Annotated[Path, typer.Option(metavar="FILE", help="Weights.")],
    model_config: Annotated[str, typer.Option(help="Their configuration.")] = "masklet-nano.yaml",
    size: Annotated[int, typer.Option(help="Side of the frames in pixels.")] = 384,
    clips: Annotated[int, typer.Option(help="Of eight frames each.")] = 64,
) -> None:
    """Print the AUC of the object score."""
    found = measure(load_model(checkpoint, model_config, size), Cache.open(cache), size=size, clips=clips)
    away = ~found.there
    print(
        f"{checkpoint}: AUC {found.auc():.3f} of {len(away)} frames, {away.mean():.0%} without the object; scores "
        f"{found.scores[found.there].mean():.2f} with it and {found.scores[away].mean():.2f} without; of these "
        f"{(found.scores[found.there] > 0).mean():.1%} and {(found.scores[away] > 0).mean():.1%} above 0"
    )


if __name__ == "__main__":
    run(main)
