"""What the page can export: the formats of `masklet.export`, and masklet's own files of results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from masklet.errors import InvalidArgument
from masklet.export import FORMATS
from masklet.export.formats import ExportOptions, Settings

OWN = "masklet"
_OWN_SUFFIXES = (".jsonl", ".json", ".parquet")
_ZIP = ".zip"
_TITLES = {
    "coco": "COCO",
    "yolo": "YOLO segmentation",
    "cvat": "CVAT for video",
    "matte": "Matte for editors",
    "masks-video": "Video of masks",
    "davis": "DAVIS",
    "youtube-vos": "YouTube-VOS",
    "youtube-vis": "YouTube-VIS",
    "mot": "MOTChallenge",
    "mots": "MOTS",
    "label-studio": "Label Studio",
    "labelme": "LabelMe",
    OWN: "masklet",
}
"""What people call the formats. Those that most people want come first; one that is not here comes last."""
_OPTIONS = ("pictures", "shape", "tolerance", "background", "feather")


@dataclass(frozen=True)
class Export:
    """What is to be exported.

    Attributes:
        to: The format's name.
        extension: What the file's name ends in; ".zip" for a folder.
        objects: The objects; None: all.
        options: Those of `masklet.export.write`.
    """

    to: str
    extension: str
    objects: tuple[int, ...] | None
    options: dict[str, Any]

    @property
    def is_folder(self) -> bool:
        """Whether a folder is made, which goes into an archive."""
        return self.extension == _ZIP


def known_formats() -> list[dict[str, Any]]:
    """The formats as the page lists them, in the order in which it shows them."""
    own = {
        "format": OWN, "name": _TITLES[OWN], "extension": _OWN_SUFFIXES[0], "extensions": list(_OWN_SUFFIXES),
        "what": "masklet's own results, for masklet export and masklet.Recording.", "options": [],
    }  # fmt: skip
    listed = [own]
    for known in FORMATS.values():
        extensions = extensions_of(known.name)
        listed.append(
            {
                "format": known.name,
                "name": _TITLES.get(known.name, known.name),
                "extension": extensions[0],
                "extensions": extensions,
                "what": known.description,
                "options": sorted(known.options & set(_OPTIONS)),
            }
        )
    order = list(_TITLES)
    return sorted(listed, key=lambda one: order.index(one["format"]) if one["format"] in order else len(order))


def extensions_of(to: str) -> list[str]:
    """What the name of a format's file may end in."""
    if to == OWN:
        return list(_OWN_SUFFIXES)
    known = FORMATS[to]
    return [*known.suffixes, *([_ZIP] if known.folder else [])]


def export_of(request: Mapping[str, Any]) -> Export:
    """What a request of the page asks for, checked.

    Raises:
        InvalidArgument: There is no such format, or an option is wrong.
    """
    to, options = request.get("format"), request.get("options") or {}
    if to != OWN and to not in FORMATS:
        raise InvalidArgument.of("format", f"is {to!r:.40}, must be one of {', '.join([OWN, *FORMATS])}")
    if not isinstance(options, dict):
        raise InvalidArgument.of("options", "must be an object")
    extensions = extensions_of(to)
    extension = options.get("extension") or extensions[0]
    if extension not in extensions:
        raise InvalidArgument.of("options.extension", f"is {extension!r:.20}, must be one of {', '.join(extensions)}")
    objects = options.get("objects")
    if objects is not None and not (isinstance(objects, list) and objects and all(type(one) is int for one in objects)):
        raise InvalidArgument.of("options.objects", "must be a list of objects, or null for all")
    given = {name: options[name] for name in _OPTIONS if options.get(name) is not None}
    if unknown := options.keys() - {*_OPTIONS, "extension", "objects"}:
        raise InvalidArgument.of(f"options.{min(unknown)}", f"is no option; options are: {', '.join(_OPTIONS)}")
    try:
        Settings.of(cast("ExportOptions", given))
    except InvalidArgument as error:
        raise error.within("options") from None
    return Export(to, extension, None if objects is None else tuple(objects), given)
