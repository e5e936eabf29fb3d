"""`masklet segment`: masks of objects in one picture."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import numpy.typing as npt
import typer
from rich import box as boxes
from rich.table import Table

import masklet
from masklet.cli.console import object_label, out, tell_written
from masklet.cli.outputs import check_not_read
from masklet.cli.prompts import PictureBackgroundOption, PictureBoxOption, PicturePointOption, read_prompts
from masklet.cli.server import (
    Access,
    CaOption,
    CertOption,
    EdgesOption,
    InsecureOption,
    KeyOption,
    ModelOption,
    ServerOption,
    TokenFileOption,
    checked_edges,
)

if TYPE_CHECKING:
    from masklet import Client, Prompt, Segmentation, SegmentOptions

_PANEL = "Results"
_NO_OUTPUT = "no file was written; add --mask OUT.png, --cutout OUT.png or --overlay OUT.png"
_Mask = npt.NDArray[np.bool_]


def segment(
    image: Annotated[
        Path,
        typer.Argument(
            metavar="IMAGE", help="A picture file: JPEG, PNG, WebP, BMP, TIFF, GIF or AVIF; HEIC with pillow-heif."
        ),
    ],
    point: PicturePointOption = None,
    background: PictureBackgroundOption = None,
    box: PictureBoxOption = None,
    mask: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT.png",
            help="Write the mask as a gray PNG, 255 for the object; of several objects, a PNG whose pixels are OBJ.",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    cutout: Annotated[
        Path | None,
        typer.Option(metavar="OUT.png", help="Write the objects on a transparent background.", rich_help_panel=_PANEL),
    ] = None,
    overlay: Annotated[
        Path | None,
        typer.Option(metavar="OUT.png", help="Write the picture with the masks drawn over it.", rich_help_panel=_PANEL),
    ] = None,
    model: ModelOption = None,
    edges: EdgesOption = None,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
    insecure: InsecureOption = False,
) -> None:
    """Segment objects in a picture.

    OBJ is the number of the object that a prompt is for, 1 if it is left out. Every prompt may be given several times.
    Prompts with the same OBJ describe the same object:

    masklet segment photo.jpg --point 360,480 --background 50,50 --cutout rabbit.png
    """
    prompts = read_prompts(points=point, background=background, boxes=box, one_picture=True)
    options: SegmentOptions = {"model": model or "", "return_logits": False}
    if (drawn := checked_edges(edges)) is not None:
        options["edges"] = drawn
    image.stat()  # a wrong name is reported before a server is started
    for option, file in (("--mask", mask), ("--cutout", cutout), ("--overlay", overlay)):
        if file is not None:
            check_not_read(image, file, option)
    with Access(server, token_file, ca, cert, key, insecure).connect(model) as client:
        answers = _segment_each(client, image, prompts, options)
    masks = {object_id: answer.masks[0] for object_id, answer in answers.items()}
    _print(answers, masks)
    _write(image, masks, mask=mask, cutout=cutout, overlay=overlay)


def _segment_each(
    client: Client, image: Path, prompts: list[Prompt], options: SegmentOptions
) -> dict[int, Segmentation]:
    """One answer for each object; the picture is encoded once."""
    answers: dict[int, Segmentation] = {}
    source: Path | Segmentation = image
    for prompt in prompts:
        # A single click may mean a part or the whole: ask for three candidates, of which the best comes first.
        ambiguous = prompt.box is None and prompt.point_coords is not None and len(prompt.point_coords) == 1
        arguments: SegmentOptions = {
            **options,
            "point_coords": prompt.point_coords,
            "point_labels": prompt.point_labels,
            "box": prompt.box,
            "multimask_output": ambiguous,
        }
        source = answers[prompt.object_id] = client.segment(source, **arguments)
    return answers


def _print(answers: dict[int, Segmentation], masks: dict[int, _Mask]) -> None:
    table = Table(box=boxes.SIMPLE_HEAD)
    for heading in ("object", "predicted IoU", "area in pixels", "share"):
        table.add_column(heading, justify="right")
    for object_id, answer in answers.items():
        area = int(masks[object_id].sum())
        share = area / masks[object_id].size
        table.add_row(object_label(object_id), f"{answer.scores[0]:.3f}", f"{area:,}", f"{share:.1%}")
    out().print(table)


def _write(
    image: Path, masks: dict[int, _Mask], *, mask: Path | None, cutout: Path | None, overlay: Path | None
) -> None:
    from PIL import Image

    if mask is not None:
        if len(masks) == 1:
            masklet.save_mask(mask, next(iter(masks.values())))
        else:
            masklet.save_indexed_masks(mask, masks)
    if cutout is not None:
        masklet.cutout(image, functools.reduce(np.logical_or, masks.values())).save(cutout, format="PNG")
    if overlay is not None:
        Image.fromarray(masklet.overlay(image, masks)).save(overlay)
    tell_written([("mask", mask), ("cutout", cutout), ("overlay", overlay)], otherwise=_NO_OUTPUT)
