"""Tracking in a pipeline of Ray Data (https://docs.ray.io/en/latest/data/data.html): clips in, rows of results out.

    import ray
    from masklet.integrations.ray import Tracker

    clips = ray.data.from_items([{"path": "a.mp4", "prompts": '[{"points": [[345, 400]]}]'}])
    results = clips.map_batches(
        Tracker, fn_constructor_kwargs={"server": "10.0.0.1:50051"}, concurrency=4, batch_size=1
    )
    results.write_parquet("results")

Each actor tracks one clip after the other, so `concurrency` is how many clips are tracked at once. For batches without
a pipeline, `masklet.Batch` needs no Ray.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

import masklet
from masklet._embedded import embedded_server
from masklet._media import parquet_files, result_files
from masklet.batch.retrying import Patience, code_of, verdict
from masklet.errors import InvalidArgument, MaskletError
from masklet.importing.prompts import PromptFile, prompts_of_boxes, prompts_of_entries, read_prompts
from masklet.integrations import library
from masklet.recording import Recording

if TYPE_CHECKING:
    import pyarrow

    from masklet import TrackOptions

Rows = Literal["objects", "clips"]
"""What a row of the results is: one object on one frame; or a whole clip."""
OnFailure = Literal["raise", "row"]
"""What becomes of a clip that fails: the pipeline fails; or it has a row with the error."""


class Tracker:
    """A class for ``Dataset.map_batches``: tracks the clip of each row.

    A row has `path`, a video file or a folder of pictures that the actor can read, or `bytes`, a file's bytes; and
    `prompts`: JSON text or a list, as files of prompts have them (a detector's boxes, too), or the path of such a file.
    It may have `clip`, the clip's name in the results; else that is its path.

    With `rows` "objects" a row of the results is one object on one frame, with the columns of masklet's Parquet
    files, and `clip`, `name`, `class_name`, `code` and `error`. With "clips" a row is a clip: `clip`, `frames`,
    `objects`, `result`, which is what ``masklet track --json`` writes, `code` and `error`.

    Args:
        server: The server's address, or a gateway's. None: each actor starts a server of its own, with the model that
            `options` name; then give ``num_gpus=1``, too.
        rows: What a row of the results is.
        on_failure: What becomes of a clip that fails for good.
        patience: How often a clip is tried again after an error that may pass.
        options: As for `Client.track`; and "token", "root_certificates" and "secure" as for `Client`.

    Raises:
        InvalidArgument: An argument is wrong.
        Unavailable: pyarrow is not installed, or the server cannot be started.
    """

    def __init__(
        self,
        server: str | None = None,
        *,
        rows: Rows = "objects",
        on_failure: OnFailure = "raise",
        patience: Patience | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        library("pyarrow", "pyarrow", "ray")
        for name, value, known in (("rows", rows, Rows), ("on_failure", on_failure, OnFailure)):
            if value not in get_args(known):
                raise InvalidArgument.of(name, f"is {value!r}, must be one of {', '.join(get_args(known))}")
        self._rows, self._on_failure = rows, on_failure
        self._patience = patience or Patience()
        chosen = dict(options or {})
        access = {key: chosen.pop(key) for key in ("token", "root_certificates", "secure") if key in chosen}
        self._options: TrackOptions = chosen  # type: ignore[assignment]  # the client refuses what it does not know
        self._closing = contextlib.ExitStack()
        if server is None:
            start = embedded_server("to track without server=, this needs a server of its own, which")
            server = self._closing.enter_context(start(chosen.get("model") or None))
        self._client = self._closing.enter_context(masklet.Client(server, **access))

    def close(self) -> None:
        """End the connection, and the server if there is one of its own."""
        self._closing.close()

    def __call__(self, batch: Mapping[str, Any]) -> Iterator[pyarrow.Table]:
        """Track the clips of a batch, one after the other; a table for each.

        Args:
            batch: The columns of the rows.

        Raises:
            InvalidArgument: A column is missing.
            MaskletError: A clip failed, with ``on_failure="raise"``.
            OSError: A clip cannot be read.
        """
        columns = set(batch)
        if "prompts" not in columns or not {"path", "bytes"} & columns:
            raise InvalidArgument.of(
                "batch", f"has the columns {', '.join(sorted(columns))}; must have prompts, and path or bytes"
            )
        for number in range(len(batch["prompts"])):
            row = {name: _plain(values[number]) for name, values in batch.items()}
            clip = str(row.get("clip") or row.get("path") or "")
            try:
                yield self._table(clip, self._tracked(row))
            except (MaskletError, OSError) as error:
                if self._on_failure == "raise":
                    raise
                yield self._failure(clip, error)

    def _tracked(self, row: Mapping[str, Any]) -> Recording:
        prompts = _prompts(row["prompts"])
        video = row["bytes"] if row.get("bytes") is not None else row.get("path")
        if video is None:
            raise InvalidArgument.of("path", "is empty, and so are bytes; give one of them")
        attempt = 1
        while True:
            try:
                recording = self._client.track(video, prompts.prompts, **self._options).recording(progress=False)
            except (MaskletError, OSError) as error:  # noqa: PERF203 - each attempt fails alone
                if verdict(error) not in ("again", "busy") or attempt > self._patience.retries:
                    raise
                wait = error.retry_after_seconds if isinstance(error, MaskletError) else None
                time.sleep(self._patience.pause(attempt, wait or 0.0))
                attempt += 1
            else:
                for entry in prompts.objects.values():
                    recording.name(entry.object_id, entry.name or None, entry.class_name or None)
                return recording

    def _table(self, clip: str, recording: Recording) -> pyarrow.Table:
        if self._rows == "clips":
            frames = [result_files.frame_to_dict(frame) for frame in recording]
            result = json.dumps({**recording.header(), "frames": frames})
            return _clips_table(clip, len(recording), len(recording.objects), result)
        names = recording.objects
        rows = []
        for frame in recording:
            for row in parquet_files.rows_of(result_files.frame_to_dict(frame)):
                found = names.get(row["object_id"])
                named = {"name": found and found.name, "class_name": found and found.class_name}
                rows.append({"clip": clip, **row, **named, "code": "", "error": ""})
        return _objects_table(rows)

    def _failure(self, clip: str, error: MaskletError | OSError) -> pyarrow.Table:
        code, told = code_of(error), str(error)
        if self._rows == "clips":
            return _clips_table(clip, 0, 0, None, code, told)
        return _objects_table([{"clip": clip, "code": code, "error": told}])


def _objects_table(rows: list[dict[str, Any]]) -> pyarrow.Table:
    import pyarrow as pa

    texts = [pa.field(name, pa.string()) for name in ("name", "class_name", "code", "error")]
    schema = pa.schema([pa.field("clip", pa.string()), *parquet_files.schema(), *texts])
    return pa.Table.from_pylist(rows, schema)


def _clips_table(
    clip: str, frames: int, objects: int, result: str | None, code: str = "", error: str = ""
) -> pyarrow.Table:
    import pyarrow as pa

    schema = pa.schema(
        [
            ("clip", pa.string()),
            ("frames", pa.int64()),
            ("objects", pa.int64()),
            ("result", pa.string()),
            ("code", pa.string()),
            ("error", pa.string()),
        ]
    )
    row = {"clip": clip, "frames": frames, "objects": objects, "result": result, "code": code, "error": error}
    return pa.Table.from_pylist([row], schema)


def _plain(value: Any) -> Any:
    """A value of a batch as Python has it. Arrow gives each row the keys of all; None means that one is absent."""
    if isinstance(value, np.ndarray):
        return [_plain(item) for item in value.tolist()]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def _prompts(value: Any) -> PromptFile:
    if isinstance(value, str):
        if value.lstrip()[:1] not in ("[", "{"):
            return read_prompts(value)
        try:
            value = json.loads(value)
        except ValueError as error:
            raise InvalidArgument.of("prompts", f"are not JSON: {error}") from None
        if isinstance(value, dict):
            value = value.get("prompts")
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise InvalidArgument.of("prompts", f"are {value!r}, must be a list of objects, JSON of it, or a file's path")
    if any("bbox" in entry or "confidence" in entry for entry in value):
        return prompts_of_boxes(value, Path("row"), 0.0)
    return prompts_of_entries(value, Path("row"))
