"""Track what is in the middle of a camera's picture, and print how old each result is when it arrives.

Start a server first (`masklet serve`), then: python examples/live_camera.py [SOURCE [ADDRESS]]. The source is a camera
or stream that `masklet.capture` reads (rtsp://..., http://..., /dev/video0), or a file, played at its own pace.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import av

import masklet

CLIP = str(Path(__file__).parent / "bunny.mp4")


def film(live: masklet.Live, source: str) -> None:
    """Send the video as it comes, until it ends or the call does."""
    try:
        if Path(source).is_file():
            play(live, source)
        else:
            with masklet.capture(source, on_event=lambda event: print(event.message)) as camera:
                for part in camera:
                    taken = part.capture_time_nanoseconds
                    live.send(part.video, pts_seconds=part.pts_seconds, capture_time_nanoseconds=taken)
    except masklet.FailedPrecondition:
        print("the stream has ended")
    except masklet.MaskletError as error:
        print(error)
    live.end()


def play(live: masklet.Live, file: str) -> None:
    """Send the frames of a file at the file's own frame rate."""
    begun = time.monotonic()
    with av.open(file) as container:
        for frame in container.decode(container.streams.video[0]):
            if frame.time is not None:
                time.sleep(max(0.0, begun + frame.time - time.monotonic()))
            live.send(frame.to_image())  # type: ignore[no-untyped-call]


def main(source: str = CLIP, address: str = "127.0.0.1:50051") -> None:
    """Print a line for each result."""
    with masklet.Client(address) as client, client.live() as live:
        threading.Thread(target=film, args=(live, source), daemon=True).start()
        video = live.video  # known when the first frame is there
        live.prompt(masklet.Prompt(object_id=1, point_coords=[[video.width / 2, video.height / 2]]))
        for frame in live:
            if 1 in frame.objects:
                area, skipped = frame.objects[1].area, len(frame.skipped_frame_indices)
                print(f"frame {frame.frame_index}: {area} pixels, {frame.latency_seconds:.3f} s old, {skipped} skipped")


if __name__ == "__main__":
    main(*sys.argv[1:3])
