"""LabelMe (https://github.com/wkentaro/labelme): a JSON for each frame, with polygons or masks.

Shapes of one object share a `group_id`, which is the object's id. A polygon has no holes: a hole is joined to its part
by a cut of no width. A mask is a PNG of its box, in base64.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from masklet._protocol.results import FrameResult, ObjectResult
from masklet.export.files import FRAME_NAME, file_name, text_file, write_pictures
from masklet.export.formats import Settings
from masklet.export.polygons import outer_rings
from masklet.recording import Recording

_VERSION = "5.5.0"  # the first one whose masks are these


def write(recording: Recording, path: Path, settings: Settings) -> None:
    """Write the files, and the frames beside them if they are asked for."""
    height, width = recording.size
    path.mkdir(parents=True, exist_ok=True)
    for frame in recording:
        content: dict[str, Any] = {
            "version": _VERSION,
            "flags": {},
            "shapes": list(_shapes(recording, frame, settings)),
            "imagePath": file_name(frame.frame_index),
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        with text_file(path / f"{FRAME_NAME.format(frame.frame_index)}.json") as file:
            json.dump(content, file, indent=1)
    write_pictures(recording, settings, path, file_name)


def _shapes(recording: Recording, frame: FrameResult, settings: Settings) -> Iterator[dict[str, Any]]:
    for object_id, result in frame.objects.items():
        if not result.visible:
            continue
        shape = {
            "label": recording.objects[object_id].category,
            "group_id": object_id,
            "description": recording.objects[object_id].name,
            "flags": {},
        }
        if settings.shape == "mask":
            yield {**shape, "shape_type": "mask", **_mask(result)}
        else:
            for ring in outer_rings(result.mask, tolerance=settings.tolerance):
                yield {**shape, "shape_type": "polygon", "points": ring.round(2).tolist(), "mask": None}


def _mask(result: ObjectResult) -> dict[str, Any]:
    """The mask as LabelMe has it; its box includes its last row and column."""
    from PIL import Image

    left, top, right, bottom = (int(side) for side in result.box or (0, 0, 0, 0))
    png = io.BytesIO()
    Image.fromarray(result.mask[top:bottom, left:right]).save(png, format="PNG")
    corners = [[left, top], [right - 1, bottom - 1]]
    return {"points": corners, "mask": base64.b64encode(png.getvalue()).decode("ascii")}
