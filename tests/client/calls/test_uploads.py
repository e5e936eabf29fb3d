"""Videos that are read again after a connection was lost."""

from __future__ import annotations

from pathlib import Path

import pytest

import masklet
from masklet._media.uploads import CHUNK_BYTES, open_upload


def test_a_file_is_read_again_from_any_byte(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(bytes(range(256)) * (CHUNK_BYTES // 256) + b"end")
    upload = open_upload(path)
    assert upload.parts_from is not None
    assert sum(len(part.video_chunk) for part in upload.parts) == CHUNK_BYTES + 3
    assert [part.video_chunk for part in upload.parts_from(CHUNK_BYTES - 1)] == [b"\xffend"]


@pytest.mark.parametrize("change", ["grown", "replaced"])
def test_a_file_that_has_changed_is_not_taken_for_the_same(tmp_path: Path, change: str) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"a video")
    upload = open_upload(path)
    assert upload.parts_from is not None
    assert len(list(upload.parts)) == 1
    if change == "grown":
        path.write_bytes(b"a video, and more")
    else:
        (tmp_path / "other.mp4").write_bytes(b"another")
        (tmp_path / "other.mp4").replace(path)
    with pytest.raises(masklet.FailedPrecondition, match=r"clip\.mp4 has changed since the stream began"):
        list(upload.parts_from(3))
