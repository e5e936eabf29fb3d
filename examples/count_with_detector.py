"""Count what moves: a detector finds boxes, masklet tracks them as masks, and the masks tell which boxes are new.

Start a server first (`masklet serve`), then: python examples/count_with_detector.py [VIDEO [ADDRESS]]

The detector here is OpenCV's background subtraction (pip install opencv-python-headless). It knows no classes, needs a
camera that does not move, and takes shadows for objects. Put your own detector in its place: anything that gives boxes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt

import masklet

CLIP = str(Path(__file__).parent / "bunny.mp4")  # a camera that does not move shows better what this can do
Picture = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Box = tuple[int, int, int, int]

FRAMES_TO_LEARN = 5  # the background, before anything is detected
DETECT_EVERY = 5
# A box and a mask are the same object if they share this part of the smaller one.
MIN_OVERLAP = 0.3
MAX_OBJECTS = 8  # tracked at once; a server has a limit, too
FRAMES_TO_FORGET = 30  # an object that is not visible


class Detector:
    """Finds boxes (x0, y0, x1, y1, in pixels) around what differs from the background."""

    def __init__(self, min_area: int = 400) -> None:
        self._min_area = min_area
        self._background = cv2.createBackgroundSubtractorMOG2(history=200, detectShadows=False)

    def __call__(self, picture: Picture) -> list[Box]:
        """The boxes on the next picture ``uint8[H, W, 3]``; it must be given every picture."""
        moving = self._background.apply(cv2.GaussianBlur(picture, (5, 5), 0))
        moving = cv2.morphologyEx(moving, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
        contours, _ = cv2.findContours(moving, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        corners = [cv2.boundingRect(contour) for contour in contours]
        return [(x, y, x + w, y + h) for x, y, w, h in corners if w * h >= self._min_area]


def is_tracked(box: Box, masks: list[Mask]) -> bool:
    """Whether one of the masks shares enough with the box."""
    x0, y0, x1, y1 = box
    for mask in masks:
        smaller = min(int(mask.sum()), (x1 - x0) * (y1 - y0))
        if smaller and mask[y0:y1, x0:x1].sum() >= MIN_OVERLAP * smaller:
            return True
    return False


def count(client: masklet.Client, pictures: Iterator[Picture], detect: Detector) -> Iterator[tuple[int, int]]:
    """How many objects are visible on each frame, and how many were found so far."""
    masks: dict[int, Mask] = {}
    last_seen: dict[int, int] = {}
    total = 0
    with client.live(delivery="lossless") as live:
        for index, picture in enumerate(pictures):
            boxes = detect(picture)
            if index >= FRAMES_TO_LEARN and index % DETECT_EVERY == 0:
                for box in boxes:
                    if len(last_seen) < MAX_OBJECTS and not is_tracked(box, list(masks.values())):
                        total += 1
                        last_seen[total] = index
                        masks[total] = np.zeros(picture.shape[:2], np.bool_)
                        masks[total][box[1] : box[3], box[0] : box[2]] = True  # until its first mask comes
                        live.prompt(masklet.Prompt(object_id=total, box=box))
            live.send(picture)  # the prompts before it are for this frame
            masks = {i: found.mask for i, found in next(live).objects.items() if found.visible}
            last_seen.update(dict.fromkeys(masks, index))
            for object_id in [i for i, seen in last_seen.items() if index - seen > FRAMES_TO_FORGET]:
                live.remove_object(object_id)
                del last_seen[object_id]
            yield len(masks), total


def frames(video: str) -> Iterator[Picture]:
    """The frames of a video, RGB."""
    with av.open(video) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)


def main(video: str = CLIP, address: str = "127.0.0.1:50051") -> None:
    """Print a line for each frame."""
    with masklet.Client(address) as client:
        for index, (here, total) in enumerate(count(client, frames(video), Detector())):
            print(f"frame {index}: {here} visible, {total} so far")


if __name__ == "__main__":
    main(*sys.argv[1:3])
