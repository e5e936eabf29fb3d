"""transformers' ``Sam2VideoInferenceSession``: a video, the prompts that wait, and the session on the server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from masklet._sync.annotation import Annotation
from masklet._sync.live import Live
from masklet.prompts import Prompt

Frames = list[npt.NDArray[np.uint8]]
"""The frames of a video, each ``uint8[H, W, 3]`` (RGB)."""


@dataclass
class GivenPrompt:
    """What a program gave for an object on a frame.

    Attributes:
        arguments: Those of `masklet.Prompt`.
        replaces: The server has an earlier prompt for the same object on the same frame.
        is_sent: The server has it.
    """

    arguments: dict[str, Any]
    replaces: bool = False
    is_sent: bool = False


@dataclass
class _Connection:
    """What the server has of the session; None until a model is called."""

    annotation: Annotation | None = None
    live: Live | None = None


@dataclass
class Sam2VideoInferenceSession:
    """What `Sam2VideoProcessor.init_video_session` returns.

    Attributes:
        video: The frames, each ``uint8[H, W, 3]``; None: they come one by one (`Sam2VideoModel` with `frame`).
        video_height: Rows of the video; None while no frame is known.
        video_width: Columns of the video; None while no frame is known.
        prompts: What was given, by the object's id on the server and the frame.
        streamed: The number of frames that have come one by one.
        connection: The session on the server.
    """

    video: Frames | None = None
    video_height: int | None = None
    video_width: int | None = None
    prompts: dict[tuple[int, int], GivenPrompt] = field(default_factory=dict)
    streamed: int = 0
    connection: _Connection = field(default_factory=_Connection, repr=False)
    _ids: dict[int, int] = field(default_factory=dict)

    @property
    def num_frames(self) -> int | None:
        """Frames of the video, or those that have come so far; None where none has come."""
        return len(self.video) if self.video is not None else self.streamed or None

    @property
    def obj_ids(self) -> list[int]:
        """The ids of all objects, in the order in which they were first prompted."""
        return list(self._ids)

    def get_obj_num(self) -> int:
        """The number of objects that were prompted so far."""
        return len(self._ids)

    def obj_id_to_idx(self, obj_id: int) -> int:
        """The place of an object among all of them; a new id becomes the last one."""
        self.wire_id(obj_id)
        return list(self._ids).index(obj_id)

    def obj_idx_to_id(self, obj_idx: int) -> int:
        """The id of the object at a place."""
        return list(self._ids)[obj_idx]

    def wire_id(self, obj_id: int) -> int:
        """The id of an object on the server; a new one where there is none yet."""
        return self._ids.setdefault(obj_id, len(self._ids) + 1)

    @property
    def wire_ids(self) -> Mapping[int, int]:
        """The ids on the server by those of the program."""
        return self._ids

    def waiting(self, frame_idx: int | None = None) -> list[tuple[Prompt, GivenPrompt]]:
        """The prompts that the server does not have yet.

        Args:
            frame_idx: Those on this frame alone; None: all.
        """
        return [
            (Prompt(wire_id, frame, **given.arguments), given)
            for (wire_id, frame), given in self.prompts.items()
            if not given.is_sent and frame_idx in (None, frame)
        ]

    def reset_tracking_data(self) -> None:
        """Forget all objects and prompts; the video stays."""
        self._ids.clear()
        self.prompts.clear()
        if self.connection.annotation is not None:
            self.connection.annotation.reset()
        if self.connection.live is not None:
            self.connection.live.close()
            self.connection.live = None
            self.streamed = 0

    def reset_inference_session(self) -> None:
        """Forget all objects and prompts, as `reset_tracking_data` does."""
        self.reset_tracking_data()

    def close(self) -> None:
        """End the session on the server. It also ends when nothing refers to it."""
        for running in (self.connection.annotation, self.connection.live):
            if running is not None:
                running.close()
