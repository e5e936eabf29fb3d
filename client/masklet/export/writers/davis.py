"""DAVIS 2017 (https://davischallenge.org): indexed PNGs, whose pixels are object ids, in DAVIS's folders.

    Annotations/Full-Resolution/clip/00000.png
    JPEGImages/Full-Resolution/clip/00000.jpg
    ImageSets/2017/val.txt

Where masks overlap, the higher id wins. Files are numbered as the frames are, from 0.
"""

from __future__ import annotations

from pathlib import Path

from masklet.drawing import save_indexed_masks
from masklet.export.files import FRAME_NAME, file_name, text_file, video_name, write_pictures
from masklet.export.formats import Settings
from masklet.recording import Recording

RESOLUTION = "Full-Resolution"


def write(recording: Recording, path: Path, settings: Settings) -> None:
    """Write the PNGs, the list of sequences, and the frames if they are asked for."""
    name = video_name(recording)
    write_indexed(recording, path / "Annotations" / RESOLUTION / name)
    write_pictures(recording, settings, path / "JPEGImages" / RESOLUTION / name, file_name)
    with text_file(path / "ImageSets" / "2017" / "val.txt") as file:
        file.write(f"{name}\n")


def write_indexed(recording: Recording, folder: Path) -> None:
    """Write an indexed PNG for each frame.

    Raises:
        InvalidArgument: An object's id is above 255.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for frame in recording:
        masks = {object_id: result.mask for object_id, result in frame.objects.items() if result.visible}
        save_indexed_masks(folder / f"{FRAME_NAME.format(frame.frame_index)}.png", masks, size=recording.size)
