"""How results look in notebooks: pictures of masks, and a recording as a table with a time line for each object."""

from __future__ import annotations

import html
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from masklet.colours import colour_of

_DARK = (20, 20, 20)
_MAX_SIDE = 720  # pixels: notebooks keep their pictures
_LANE_WIDTH = 360


def masks_png(masks: Mapping[int, npt.NDArray[np.bool_]]) -> bytes | None:
    """Masks as a PNG, each in its object's colour on a dark ground; higher ids are on top.

    Args:
        masks: A mask ``bool[H, W]`` for each object's id.

    Returns:
        The file; None where there are no masks, and so no size.
    """
    if not masks:
        return None
    from PIL import Image

    size = next(iter(masks.values())).shape
    pixels = np.full((*size, 3), _DARK, np.uint8)
    for object_id in sorted(masks):
        pixels[masks[object_id]] = colour_of(object_id)
    picture = Image.fromarray(pixels)
    picture.thumbnail((_MAX_SIDE, _MAX_SIDE))
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return file.getvalue()


@dataclass(frozen=True)
class Row:
    """An object of a recording, as the table shows it.

    Attributes:
        object_id: As in the object's prompts.
        name: What people call it.
        category: What kind of thing it is.
        visible: The numbers of the frames on which it is visible, in order.
        mean_iou: The mean of its predicted IoU there.
        events: What happened to it, such as "lost at frame 12".
    """

    object_id: int
    name: str
    category: str
    visible: Sequence[int]
    mean_iou: float
    events: Sequence[str]


def recording_html(title: str, frame_count: int, rows: Iterable[Row]) -> str:
    """A recording as HTML: its title, and a row for each object with the frames on which it is visible.

    Args:
        title: What the recording is; need not be escaped.
        frame_count: Frames of the video.
        rows: The objects.
    """
    heads = "".join(
        f"<th>{name}</th>" for name in ("", "object", "name", "class", "visible", "IoU", "frames", "events")
    )
    lines = "".join(_row(row, frame_count) for row in rows)
    return f"<p>{html.escape(title)}</p><table><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table>"


def _row(row: Row, frame_count: int) -> str:
    red, green, blue = colour_of(row.object_id)
    colour = f"rgb({red},{green},{blue})"
    scale = _LANE_WIDTH / max(1, frame_count)
    bars = "".join(
        f'<rect x="{begin * scale:.2f}" width="{(end - begin) * scale:.2f}" height="12" fill="{colour}"/>'
        for begin, end in _stretches(row.visible)
    )
    lane = f'<svg width="{_LANE_WIDTH}" height="12" role="img" aria-label="visible frames">{bars}</svg>'
    cells = (
        f'<span style="color:{colour}">&#9632;</span>',
        str(row.object_id),
        html.escape(row.name),
        html.escape(row.category),
        str(len(row.visible)),
        f"{row.mean_iou:.3f}" if row.visible else "-",
        lane,
        html.escape(", ".join(row.events)),
    )
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _stretches(frames: Sequence[int]) -> list[tuple[int, int]]:
    """Frames as stretches without a gap: the first frame, and the one after the last."""
    found: list[tuple[int, int]] = []
    for frame in frames:
        if found and found[-1][1] == frame:
            found[-1] = (found[-1][0], frame + 1)
        else:
            found.append((frame, frame + 1))
    return found
