"""Results as Parquet: a table with a row for each object on each frame. Needs pyarrow, which is imported here alone.

The columns are those of a frame and of an object in JSON. A frame without objects is a row without an `object_id`. The
header is JSON in the file's metadata, under the key "masklet".
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from masklet.errors import InvalidArgument, Unavailable

if TYPE_CHECKING:
    import pyarrow

_KEY = b"masklet"
_ROWS = 4096  # written at a time
_EMPTY = dict.fromkeys(
    ("object_id", "height", "width", "counts", "x0", "y0", "x1", "y1", "area", "predicted_iou", "object_score",
     "visible", "event")
)  # fmt: skip


def write(path: Path, head: Mapping[str, Any], frames: Iterable[Mapping[str, Any]]) -> None:
    """Write a table of results.

    Args:
        path: The file, overwritten if it exists.
        head: As `result_files.header` makes it.
        frames: As `result_files.frame_to_dict` makes them.

    Raises:
        Unavailable: pyarrow is not installed.
        OSError: The file cannot be written.
    """
    pa, parquet = _pyarrow()
    columns = schema().with_metadata({_KEY: json.dumps(head).encode()})
    rows = itertools.chain.from_iterable(map(rows_of, frames))
    with parquet.ParquetWriter(path, columns) as writer:
        while batch := list(itertools.islice(rows, _ROWS)):
            writer.write_table(pa.Table.from_pylist(batch, columns))


def read(path: Path) -> tuple[dict[str, Any], Iterator[dict[str, Any]]]:
    """Read a table of results: the header, and the frames one at a time.

    Raises:
        InvalidArgument: The file is not such a table.
        Unavailable: pyarrow is not installed.
        OSError: The file cannot be read.
    """
    pa, parquet = _pyarrow()
    try:
        file = parquet.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise InvalidArgument.of("path", f"{path} is not Parquet: {error}") from error
    metadata = file.schema_arrow.metadata or {}
    if _KEY not in metadata:
        raise InvalidArgument.of("path", f"{path} is Parquet, but not one of masklet's results")
    return json.loads(metadata[_KEY]), _frames(file)


def _frames(file: Any) -> Iterator[dict[str, Any]]:
    rows = itertools.chain.from_iterable(batch.to_pylist() for batch in file.iter_batches(_ROWS))
    for (frame_index, pts_seconds), group in itertools.groupby(
        rows, key=lambda row: (row["frame_index"], row["pts_seconds"])
    ):
        objects = [_object(row) for row in group if row["object_id"] is not None]
        yield {"frame_index": frame_index, "pts_seconds": pts_seconds, "objects": objects}


def _object(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "object_id": row["object_id"],
        "rle": {"size": [row["height"], row["width"]], "counts": row["counts"]},
        "box": None if row["x0"] is None else [row["x0"], row["y0"], row["x1"], row["y1"]],
        "area": row["area"],
        "predicted_iou": row["predicted_iou"],
        "object_score": row["object_score"],
        "visible": row["visible"],
        "event": row["event"],
    }


def rows_of(frame: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The rows of a frame, one for each object; a single one without an object where there is none.

    Args:
        frame: As `result_files.frame_to_dict` makes it.
    """
    beginning = {"frame_index": frame["frame_index"], "pts_seconds": frame["pts_seconds"]}
    if not frame["objects"]:
        yield {**beginning, **_EMPTY}
    for found in frame["objects"]:
        height, width = found["rle"]["size"]
        corners = dict(zip(("x0", "y0", "x1", "y1"), found["box"] or (None,) * 4, strict=True))
        names = ("object_id", "area", "predicted_iou", "object_score", "visible", "event")
        rest = {name: found[name] for name in names}
        yield {**beginning, "height": height, "width": width, "counts": found["rle"]["counts"], **corners, **rest}


def schema() -> pyarrow.Schema:
    """The columns of a table of results.

    Raises:
        Unavailable: pyarrow is not installed.
    """
    pa, _ = _pyarrow()
    return pa.schema(
        [
            ("frame_index", pa.int64()),
            ("pts_seconds", pa.float64()),
            ("object_id", pa.int64()),
            ("height", pa.int32()),
            ("width", pa.int32()),
            ("counts", pa.string()),
            *((name, pa.float64()) for name in ("x0", "y0", "x1", "y1")),
            ("area", pa.int64()),
            ("predicted_iou", pa.float64()),
            ("object_score", pa.float64()),
            ("visible", pa.bool_()),
            ("event", pa.string()),
        ]
    )


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise Unavailable("Parquet needs pyarrow, which is not installed: pip install 'masklet[parquet]'") from None
    return pyarrow, pyarrow.parquet
