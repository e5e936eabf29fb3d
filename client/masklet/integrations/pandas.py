"""Results as a `pandas.DataFrame` (https://pandas.pydata.org), a row for each object on each frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

from masklet.integrations import library
from masklet.recording import Recording

if TYPE_CHECKING:
    import pandas

COLUMNS = (
    "frame_index", "pts_seconds", "object_id", "name", "class_name", "visible", "x0", "y0", "x1", "y1", "area",
    "predicted_iou", "object_score", "event", "height", "width", "counts",
)  # fmt: skip
"""The columns of the table; `height`, `width` and `counts` are the mask's run-lengths."""


def table(recording: Recording) -> pandas.DataFrame:
    """A recording as a table.

    Returns:
        A row for each object on each frame, in order of frames and objects, with the columns `COLUMNS`. Corners of
        boxes are NaN where the mask is empty. ``masklet.decode_rle({"size": [height, width], "counts": counts})`` gives
        a mask.

    Raises:
        Unavailable: pandas is not installed.
    """
    pd = library("pandas", "pandas", "pandas")
    rows = []
    for frame in recording:
        for object_id, result in frame.objects.items():
            found = recording.objects[object_id]
            place = (frame.frame_index, frame.pts_seconds, object_id, found.name, found.class_name, result.visible)
            scores = (result.area, result.predicted_iou, result.object_score, result.event)
            rows.append((*place, *(result.box or (None,) * 4), *scores, *result.rle["size"], result.rle["counts"]))
    made = pd.DataFrame.from_records(rows, columns=list(COLUMNS))
    return made.astype(dict.fromkeys(("x0", "y0", "x1", "y1"), "float64"))
