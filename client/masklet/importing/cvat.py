"""Reads CVAT's XML 1.1, for video (`track`) and for images (`image`): masks and polygons. Other shapes are left out.

A track is an object, and its id is the track's id + 1, because CVAT counts from 0 and masklet from 1. A shape of an
image is an object of its own, unless it has a `group_id`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from masklet._protocol.results import VideoInfo
from masklet.errors import InvalidArgument
from masklet.export.polygons import fill
from masklet.importing.masks import FRAME_RATE, frame_of, result_of, ring_of, size_of
from masklet.recording import Recording

_SHAPES = ("mask", "polygon")


def read(path: Path, video: str | None) -> Recording:
    """Read a file; arguments and errors are those of `masklet.importing.read`. A file holds one video."""
    del video
    reader = _Reader()
    try:
        # The file is the user's own, and expat itself refuses entities that grow without end.
        for event, element in ElementTree.iterparse(path, events=("start", "end")):  # noqa: S314
            reader.take(event, element)
    except ElementTree.ParseError as error:
        raise InvalidArgument.of("path", f"{path} is not XML: {error}") from None
    except KeyError as error:
        raise InvalidArgument.of("path", f"{path} is not CVAT's XML 1.1: a shape has no {error.args[0]!r}") from None
    except (ValueError, TypeError) as error:
        raise InvalidArgument.of("path", f"{path} is not CVAT's XML 1.1: {error}") from None
    if reader.size is None or not reader.found.objects:
        raise InvalidArgument.of("path", f"{path} holds no masks and no polygons of CVAT's XML 1.1")
    height, width = reader.size
    count = max(reader.count, reader.found.frame_count)
    reader.found.video = VideoInfo(height, width, FRAME_RATE, count / FRAME_RATE, count, "", "", 0)
    return reader.found


class _Reader:
    """Takes elements as they are parsed, and makes results of them."""

    def __init__(self) -> None:
        self.found = Recording()
        self.size: tuple[int, int] | None = None
        self.count = 0
        self._parent: dict[str, str] | None = None
        self._next = 1  # above all ids so far

    def take(self, event: str, element: ElementTree.Element) -> None:
        if event == "start":
            if element.tag in ("track", "image"):
                self._parent = {"tag": element.tag, **element.attrib}
                if element.tag == "image":
                    self.size = size_of(element.attrib["height"], element.attrib["width"])
            return
        if element.tag == "original_size":
            self.size = size_of(element.findtext("height", ""), element.findtext("width", ""))
        elif element.tag == "size" and element.text and self._parent is None:
            self.count = int(element.text)
        elif element.tag in _SHAPES and self._parent is not None:
            self._take_shape(element, self._parent)
        elif element.tag in ("track", "image"):
            self._parent = None
        if element.tag in ("track", "image", *_SHAPES):
            element.clear()

    def _take_shape(self, element: ElementTree.Element, parent: dict[str, str]) -> None:
        if self.size is None:
            raise ValueError("there is no 'original_size' before the tracks")
        attributes = element.attrib
        if parent["tag"] == "track":
            frame_index, object_id = int(attributes["frame"]), int(parent["id"]) + 1
            label = parent["label"]
        else:
            frame_index, label = int(parent["id"]), attributes["label"]
            object_id = int(attributes.get("group_id", 0)) or self._next
        self._next = max(self._next, object_id + 1)
        mask = np.zeros(self.size, np.bool_)
        if attributes.get("outside") != "1":
            mask = _mask(element.tag, attributes, self.size)
            earlier = self.found[frame_index].objects.get(object_id) if frame_index in self.found else None
            if earlier is not None:
                mask |= earlier.mask  # another part of a group
        self.found.add(frame_of(frame_index, {object_id: result_of(object_id, mask)}))
        self.found.name(object_id, class_name=label)


def _mask(tag: str, attributes: dict[str, Any], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    if tag == "polygon":
        corners = [[float(number) for number in pair.split(",")] for pair in attributes["points"].split(";")]
        return fill([ring_of(corners)], size)
    left, top, width, height = (int(float(attributes[name])) for name in ("left", "top", "width", "height"))
    runs = np.array([int(run) for run in attributes["rle"].split(",")], np.int64)
    if runs.min() < 0 or runs.sum() != width * height:
        raise ValueError(f"the runs of a mask make {runs.sum()} pixels, its box has {width * height}")
    if left < 0 or top < 0 or left + width > size[1] or top + height > size[0]:
        raise ValueError(f"a mask reaches to {left + width}, {top + height}, the frames are {size[1]}x{size[0]}")
    mask = np.zeros(size, np.bool_)
    mask[top : top + height, left : left + width] = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(
        height, width
    )
    return mask
