"""Streams of each kind, as a client runs them; what it sees is a `History`."""

from __future__ import annotations

import functools
import io
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

import masklet
from masklet import Prompt
from tests.faults.history import History
from tests.support.e2e import frames as pictures_of_the_clip
from tests.support.e2e import h264, lossless, prompt

FRAMES = 18
CORRECTED_AFTER, CORRECTED = 9, 6
REMOVED_AFTER = 12
Events = list[masklet.ResumeEvent]


def _pictures() -> Iterator[npt.NDArray[np.uint8]]:
    yield from pictures_of_the_clip()


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """The clip as a file, and as a folder of pictures."""
    from PIL import Image

    folder = tempfile.TemporaryDirectory(prefix="masklet-faults-")
    (Path(folder.name) / "clip.mkv").write_bytes(lossless())
    pictures = Path(folder.name) / "pictures"
    pictures.mkdir()
    for index, picture in enumerate(_pictures()):
        Image.fromarray(picture).save(pictures / f"{index}.png")
    return folder


def _tracked(
    video: masklet.VideoSource, client: masklet.Client, history: History, options: masklet.SessionOptions
) -> None:
    prompts = [prompt("point"), prompt("box", 1, 5)]
    history.given = len(prompts)
    tracking = client.track(video, prompts, on_prompt=history.add, **options)
    for frame in tracking:
        history.add(frame)


def file(client: masklet.Client, history: History, options: masklet.SessionOptions) -> None:
    """A video file, which can be read again."""
    _tracked(Path(_folder().name) / "clip.mkv", client, history, options)


def folder(client: masklet.Client, history: History, options: masklet.SessionOptions) -> None:
    """A folder of pictures, which can be read again."""
    _tracked(Path(_folder().name) / "pictures", client, history, options)


def generator(client: masklet.Client, history: History, options: masklet.SessionOptions) -> None:
    """Pictures that can be had only once."""
    _tracked(_pictures(), client, history, options)


def corrected(client: masklet.Client, history: History, options: masklet.SessionOptions) -> None:
    """A file with a correction and a removal in the middle, in time for the frame after the one that is seen."""
    path = Path(_folder().name) / "clip.mkv"
    prompts = [prompt("point"), prompt("box", 1, 5)]
    history.given = len(prompts) + 1
    options = {**options, "window": 1}
    tracking = client.track(path, prompts, correction_window=8, on_prompt=history.add, **options)
    for frame in tracking:
        history.add(frame)
        if (frame.frame_index, frame.revision) == (CORRECTED_AFTER, 0):
            tracking.prompt(Prompt(1, CORRECTED, mask=_mask(0)))
        if (frame.frame_index, frame.revision) == (REMOVED_AFTER, 0):
            tracking.remove_object(2)


def _mask(blob: int) -> npt.NDArray[np.bool_]:
    from tests.support.e2e import truth

    return truth(blob, CORRECTED)


def _filmed(live: masklet.Live, send: Callable[[masklet.Live], None], history: History) -> None:
    def film() -> None:
        try:
            send(live)
        except masklet.FailedPrecondition:
            return  # the loop says why
        live.end()

    thread = threading.Thread(target=film, daemon=True)
    thread.start()
    for frame in live:
        history.add(frame)
    thread.join(10)


def live(client: masklet.Client, history: History, options: masklet.SessionOptions) -> None:
    """Pictures that are sent one after the other, all of them tracked."""

    def send(stream: masklet.Live) -> None:
        for index, picture in enumerate(_pictures()):
            if index == 5:
                stream.prompt(prompt("box", 1, 5), frame_index=5)
            stream.send(picture)

    history.given = 2
    with client.live(prompt("point"), delivery="lossless", on_prompt=history.add, **options) as stream:
        _filmed(stream, send, history)


def packets(client: masklet.Client, history: History, options: masklet.SessionOptions) -> None:
    """A camera's packets, all of them tracked."""

    def send(stream: masklet.Live) -> None:
        with av.open(io.BytesIO(h264()), "r") as container:
            codec = container.streams.video[0].codec_context
            for index, packet in enumerate(container.demux(video=0)):
                if packet.size:
                    extradata = bytes(codec.extradata or b"") if index == 0 else b""
                    stream.send(masklet.VideoPacket(bytes(packet), "h264", extradata), pts_seconds=index / 30)

    history.given = 1
    with client.live(prompt("point"), delivery="lossless", on_prompt=history.add, **options) as stream:
        _filmed(stream, send, history)


def latest(client: masklet.Client, history: History, options: masklet.SessionOptions) -> None:
    """Pictures that come faster than they are tracked: some are skipped, by name."""

    def send(stream: masklet.Live) -> None:
        for picture in _pictures():
            stream.send(picture)
            time.sleep(0.05)

    history.given = 1
    with client.live(prompt("point"), on_prompt=history.add, **options) as stream:
        _filmed(stream, send, history)


def annotation(client: masklet.Client, history: History, options: masklet.SessionOptions) -> None:
    """Work on request: a prompt, a propagation, a correction, a propagation over a part."""
    path = Path(_folder().name) / "clip.mkv"
    history.given = 3
    with client.annotate(path, **options) as work:
        history.add(work.prompt(prompt("point")))
        history.add(work.prompt(prompt("box", 1)))
        for frame in work.propagate():
            history.add(frame)
        history.add(work.prompt(Prompt(1, CORRECTED, mask=_mask(0))))
        for frame in work.propagate(CORRECTED + 1, 6):
            history.add(frame)


Stream = Callable[[masklet.Client, History, masklet.SessionOptions], None]
STREAMS: dict[str, Stream] = {
    one.__name__: one for one in (file, folder, generator, corrected, live, packets, latest, annotation)
}
REWINDABLE = ("file", "folder", "corrected", "annotation")
"""Streams whose client has the whole video, so that they go on after their server has died."""
NOT_REPEATABLE = ("latest",)
"""Streams of which two runs are not alike."""


def run(
    name: str,
    address: str,
    *,
    resume_seconds: float = 60.0,
    history: History | None = None,
    direct: bool = False,
    timeout: float | None = None,
    edges: masklet.Edges = "guided",
    connect_timeout: float = 0,
) -> tuple[History, Events]:
    """Run a stream to its end.

    Args:
        name: One of `STREAMS`.
        address: The server, or a proxy before it.
        resume_seconds: How long the client tries to reach the server again.
        history: Where to put what the client sees; None: into a new one.
        direct: The server is a gateway, and the stream goes to its worker itself.
        timeout: Seconds after which the stream is given up, and ends with an error; None: never.
        edges: How the edges of masks are drawn.
        connect_timeout: How long the client waits for a server that has never answered.
    """
    history, events = history or History(), Events()
    history.frame_count = None if name == "annotation" else FRAMES
    with masklet.Client(address, connect_timeout=connect_timeout, direct=direct) as client:
        options: masklet.SessionOptions = {
            "deterministic": True,
            "on_resume": events.append,
            "resume_seconds": resume_seconds,
            "timeout": timeout,
            "edges": edges,
        }
        try:
            STREAMS[name](client, history, options)
            history.end = "done"
        except masklet.MaskletError as error:
            history.end = f"{type(error).__name__}: {error}"
    return history, events
