"""Prompts on the command line: ``[OBJ:]X,Y[@FRAME]`` and similar forms."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NoReturn

import numpy as np
import numpy.typing as npt
import typer

from masklet.errors import InvalidArgument
from masklet.prompts import BACKGROUND, FOREGROUND, Prompt

_NUMBER = r"(\d+(?:\.\d*)?|\.\d+)"
_GRAMMAR = r"(?:(?P<object>\d+):)?{}(?:@(?P<frame>\d+))?"
_POINT = re.compile(_GRAMMAR.format(rf"{_NUMBER},{_NUMBER}"), re.ASCII)
_BOX = re.compile(_GRAMMAR.format(",".join([_NUMBER] * 4)), re.ASCII)
_MASK = re.compile(_GRAMMAR.format("(.+?)"), re.ASCII)


def _prompt_option(name: str, form: str, text: str) -> Any:
    return typer.Option(name, metavar=form, help=text, rich_help_panel="Prompts")


_FRAME = "[@FRAME]"
_POINT_FORM, _BOX_FORM = "[OBJ:]X,Y", "[OBJ:]X0,Y0,X1,Y1"
_POINT_HELP = "A click on the object: pixels from the left and from the top."
_BACKGROUND_HELP = "A click beside the object, on what does not belong to it."
_BOX_HELP = "A box around the object: its left, top, right and bottom edges, in pixels."

PointOption = Annotated[list[str] | None, _prompt_option("--point", _POINT_FORM + _FRAME, _POINT_HELP)]
BackgroundOption = Annotated[list[str] | None, _prompt_option("--background", _POINT_FORM + _FRAME, _BACKGROUND_HELP)]
BoxOption = Annotated[list[str] | None, _prompt_option("--box", _BOX_FORM + _FRAME, _BOX_HELP)]
# The same for a single picture, which has no frames.
PicturePointOption = Annotated[list[str] | None, _prompt_option("--point", _POINT_FORM, _POINT_HELP)]
PictureBackgroundOption = Annotated[list[str] | None, _prompt_option("--background", _POINT_FORM, _BACKGROUND_HELP)]
PictureBoxOption = Annotated[list[str] | None, _prompt_option("--box", _BOX_FORM, _BOX_HELP)]
MaskOption = Annotated[
    list[str] | None,
    typer.Option(
        "--mask",
        metavar="[OBJ:]FILE.png[@FRAME]",
        help="A picture of the object's mask, as large as the video; pixels other than 0 are the object.",
        rich_help_panel="Prompts",
    ),
]


@dataclass
class _Draft:
    """The parts of one prompt: what was given for one object on one frame."""

    points: list[tuple[float, float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    box: tuple[float, ...] | None = None
    mask: npt.NDArray[np.bool_] | None = None


class _Drafts:
    """The drafts of all prompts, by frame and object."""

    def __init__(self, *, one_picture: bool) -> None:
        self._one_picture = one_picture
        self._drafts: dict[tuple[int, int], _Draft] = {}

    def add_points(self, option: str, words: Iterable[str], label: int) -> None:
        for word in words:
            draft, (x, y) = self._parse(option, _POINT, word, "[OBJ:]X,Y[@FRAME]", "2:360,480@15")
            draft.points.append((float(x), float(y)))
            draft.labels.append(label)

    def add_boxes(self, words: Iterable[str]) -> None:
        for word in words:
            draft, corners = self._parse("--box", _BOX, word, "[OBJ:]X0,Y0,X1,Y1[@FRAME]", "2:100,80,300,240@15")
            if draft.box is not None:
                _refuse("--box", f"{word!r} is a second box for the same object and frame; give it another OBJ")
            draft.box = tuple(float(corner) for corner in corners)

    def add_masks(self, words: Iterable[str]) -> None:
        for word in words:
            draft, (name,) = self._parse("--mask", _MASK, word, "[OBJ:]FILE.png[@FRAME]", "2:dog.png@15")
            if draft.mask is not None:
                _refuse("--mask", f"{word!r} is a second mask for the same object and frame; give it another OBJ")
            draft.mask = _read_mask(name)

    def prompts(self) -> list[Prompt]:
        return [self._prompt(*key, draft) for key, draft in sorted(self._drafts.items(), key=lambda item: item[0])]

    def _parse(
        self, option: str, grammar: re.Pattern[str], word: str, form: str, example: str
    ) -> tuple[_Draft, Sequence[str]]:
        match = grammar.fullmatch(word)
        if self._one_picture:
            form, example = form.replace("[@FRAME]", ""), example.partition("@")[0]
        if match is None:
            _refuse(option, f"{word!r} is not {form}, such as {example}")
        if self._one_picture and match["frame"]:
            _refuse(option, f"{word!r} names a frame, but this is a single picture; leave out @{match['frame']}")
        object_id, frame_index = int(match["object"] or 1), int(match["frame"] or 0)
        if object_id == 0:
            _refuse(option, f"{word!r}: object 0 does not exist; OBJ starts at 1")
        values = [text for text in match.groups()[1:-1] if text is not None]
        return self._drafts.setdefault((frame_index, object_id), _Draft()), values

    def _prompt(self, frame_index: int, object_id: int, draft: _Draft) -> Prompt:
        try:
            return Prompt(
                object_id=object_id,
                frame_index=frame_index,
                point_coords=np.array(draft.points, np.float32) if draft.points else None,
                point_labels=np.array(draft.labels, np.int32) if draft.points else None,
                box=np.array(draft.box, np.float32) if draft.box else None,
                mask=draft.mask,
            )
        except InvalidArgument as error:
            _refuse(None, f"object {object_id}, frame {frame_index}: {error}")


def read_prompts(
    *,
    points: Sequence[str] | None = None,
    background: Sequence[str] | None = None,
    boxes: Sequence[str] | None = None,
    masks: Sequence[str] | None = None,
    one_picture: bool = False,
) -> list[Prompt]:
    """The prompts that the options describe, in order of frames and objects.

    Points and a box for the same object on the same frame become one prompt; points keep their order.

    Args:
        points: The values of --point.
        background: The values of --background.
        boxes: The values of --box.
        masks: The values of --mask.
        one_picture: The prompts are for a single picture, so that they cannot name a frame.

    Raises:
        typer.BadParameter: A value is malformed, the values contradict one another, or there are none.
        OSError: A mask's file cannot be read.
    """
    drafts = _Drafts(one_picture=one_picture)
    drafts.add_points("--point", points or (), FOREGROUND)
    drafts.add_points("--background", background or (), BACKGROUND)
    drafts.add_boxes(boxes or ())
    drafts.add_masks(masks or ())
    prompts = drafts.prompts()
    if not prompts:
        raise typer.BadParameter(
            "there is no prompt; add --point X,Y or --box X0,Y0,X1,Y1" + ("" if one_picture else " or --mask FILE.png"),
            param_hint="prompts",
        )
    return prompts


def _read_mask(name: str) -> npt.NDArray[np.bool_]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(Path(name)) as image:
            # An index of a palette and a gray level mean the same here: 0 is background.
            values = np.asarray(image if image.mode in ("1", "L", "P") else image.convert("L"))
            return values.astype(np.bool_)
    except UnidentifiedImageError:
        _refuse("--mask", f"{name} is not a picture; give a PNG as large as the video")


def _refuse(option: str | None, message: str) -> NoReturn:
    raise typer.BadParameter(message, param_hint=option or "prompts")
