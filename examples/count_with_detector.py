"""Count what moves: a detector's boxes become masks, and masks tell new objects from those that are followed already.

Start a server first (`masklet serve`), then: python examples/count_with_detector.py VIDEO [ADDRESS]

The detector here is OpenCV's background subtraction (pip install opencv-python-headless). It knows no classes, needs a
camera that stands still, and takes shadows for objects; put your own in its place: anything that gives boxes will do.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import av
import cv2
import numpy as np
import numpy.typing as npt

import masklet

Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Box = tuple[int, int, int, int]

FRAMES_TO_LEARN = 5  # the background, before anything is detected
DETECT_EVERY = 5
# Of a box or a mask, whichever is smaller: the part in common that makes them the same object.
MIN_OVERLAP = 0.3
FRAMES_TO_FORGET = 30  # an object that is not seen any more


class Detector:
    """Boxes around what differs from the background, x0, y0, x1, y1."""

    def __init__(self, min_area: int = 400) -> None:
        self._min_area = min_area
        self._background = cv2.createBackgroundSubtractorMOG2(history=200, detectShadows=False)

    def __call__(self, image: Image) -> list[Box]:
        """Boxes on the next picture ``uint8[H, W, 3]``; every picture has to pass."""
        moving = self._background.apply(cv2.GaussianBlur(image, (5, 5), 0))
        moving = cv2.morphologyEx(moving, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
        contours, _ = cv2.findContours(moving, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        corners = [cv2.boundingRect(contour) for contour in contours]
        return [(x, y, x + w, y + h) for x, y, w, h in corners if w * h >= self._min_area]


def is_followed(box: Box, masks: list[Mask]) -> bool:
    """Whether a mask and the box have enough in common."""
    x0, y0, x1, y1 = box
    for mask in masks:
        smaller = min(int(mask.sum()), (x1 - x0) * (y1 - y0))
        if smaller and mask[y0:y1, x0:x1].sum() >= MIN_OVERLAP * smaller:
            return True
    return False


def count(client: masklet.Client, images: Iterator[Image], detect: Detector) -> Iterator[tuple[int, int]]:
    """How many objects are to be seen on each frame, and how many were seen so far."""
    masks: dict[int, Mask] = {}
    last_seen: dict[int, int] = {}
    total = 0
    with client.live(delivery="lossless") as live:
        for index, image in enumerate(images):
            boxes = detect(image)
            if index >= FRAMES_TO_LEARN and index % DETECT_EVERY == 0:
                for box in boxes:
                    if not is_followed(box, list(masks.values())):
                        total += 1
                        last_seen[total] = index
                        masks[total] = np.zeros(image.shape[:2], np.bool_)
                        masks[total][box[1] : box[3], box[0] : box[2]] = True  # until its own mask comes
                        live.prompt(masklet.Prompt(object_id=total, box=box))
            live.send(image)  # the frame that the prompts before it are for
            masks = {i: found.mask for i, found in next(live).objects.items() if found.visible}
            last_seen.update(dict.fromkeys(masks, index))
            for object_id in [i for i, seen in last_seen.items() if index - seen > FRAMES_TO_FORGET]:
                live.remove(object_id)
                del last_seen[object_id]
            yield len(masks), total


def frames(video: str) -> Iterator[Image]:
    """Pictures of a video, RGB."""
    with av.open(video) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)


def main(video: str, address: str = "127.0.0.1:50051") -> None:
    """Print a line a frame."""
    with masklet.Client(address) as client:
        for index, (here, total) in enumerate(count(client, frames(video), Detector())):
            print(f"frame {index}: {here} here, {total} so far")


if __name__ == "__main__":
    main(*sys.argv[1:3])
