"""A client that tracks an object beside an attack, in a process of its own: ``python -m tests.hostile.honest ADDRESS``.

For each line on standard input it tracks the same short series of pictures, and answers with one line of JSON: the
seconds from sending each picture to its result, and a digest of all masks.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from typing import Any

import numpy as np

import masklet
from masklet import Prompt
from masklet.errors import MaskletError

FRAMES, HEIGHT, WIDTH = 30, 240, 320


def pictures() -> list[np.typing.NDArray[np.uint8]]:
    """A square that goes over a plain."""
    found = []
    for i in range(FRAMES):
        picture = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
        picture[60:120, 40 + 4 * i : 100 + 4 * i] = (230, 200, 40)
        found.append(picture)
    return found


def track(client: masklet.Client) -> dict[str, Any]:
    """Track the series once, each picture when the result of the one before is there."""
    digest, seconds = hashlib.sha256(), []
    with client.live(Prompt(point_coords=[(70.0, 90.0)]), delivery="lossless") as live:
        results = iter(live)
        for picture in pictures():
            began = time.monotonic()
            live.send(picture)
            result = next(results)
            seconds.append(time.monotonic() - began)
            for _, found in sorted(result.objects.items()):
                digest.update(np.packbits(found.mask).tobytes())
        live.end()
        for _ in results:  # the stream's end: a client that leaves before it may come back, and so the server waits
            raise RuntimeError("a result for no picture")
    return {"seconds": seconds, "masks": digest.hexdigest()}


def main() -> None:
    """Answer each line until there are no more."""
    with masklet.Client(sys.argv[1], token=sys.argv[2]) as client:
        for _ in sys.stdin:
            try:
                answer = track(client)
            except MaskletError as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
