"""What an automatic session must know to go on, apart from the memories of its objects; to JSON's types and back."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import TypeAdapter, ValidationError

from masklet.errors import DataLoss, InvalidArgument
from masklet.prompts import Prompt
from masklet_server.engine.memory.bank import MemoryBank
from masklet_server.engine.serving.loaded_model import LoadedModel
from masklet_server.masks.encoding import EncodedMask, MaskEncoding
from masklet_server.session import events
from masklet_server.session.prompts import GivenPrompt
from masklet_server.session.replies import Taken

Unit = Literal["", "video_bytes", "frame_count", "packet_count"]
# Stands for a mask that is still encoded.
_ANY_MASK = np.ones((1, 1), np.bool_)


@dataclass(frozen=True)
class MaskState:
    """An encoded mask: the name of its encoding, its size, and its data in Base64."""

    encoding: str
    height: int
    width: int
    data: str


@dataclass(frozen=True)
class PromptState:
    """A prompt that waits for its frame. The attributes are those of `Prompt` and `Taken`."""

    object_id: int
    frame_index: int
    points: list[tuple[float, float, int]] | None
    box: list[float] | None
    mask: MaskState | None
    keep_old_points: bool
    pts_seconds: float | None
    request_id: int
    after_frame: int | None
    after_sequence: int

    @classmethod
    def of(cls, given: GivenPrompt) -> PromptState:
        """What must be known of a prompt. It was taken in a resumable session."""
        prompt, mask, taken = given.prompt, given.mask, given.taken or Taken(0, None, 0)
        points = None
        if prompt.point_coords is not None and prompt.point_labels is not None:
            pairs = zip(prompt.point_coords.tolist(), prompt.point_labels.tolist(), strict=True)
            points = [(x, y, label) for (x, y), label in pairs]
        encoded = None
        if mask is not None:
            data = base64.b64encode(mask.data).decode()
            encoded = MaskState(mask.encoding.value, mask.height, mask.width, data)
        return cls(
            prompt.object_id, prompt.frame_index, points, None if prompt.box is None else prompt.box.tolist(), encoded,
            prompt.keep_old_points, prompt.pts_seconds, taken.request_id, taken.after_frame, taken.after_sequence,
        )  # fmt: skip

    def given(self) -> GivenPrompt:
        """The prompt that this describes."""
        mask = self.mask
        prompt = Prompt(
            object_id=self.object_id,
            frame_index=self.frame_index,
            point_coords=None if self.points is None else [point[:2] for point in self.points],
            point_labels=None if self.points is None else [point[2] for point in self.points],
            box=self.box,
            mask=None if mask is None else _ANY_MASK,
            keep_old_points=self.keep_old_points,
            pts_seconds=self.pts_seconds,
        )
        encoded = None
        if mask is not None:
            encoded = EncodedMask(
                MaskEncoding(mask.encoding), mask.height, mask.width, base64.b64decode(mask.data, validate=True)
            )
        return GivenPrompt(prompt, encoded, Taken(self.request_id, self.after_frame, self.after_sequence))


@dataclass(frozen=True)
class VisibilityState:
    """Whether an object is seen; the attributes are those of `Visibility` and `Sighting`."""

    is_visible: bool
    against: int
    last_seen: tuple[float, float, tuple[int, int, int, int] | None, int, int] | None


@dataclass(frozen=True)
class ObjectState:
    """A tracked object, apart from its memory."""

    conditioning_frames: list[int]
    corrected_frames: list[int]
    visibility: VisibilityState


@dataclass(frozen=True)
class WindowFrame:
    """A frame that can still be corrected. It is decoded again."""

    index: int
    step: int
    skipped: list[int]
    clip_length: int | None
    revision: int


@dataclass(frozen=True)
class VideoState:
    """How far the video was tracked, and from where it must be sent again.

    Attributes:
        unit: As in `InputPosition`.
        count: The client sends the video again from here.
        first_index: Index of the frame with which the video then begins.
        steps: Number of frames that were tracked.
        last_index: Index of the last of them.
        size: Rows and columns of the last of them, as shown.
        checksum: Of all frames of a clip, up to the last one tracked.
        is_long: The clip was taken to have 16 frames or more, because its client had paused.
        codec: Of packets.
        extradata: What the codec needs beforehand, in Base64.
    """

    unit: Unit
    count: int
    first_index: int
    steps: int
    last_index: int
    size: tuple[int, int]
    checksum: int
    is_long: bool
    codec: str = ""
    extradata: str = ""


@dataclass(frozen=True)
class CreditState:
    """The numbering of results: the last one, those without an acknowledgement, and the last acknowledgement."""

    last_sent: int
    frames: list[int]
    last_acked: int


@dataclass(frozen=True)
class PromptsState:
    """The prompts that wait, those that name a time, and the times of the last frames."""

    waiting: list[PromptState]
    timed: list[PromptState]
    times: list[tuple[int, int]]


@dataclass(frozen=True)
class AutomaticState:
    """An automatic session between two steps, with nothing under way.

    Attributes:
        config: The fields of the configuration that began the session, as text.
        request_id: Requests up to this number were taken.
        video: How far the video was tracked.
        credits: The numbering of results.
        objects: By id.
        prompts: Those that wait.
        window: The frames that can be corrected, if the client has asked for them.
        weights: Checksum of the model's weights; empty: unknown.
    """

    config: dict[str, str]
    request_id: int
    video: VideoState
    credits: CreditState
    objects: dict[int, ObjectState]
    prompts: PromptsState
    window: list[WindowFrame]
    weights: str = ""

    def to_json(self) -> dict[str, Any]:
        """The state in JSON's types alone."""
        written: dict[str, Any] = _STATE.dump_python(self, mode="json")
        return written

    @classmethod
    def from_json(cls, value: object) -> AutomaticState:
        """What `to_json` gave.

        Raises:
            DataLoss: It is something else, such as what another version has written.
        """
        try:
            return _STATE.validate_python(value)
        except ValidationError as error:
            raise DataLoss(
                f"the snapshot is of another version: {error.error_count()} fields are not as known"
            ) from None


