"""CVAT for video 1.1 (https://docs.cvat.ai/docs/manual/advanced/xml_format/): a track for each object.

A mask is `left`, `top`, `width`, `height` of its box, and the lengths of the runs inside it, row by row, background
first. Masks are not interpolated, so every frame is a key frame. The first frame without the object has its last shape
again with ``outside="1"``. Frames count from 0. A label is an object's class; it must exist in CVAT's task.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO
from xml.sax.saxutils import escape, quoteattr

import numpy as np
import numpy.typing as npt

from masklet._protocol.results import ObjectResult
from masklet.drawing import colour_of
from masklet.export.files import text_file, video_name
from masklet.export.formats import Settings
from masklet.export.polygons import joined, rings
from masklet.recording import Recording

_Element = tuple[str, str]  # a shape's tag, and its own attributes


def write(recording: Recording, path: Path, settings: Settings) -> None:
    """Write a file of CVAT, one track at a time."""
    with text_file(path) as file:
        file.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n')
        _write_meta(recording, file, "polygon" if settings.shape == "polygon" else "mask")
        for number, (object_id, found) in enumerate(recording.objects.items()):
            file.write(f'  <track id="{number}" label={quoteattr(found.category)} source="auto">\n')
            for frame_index, outside, (tag, attributes) in _shapes(recording, object_id, settings):
                file.write(
                    f'    <{tag} frame="{frame_index}" keyframe="1" outside="{int(outside)}" occluded="0" '
                    f'{attributes} z_order="0"></{tag}>\n'
                )
            file.write("  </track>\n")
        file.write("</annotations>\n")


def _write_meta(recording: Recording, file: IO[str], kind: str) -> None:
    height, width = recording.size
    count = recording.frame_count
    file.write(
        f"  <meta>\n    <task>\n      <name>{escape(video_name(recording))}</name>\n      <size>{count}</size>\n"
        "      <mode>interpolation</mode>\n      <overlap>0</overlap>\n      <start_frame>0</start_frame>\n"
        f"      <stop_frame>{max(0, count - 1)}</stop_frame>\n      <frame_filter></frame_filter>\n      <labels>\n"
    )
    for number, name in enumerate(recording.class_names, start=1):
        red, green, blue = colour_of(number)
        file.write(
            f"        <label>\n          <name>{escape(name)}</name>\n"
            f"          <color>#{red:02x}{green:02x}{blue:02x}</color>\n          <type>{kind}</type>\n"
            "          <attributes></attributes>\n        </label>\n"
        )
    file.write(
        f"      </labels>\n      <original_size>\n        <width>{width}</width>\n        <height>{height}</height>\n"
        f"      </original_size>\n      <source>{escape(Path(recording.source).name)}</source>\n"
        "    </task>\n  </meta>\n"
    )


def _shapes(recording: Recording, object_id: int, settings: Settings) -> Iterator[tuple[int, bool, _Element]]:
    """The key frames of a track: the frame, whether the object is outside from there on, and the shape."""
    last: _Element | None = None
    last_index = -1
    for frame_index, result in recording.masklet(object_id):
        if last is not None and frame_index > last_index + 1:
            yield last_index + 1, True, last  # frames that were not tracked are between
            last = None
        if result.visible:
            last, last_index = _element(result, settings), frame_index
            yield frame_index, False, last
        elif last is not None:
            yield frame_index, True, last
            last = None
    if last is not None and last_index + 1 < recording.frame_count:
        yield last_index + 1, True, last


def _element(result: ObjectResult, settings: Settings) -> _Element:
    if settings.shape == "polygon":
        ring = joined(rings(result.mask, tolerance=settings.tolerance))
        return "polygon", 'points="' + ";".join(f"{x:.2f},{y:.2f}" for x, y in ring) + '"'
    left, top, right, bottom = (int(side) for side in result.box or (0, 0, 0, 0))
    runs = ", ".join(map(str, row_runs(result.mask[top:bottom, left:right])))
    place = f'left="{left}" top="{top}" width="{right - left}" height="{bottom - top}"'
    return "mask", f'rle="{runs}" {place}'


def row_runs(mask: npt.NDArray[np.bool_]) -> list[int]:
    """The lengths of a mask's runs, row by row, background first.

    Args:
        mask: ``bool[H, W]``.
    """
    flat = mask.ravel()
    starts = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    ends = np.concatenate(([0, 0] if flat[0] else [0], starts, [flat.size]))
    lengths: list[int] = np.diff(ends).tolist()
    return lengths
