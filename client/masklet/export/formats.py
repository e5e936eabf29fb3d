"""Which formats there are, what each one is called, and the options that they share."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, TypedDict, get_args

from masklet._media.uploads import VideoSource
from masklet.errors import InvalidArgument
from masklet.recording import Recording

Shape = Literal["mask", "polygon"]
"""How a format that knows both has an object: as a mask, exactly, or as polygons."""

_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
BACKGROUNDS = ("transparent", "green", "blur", "black")


class ExportOptions(TypedDict, total=False):
    """Options of `masklet.export.write`. All of them may be left out.

    Attributes:
        video: The video, as for `Client.track`, for formats that need its pictures. Default: the recording's own
            `source`.
        pictures: True: write the frames as JPEG, too, for formats that have a place for them. Default: False.
        shape: "mask" or "polygon", for formats that know both. Default: the format's own way.
        tolerance: By how many pixels a polygon may leave the mask's outline. 0: not at all. Default: 1.0.
        background: What is behind the objects in a matte: "transparent", "green", "black", "blur" (the picture itself,
            blurred) or a colour such as "#00ff00". Default: "transparent".
        feather: How soft the edges of a matte are, in pixels (the standard deviation of a Gauss filter). 0: hard.
            Default: 0.7, which is just enough to have no steps.
    """

    video: VideoSource | None
    pictures: bool
    shape: Shape | None
    tolerance: float
    background: str
    feather: float


@dataclass(frozen=True)
class Settings:
    """The options of an export, all of them; `ExportOptions` describes them."""

    video: VideoSource | None = None
    pictures: bool = False
    shape: Shape | None = None
    tolerance: float = 1.0
    background: str = "transparent"
    feather: float = 0.7

    @classmethod
    def of(cls, options: ExportOptions) -> Settings:
        """The options that were given, and the defaults of the others.

        Raises:
            TypeError: There is no such option.
            InvalidArgument: An option has a wrong value.
        """
        settings = cls(**options)
        if settings.shape not in (None, *get_args(Shape)):
            raise InvalidArgument.of("shape", f"is {settings.shape!r}, must be one of {', '.join(get_args(Shape))}")
        for name, most in (("tolerance", 100.0), ("feather", 100.0)):
            value = getattr(settings, name)
            if not isinstance(value, (int, float)) or not 0 <= value <= most:
                raise InvalidArgument.of(name, f"is {value!r}, must be a number of pixels from 0 to {most:g}")
        if settings.background not in BACKGROUNDS and not _COLOUR.fullmatch(str(settings.background)):
            raise InvalidArgument.of(
                "background",
                f"is {settings.background!r}, must be one of {', '.join(BACKGROUNDS)} or a colour such as #00ff00",
            )
        return settings

    def video_of(self, recording: Recording) -> VideoSource:
        """The video whose pictures are wanted.

        Raises:
            InvalidArgument: Nobody knows which one it is, or it is not where the results say.
        """
        if self.video is not None:
            return self.video
        if recording.source and not Path(recording.source).exists():
            raise InvalidArgument.of(
                "video",
                f"is needed for its pictures; the results name {recording.source}, which is not here: give its path",
            )
        if recording.source:
            return recording.source
        raise InvalidArgument.of("video", "is needed for its pictures, and the results do not name it; give its path")


@dataclass(frozen=True)
class ExportFormat:
    """A format that results can be written in.

    Attributes:
        name: What `masklet.export.write` and `masklet export --to` call it.
        description: One line for people.
        suffixes: What the name of its file may end in; empty for formats that are a folder.
        folder: True: the path may be a folder.
        needs_video: True: it cannot be written without the video's pictures.
        most_id: The largest id of an object that it can hold; None: any.
        options: The names of the options that matter to it.
    """

    name: str
    description: str
    suffixes: tuple[str, ...] = ()
    folder: bool = False
    options: frozenset[str] = frozenset()
    needs_video: bool = False
    most_id: int | None = None

    def check(self, path: Path, settings: Settings) -> None:
        """Refuse a path that does not go with the format, and options that mean nothing to it.

        Raises:
            InvalidArgument: The path has the wrong suffix, or an option has no meaning here.
        """
        is_file = path.suffix.lower() in self.suffixes
        is_folder = path.is_dir() or not (path.exists() or path.suffix.lower() in _OF_FILES)
        if not is_file and not (self.folder and is_folder):
            kinds = [
                *(f"a file that ends in {suffix}" for suffix in self.suffixes),
                *(["a folder"] if self.folder else []),
            ]
            raise InvalidArgument.of("path", f"{path} does not go with {self.name}, which is {' or '.join(kinds)}")
        default = Settings()
        for name in ("pictures", "shape", "background"):
            if name not in self.options and getattr(settings, name) != getattr(default, name):
                raise InvalidArgument.of(name, f"means nothing to {self.name}; leave it out")
        if "background" in self.options and settings.background == "transparent" and path.suffix.lower() == ".mp4":
            raise InvalidArgument.of(
                "background",
                "transparent does not go with .mp4: H.264 knows no alpha; write .mov or .webm, or choose green",
            )

    def writer(self) -> Callable[[Recording, Path, Settings], None]:
        """The function that writes it, imported when it is asked for."""
        module: Any = import_module(f"masklet.export.writers.{self.name.replace('-', '_')}")
        writer: Callable[[Recording, Path, Settings], None] = module.write
        return writer


_OF_FILES = frozenset({
    ".avi", ".csv", ".gif", ".jpeg", ".jpg", ".json", ".jsonl", ".m4v", ".mkv", ".mov", ".mp4", ".mpg", ".parquet",
    ".png", ".txt", ".webm", ".xml", ".zip",
})  # fmt: skip
"""What names of files end in. A new folder is not called so: it would be a mistake."""
_PICTURES = frozenset({"pictures", "video"})
_SHAPE = frozenset({"shape", "tolerance"})
FORMATS: dict[str, ExportFormat] = {
    known.name: known
    for known in (
        ExportFormat("coco", "COCO instances, with a track_id for each object.", (".json",), False, _PICTURES | _SHAPE),
        ExportFormat("youtube-vis", "YouTube-VIS: COCO for video, one annotation for each object.", (".json",)),
        ExportFormat("yolo", "YOLO segmentation: polygons and a data.yaml.", (), True, _PICTURES | {"tolerance"}),
        ExportFormat(
            "davis", "DAVIS: a PNG for each frame, whose pixels are object ids.", (), True, _PICTURES, most_id=255
        ),
        ExportFormat("youtube-vos", "YouTube-VOS: such PNGs and a meta.json.", (), True, _PICTURES, most_id=255),
        ExportFormat("cvat", "CVAT for video 1.1: a track for each object.", (".xml",), False, _SHAPE),
        ExportFormat("mot", "MOTChallenge boxes: gt.txt with seqinfo.ini, or one .txt.", (".txt",), True, _PICTURES),
        ExportFormat("mots", "MOTSChallenge masks: gt.txt, seqinfo.ini and PNGs.", (".txt",), True, _PICTURES),
        ExportFormat(
            "label-studio", "Label Studio: a VideoRectangle for each object.", (".json",), False, frozenset({"video"})
        ),
        ExportFormat("labelme", "LabelMe: a JSON for each frame.", (), True, _PICTURES | _SHAPE),
        ExportFormat(
            "masks-video", "A video of the masks: object ids (.mkv) or white on black.", (".mkv", ".mp4", ".mov")
        ),
        ExportFormat(
            "matte",
            "The objects without their background: ProRes 4444 (.mov), VP9 (.webm), H.264 (.mp4), or PNGs (a folder).",
            (".mov", ".webm", ".mp4"),
            True,
            frozenset({"video", "background", "feather"}),
            needs_video=True,
        ),
    )
}
"""The formats by name."""