_STATE = TypeAdapter(AutomaticState)


def check_weights(state: AutomaticState, model: LoadedModel) -> None:
    """Make sure that a session goes on with the model that began it: memories mean nothing to another one.

    Raises:
        DataLoss: The loaded model has the same name and other weights.
    """
    if state.weights and model.weights_checksum and state.weights != model.weights_checksum:
        raise DataLoss(
            f"it is of a model {model.name!r} with other weights (checksum {state.weights}; loaded here: "
            f"{model.weights_checksum}); servers that share a state_dir need the same models"
        )


@dataclass(frozen=True, eq=False)
class Captured:
    """A session at one moment.

    Attributes:
        state: All but the memories.
        banks: By object id, a copy of its memory.
    """

    state: AutomaticState
    banks: Mapping[int, MemoryBank]


@dataclass(frozen=True, eq=False)
class Restored:
    """What a session goes on from.

    Attributes:
        session_id: Its id.
        state: All but the memories.
        banks: By object id, its memory.
        last_frame: The frame of the last result that the client has; None: it has none.
    """

    session_id: str
    state: AutomaticState
    banks: Mapping[int, MemoryBank]
    last_frame: int | None = None

    @property
    def first_index(self) -> int:
        """Where only the latest frames are wanted: the first frame of which the client has heard nothing."""
        return max(self.state.video.last_index, -1 if self.last_frame is None else self.last_frame) + 1


def config_fields(config: events.Configure) -> dict[str, str]:
    """The configuration as text, field by field, so that two can be compared across versions."""
    return {name: repr(value) for name, value in vars(config).items()}


def check_config(state: AutomaticState, config: events.Configure) -> None:
    """Make sure that a client goes on with the configuration that began the session.

    Raises:
        InvalidArgument: A field differs.
    """
    for name, value in config_fields(config).items():
        if state.config.get(name, value) != value:
            raise InvalidArgument.of(
                f"resume.config.{name}",
                f"is {value}, but the session began with {state.config[name]}; send the configuration that began it",
            )
