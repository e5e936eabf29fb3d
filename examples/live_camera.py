"""Track what is in the middle of a camera's picture, and print how old each result is when it arrives.

Start a server first (`masklet serve`), then: python examples/live_camera.py [/dev/video0 | rtsp://... | a video file]
"""

from __future__ import annotations

import sys
import threading
import time

import av

import masklet


def film(live: masklet.Live, source: str) -> None:
    """Send the frames of the source as they come; the frames of a file at the file's own frame rate."""
    begun = time.monotonic()
    try:
        with av.open(source, "r", format="v4l2" if source.startswith("/dev/") else None) as container:
            for frame in container.decode(container.streams.video[0]):
                if frame.time is not None:
                    time.sleep(max(0.0, begun + frame.time - time.monotonic()))
                live.send(frame.to_image())  # type: ignore[no-untyped-call]
        live.end()
    except masklet.FailedPrecondition:
        print("the stream has ended")


def main() -> None:
    """Print a line for each result."""
    source = sys.argv[1] if len(sys.argv) > 1 else "examples/bunny.mp4"
    with av.open(source, "r", format="v4l2" if source.startswith("/dev/") else None) as container:
        width, height = container.streams.video[0].width, container.streams.video[0].height
    middle = masklet.Prompt(object_id=1, point_coords=[[width / 2, height / 2]])
    with masklet.Client("127.0.0.1:50051") as client, client.live(middle) as live:
        threading.Thread(target=film, args=(live, source), daemon=True).start()
        for frame in live:
            area, skipped = frame.objects[1].area, len(frame.skipped_frame_indices)
            print(f"frame {frame.frame_index}: {area} pixels, {frame.latency_seconds:.3f} s old, {skipped} skipped")


if __name__ == "__main__":
    main()
