"""The file that FFmpeg reads while it arrives."""

from __future__ import annotations

import os
import tempfile

from masklet_server.video.worker.arriving_file import ArrivingFile


def test_arriving_file_waits_reads_and_seeks() -> None:
    with tempfile.TemporaryFile() as spool:
        spool.write(b"0123456789")
        spool.flush()
        steps = iter([(4, False), (10, True)])

        def wait() -> None:
            file.arrived, file.complete = next(steps)

        file = ArrivingFile(spool.fileno(), wait)
        assert file.wait_for_start(1)
        assert file.read(100) == b"0123"
        assert file.seek(0, os.SEEK_END) == -1  # not known yet
        assert file.tell() == 4
        assert file.seek(8) == 8
        assert file.read(1) == b"8"  # waited
        assert file.seek(-1, os.SEEK_END) == 9
        assert file.read(5) == b"9"
        assert file.read(5) == b""
        assert file.seek(-100, os.SEEK_CUR) == -1
        assert file.seek(1000) == 1000
        assert file.read(5) == b""
