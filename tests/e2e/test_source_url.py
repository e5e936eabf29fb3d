"""Videos that the server fetches, over a real channel."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import masklet
from masklet import SourceUrl
from masklet_server.embedded import EmbeddedServer
from tests.support.e2e import NUM_FRAMES, engine_alone, lossless, prompt


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("videos")
    (path / "clip.mkv").write_bytes(lossless())
    (path / "large.mkv").write_bytes(bytes(2 * len(lossless())))
    return path


@pytest.fixture(scope="module")
def web(folder: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def fetching(folder: Path) -> Iterator[masklet.Client]:
    settings: dict[str, Any] = {
        "source_schemes": ("http", "file"),
        "source_hosts": ("127.0.0.1",),
        "source_directories": (folder,),
        "max_upload_bytes": len(lossless()) + 1,
    }
    with EmbeddedServer(device="cpu", dtype="float32", **settings) as address, masklet.Client(address) as client:
        yield client


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_a_fetched_video_gives_the_same_masks(fetching: masklet.Client, web: str, folder: Path, scheme: str) -> None:
    url = f"{web}/clip.mkv" if scheme == "http" else f"file://{folder}/clip.mkv"
    results = list(fetching.track(SourceUrl(url), prompt("box")))
    assert len(results) == NUM_FRAMES
    for frame, masks in zip(results, engine_alone([prompt("box")]), strict=True):
        np.testing.assert_array_equal(frame.objects[1].mask, masks[1])


@pytest.mark.parametrize(
    ("path", "error", "match"),
    [
        ("/none.mkv", masklet.InvalidArgument, "404"),
        ("/large.mkv", masklet.ResourceExhausted, "max_upload_bytes"),
    ],
)
def test_what_cannot_be_had(
    fetching: masklet.Client, web: str, path: str, error: type[masklet.MaskletError], match: str
) -> None:
    with pytest.raises(error, match=match):
        list(fetching.track(SourceUrl(web + path), prompt("box")))


def test_a_file_elsewhere(fetching: masklet.Client) -> None:
    with pytest.raises(masklet.InvalidArgument, match=r"config\.source_url"):
        list(fetching.track(SourceUrl("file:///etc/passwd"), prompt("box")))


def test_servers_fetch_nothing_unless_told_to(client: masklet.Client, web: str) -> None:
    with pytest.raises(masklet.InvalidArgument, match="fetches no videos"):
        list(client.track(SourceUrl(f"{web}/clip.mkv"), prompt("box")))
