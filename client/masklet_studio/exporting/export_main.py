"""The process that exports: reads a file of results and the video, and prints how far it is.

It decodes the video, whose file may be hostile, outside the gateway; and an export that is given up is ended with it.
"""

from __future__ import annotations

import json
import resource
import shutil
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import masklet
from masklet.errors import MaskletError
from masklet.export import write
from masklet.recording import Recording

MAX_MEMORY_BYTES = 16 << 30
"""Of address space, which is more than what is used."""
_TOLD_EVERY = 10  # frames


class CountedRecording(Recording):
    """A recording that tells how often its frames were read.

    Attributes:
        passes: How often they are read in all, as far as is known.
    """

    passes = 2
    _read = 0

    def __iter__(self) -> Iterator[masklet.FrameResult]:
        """Each frame, as a `Recording` gives them."""
        for frame in super().__iter__():
            self._read += 1
            if self._read % _TOLD_EVERY == 0:
                tell(done=min(self._read, self.passes * len(self)), total=self.passes * len(self))
            yield frame


def main() -> None:
    """Export what the JSON on the standard input says."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = MAX_MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(hard, MAX_MEMORY_BYTES)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    task: dict[str, Any] = json.load(sys.stdin)
    results, out = Path(task["results"]), Path(task["out"])
    try:
        recording = CountedRecording.load(results)
        if task["to"] == "masklet":
            recording.save(out)
        elif task["is_folder"]:
            folder = out.with_suffix("")
            write(recording, task["to"], folder, **task["options"])
            _pack(folder, out)
        else:
            write(recording, task["to"], out, **task["options"])
    except MaskletError as error:
        tell(error=error.message)
    except OSError as error:
        tell(error=f"the file cannot be written: {error.strerror or error}")
    else:
        tell(ready=True)


def tell(**message: Any) -> None:
    """Print a line for the gateway."""
    print(json.dumps(message), flush=True)


def _pack(folder: Path, out: Path) -> None:
    """Put a folder into an archive; its PNG and JPEG files are not compressed a second time."""
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                kind = zipfile.ZIP_STORED if path.suffix in (".png", ".jpg") else zipfile.ZIP_DEFLATED
                archive.write(path, path.relative_to(folder), compress_type=kind)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
