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

from masklet._media.mask_files import read_mask_file
from masklet.errors import InvalidArgument
from masklet.prompts import BACKGROUND, FOREGROUND, Prompt

_NUMBER = r"(\d+(?:\.\d*)?|\.\d+)"
_GRAMMAR = r"(?:(?P<object>\d+):)?{}(?:@(?P<frame>\d+))?"
_POINT = re.compile(_GRAMMAR.format(rf"{_NUMBER},{_NUMBER}"), re.ASCII)
_BOX = re.compile(_GRAMMAR.format(",".join([_NUMBER] * 4)), re.ASCII)
_MASK = re.compile(_GRAMMAR.format("(.+?)"), re.ASCII)
_FILE_AND_ID = re.compile(r"(.+)#(\d+)", re.ASCII)
_MASK_FORM = "[OBJ:]FILE[#ID][@FRAME]"


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
        metavar=_MASK_FORM,
        help="A picture of the object's mask, as large as the video: white on black, transparent around the object, or "
        "with several objects, each in its own colour. FILE alone prompts all of them; OBJ:FILE#ID one.",
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
            match = self._match("--mask", _MASK, word, _MASK_FORM, "2:dog.png@15")
            object_id = None if match["object"] is None else int(match["object"])
            for key, mask in _masks_of(match.group(2), object_id).items():
                draft = self._draft(key, match["frame"])
                if draft.mask is not None:
                    _refuse("--mask", f"{word!r} is a second mask for object {key} on this frame; give it another OBJ")
                draft.mask = mask

    def prompts(self) -> list[Prompt]:
        return [self._prompt(*key, draft) for key, draft in sorted(self._drafts.items(), key=lambda item: item[0])]

    def _parse(
        self, option: str, grammar: re.Pattern[str], word: str, form: str, example: str
    ) -> tuple[_Draft, Sequence[str]]:
        match = self._match(option, grammar, word, form, example)
        values = [text for text in match.groups()[1:-1] if text is not None]
        return self._draft(int(match["object"] or 1), match["frame"]), values

    def _match(self, option: str, grammar: re.Pattern[str], word: str, form: str, example: str) -> re.Match[str]:
        match = grammar.fullmatch(word)
        if self._one_picture:
            form, example = form.replace("[@FRAME]", ""), example.partition("@")[0]
        if match is None:
            _refuse(option, f"{word!r} is not {form}, such as {example}")
        if self._one_picture and match["frame"]:
            _refuse(option, f"{word!r} names a frame, but this is a single picture; leave out @{match['frame']}")
        if int(match["object"] or 1) == 0:
            _refuse(option, f"{word!r}: object 0 does not exist; OBJ starts at 1")
        return match

    def _draft(self, object_id: int, frame: str | None) -> _Draft:
        return self._drafts.setdefault((int(frame or 0), object_id), _Draft())

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


def _masks_of(name: str, object_id: int | None) -> dict[int, npt.NDArray[np.bool_]]:
    """The masks that a word of --mask means, by object.

    Args:
        name: The file, perhaps with ``#ID``.
        object_id: The object that the word names, if it names one.
    """
    chosen: int | None = None
    if (match := _FILE_AND_ID.fullmatch(name)) and not Path(name).exists():
        name, chosen = match.group(1), int(match.group(2))
    try:
        masks = read_mask_file(name)
    except InvalidArgument as error:
        _refuse("--mask", error.violations[0].description)
    listed = ", ".join(map(str, masks))
    if chosen is not None:
        if chosen not in masks:
            _refuse("--mask", f"{name} has no object {chosen}; it has {listed}")
        return {object_id or chosen: masks[chosen]}
    if object_id is None:
        return masks
    if object_id in masks:
        return {object_id: masks[object_id]}
    if len(masks) > 1:
        _refuse(
            "--mask", f"{name} has the objects {listed}: say which one is meant, as in {object_id}:{name}#{min(masks)}"
        )
    return {object_id: next(iter(masks.values()))}


def _refuse(option: str | None, message: str) -> NoReturn:
    raise typer.BadParameter(message, param_hint=option or "prompts")
