"""Network streams for tests: MJPEG and HLS over HTTP, a transport stream over UDP."""

from __future__ import annotations

import contextlib
import http.server
import io
import itertools
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from PIL import Image

Pictures = Sequence[npt.NDArray[np.uint8]]


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


class _Camera(_Quiet):
    """Sends pictures as webcams with a web page do."""

    pictures: Pictures
    endless = False

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for picture in itertools.cycle(self.pictures) if self.endless else self.pictures:
            file = io.BytesIO()
            Image.fromarray(picture).save(file, "JPEG", quality=90)
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {file.tell()}\r\n\r\n"
            try:
                self.wfile.write(head.encode() + file.getvalue() + b"\r\n")
            except OSError:
                return  # nobody looks any more
            time.sleep(0.02)


@contextlib.contextmanager
def _serving(handler: Any) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


@contextlib.contextmanager
def mjpeg(pictures: Pictures, *, endless: bool = False) -> Iterator[str]:
    """A camera that sends each picture once, and then breaks off; or again and again."""
    with _serving(type("Camera", (_Camera,), {"pictures": pictures, "endless": endless})) as address:
        yield f"{address}/video"


@contextlib.contextmanager
def hls(folder: Path, pictures: Pictures, **options: str) -> Iterator[str]:
    """A playlist of pieces in a folder; it names its end, unless `options` say otherwise."""
    write(str(folder / "list.m3u8"), "hls", pictures, {"hls_time": "0.4", "hls_playlist_type": "vod", **options})
    with _serving(partial(_Quiet, directory=str(folder))) as address:
        yield f"{address}/list.m3u8"


@contextlib.contextmanager
def files(folder: Path) -> Iterator[str]:
    """The files of a folder."""
    with _serving(partial(_Quiet, directory=str(folder))) as address:
        yield address


def write(url: str, container: str, pictures: Pictures, options: dict[str, str], delay: float = 0.0) -> None:
    """Encode pictures into a file or a stream; the address of a stream may be listened to only later."""
    height, width = pictures[0].shape[:2]
    with av.open(url, "w", format=container, options=options) as output:
        stream: Any = output.add_stream("libx264", rate=25, options={"tune": "zerolatency"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.gop_size = 5
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
            frame.pts = index
            output.mux(stream.encode(frame))
            time.sleep(delay)
        output.mux(stream.encode(None))


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])
