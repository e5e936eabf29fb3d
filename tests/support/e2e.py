"""What the end-to-end tests share: a clip with known objects, and the same clip followed by the engine alone."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image

from masklet import Prompt
from masklet_server.engine.memory.bank import MemoryBank
from masklet_server.engine.network.network import Network
from masklet_server.engine.network.tensors import Features
from masklet_server.engine.serving.batch import run_jobs
from masklet_server.engine.serving.image_predictor import encode_picture
from masklet_server.engine.serving.jobs import FrameInput, ObjectTask, StreamContext, Track
from masklet_server.masks.edges import Edges
from masklet_server.models.build import build_model
from masklet_server.models.registry import Registry
from tests.support import clips, synthetic

HEIGHT, WIDTH = 240, 320
NUM_FRAMES = 18
Mask = npt.NDArray[np.bool_]


@functools.cache
def frames() -> synthetic.Image:
    """``uint8[T, H, W, 3]``."""
    return synthetic.clip(NUM_FRAMES, HEIGHT, WIDTH)


@functools.cache
def lossless(num_frames: int = NUM_FRAMES) -> bytes:
    """The clip without any loss, so that what the server sees is known to the bit."""
    pictures = list(frames()[:num_frames])
    return clips.make_clip("matroska", "ffv1", size=(WIDTH, HEIGHT), pixel_format="bgr0", pictures=pictures)


@functools.cache
def h264() -> bytes:
    """The clip as cameras and phones send it."""
    return clips.make_clip("mp4", "libx264", size=(WIDTH, HEIGHT), pictures=list(frames()))


def center(blob: int, frame_index: int = 0) -> tuple[float, float]:
    """Where to click."""
    return synthetic.BLOBS[blob].center(frame_index, HEIGHT, WIDTH)


def truth(blob: int, frame_index: int = 0) -> Mask:
    """The object's true mask."""
    return synthetic.BLOBS[blob].mask(frame_index, HEIGHT, WIDTH)


def box(blob: int, frame_index: int = 0) -> list[int]:
    """x0, y0, x1, y1 around it."""
    ys, xs = np.nonzero(truth(blob, frame_index))
    return [int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1]


@functools.cache
def prompt(kind: str, blob: int = 0, frame_index: int = 0) -> Prompt:
    """One prompt of each kind for a blob, whose object id is its number and one."""
    x, y = center(blob, frame_index)
    parts = {
        "point": {"point_coords": [[x, y]]},
        "points": {"point_coords": [[x, y], [x + 8.0, y], [2.0, 2.0]], "point_labels": [1, 1, 0]},
        "box": {"box": box(blob, frame_index)},
        "box-and-point": {"box": box(blob, frame_index), "point_coords": [[x, y]]},
        "mask": {"mask": truth(blob, frame_index)},
    }[kind]
    return Prompt(object_id=blob + 1, frame_index=frame_index, **parts)  # type: ignore[arg-type]


KINDS = ("point", "points", "box", "box-and-point", "mask")


@functools.cache
def _network() -> Network:
    return Network(build_model(Registry.load().get("nano")), torch.device("cpu"))


def small(size: int, *, pictures: bool = False) -> list[synthetic.Image]:
    """The clip at a model's size, ``uint8[size, size, 3]`` each: as the server makes it of a video, or of pictures."""
    if pictures:
        return [clips.shrunk(Image.fromarray(picture), size) for picture in frames()]
    return [np.asarray(clips.resized(clips.as_frame(picture, "bgr0"), size)) for picture in frames()]


@torch.inference_mode()
def candidates_alone(mask: Mask | None) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """What the network alone makes of the first frame and an object's mask, the best candidate first.

    Args:
        mask: ``bool[H, W]``; None for no prompt at all.

    Returns:
        Logits ``float32[3, 4h, 4w]`` and predicted IoUs ``float32[3]``.
    """
    network = _network()
    batch = Features.stack([encode_picture(network, frames()[0]).features])
    start = None
    if mask is not None:
        full = torch.from_numpy(np.where(mask, 10, -10).astype(np.float32))[None, None]
        start = F.interpolate(full, (network.logits_size,) * 2, mode="bilinear", antialias=True)
    found = network.decoder.candidates(
        network.without_memory(batch.top), batch.fine, points=None, mask_logits=start, multimask=True
    )
    order = found.predicted_iou[0].argsort(descending=True)
    return found.logits[0, order].numpy(), found.predicted_iou[0, order].numpy()


def engine_alone(
    prompts: Sequence[Prompt], num_frames: int = NUM_FRAMES, *, pictures: bool = False
) -> list[dict[int, Mask]]:
    """The clip's masks by object on each frame, without server, video or gRPC; made once for the same prompts.

    Their edges are drawn in nano's own way.
    """
    return _engine_alone(tuple(prompts), num_frames, pictures)


@functools.cache
def _engine_alone(prompts: tuple[Prompt, ...], num_frames: int, pictures: bool) -> list[dict[int, Mask]]:
    clip_length = num_frames if num_frames < 16 else None
    banks: dict[int, MemoryBank] = {}
    found = []
    for index, pixels in enumerate(small(_network().image_size, pictures=pictures)[:num_frames]):
        here = [p for p in prompts if p.frame_index == index]
        banks.update(
            {
                p.object_id: MemoryBank("nano", recent_memories=_network().recent_memories)
                for p in here
                if p.object_id not in banks
            }
        )
        tasks = [ObjectTask(banks[i], [p for p in here if p.object_id == i]) for i in sorted(banks)]
        job = Track(
            StreamContext("alone", "nano", edges=Edges.GUIDED),
            FrameInput(index, pixels, HEIGHT, WIDTH, clip_length),
            tasks,
        )
        outputs = run_jobs(_network(), [job])[0].objects if tasks else ()
        found.append({i: output.mask for i, output in zip(sorted(banks), outputs, strict=True)})
    return found
