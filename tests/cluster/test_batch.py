"""A batch through a gateway: servers may die, and each clip is done once."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path

from masklet.batch import BatchSettings
from tests.batch.support import IMPATIENT, BatchServer, make_clips, run
from tests.support.gateway import GatewayThread
from tests.support.scripted.fake_script import Script


def test_a_server_that_dies_behind_a_gateway_costs_no_clip(tmp_path: Path) -> None:
    clips = make_clips(tmp_path, *[f"{number}.mp4" for number in range(10)])
    settings = BatchSettings(jobs=4, patience=replace(IMPATIENT, retries=5, wait_seconds=60), options={"resume": False})
    script = Script(seconds_per_frame=0.1)
    with BatchServer(script) as lasting, BatchServer(script) as dying:
        with GatewayThread([lasting.address, dying.address], timeout_seconds=2.0) as gateway:
            timer = threading.Timer(0.7, dying.stop)
            timer.start()
            summary, events = run(gateway.address, clips, tmp_path / "out", settings)
            timer.join()
        assert len(lasting.sessions) > 2
        assert len(dying.sessions) >= 2
    assert summary.is_complete
    assert Counter(name for name, kind in events if kind == "done") == {clip.name: 1 for clip in clips}
    assert any(kind == "retry" for _, kind in events)
