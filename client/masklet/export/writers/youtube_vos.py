"""YouTube-VOS (https://youtube-vos.org): indexed PNGs as DAVIS has them, and a meta.json that names the objects.

Annotations/clip/00000.png
JPEGImages/clip/00000.jpg
meta.json        {"videos": {"clip": {"objects": {"1": {"category": "rabbit", "frames": ["00000", ...]}}}}}
"""

from __future__ import annotations

import json
from pathlib import Path

from masklet.export.files import FRAME_NAME, file_name, text_file, video_name, write_pictures
from masklet.export.formats import Settings
from masklet.export.writers.davis import write_indexed
from masklet.recording import Recording


def write(recording: Recording, path: Path, settings: Settings) -> None:
    """Write the PNGs, meta.json, and the frames if they are asked for."""
    name = video_name(recording)
    write_indexed(recording, path / "Annotations" / name)
    write_pictures(recording, settings, path / "JPEGImages" / name, file_name)
    objects = {
        str(object_id): {
            "category": found.category,
            "frames": [FRAME_NAME.format(i) for i, result in recording.masklet(object_id) if result.visible],
        }
        for object_id, found in recording.objects.items()
    }
    with text_file(path / "meta.json") as file:
        json.dump({"videos": {name: {"objects": objects}}}, file, indent=1)
        file.write("\n")
