"""Clips that are quickly there, for a server that follows a script."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import masklet
from masklet.batch import BatchEvent, BatchSettings, BatchSummary, Clip, Patience
from masklet.v1 import server_info_pb2
from tests.support.scripted.fake_server import FakeServer

POINT = masklet.Prompt(object_id=1, point_coords=[[20, 20]])
IMPATIENT = Patience(retries=2, pause_seconds=0.01, wait_seconds=5.0)


class BatchServer(FakeServer):
    """A server whose script says what becomes of calls that track, and which always says what it is."""

    def GetServerInfo(self, request: Any, context: Any) -> server_info_pb2.GetServerInfoResponse:  # noqa: N802
        failure, self.script.failure = self.script.failure, None
        try:
            return super().GetServerInfo(request, context)
        finally:
            self.script.failure = failure


def make_clips(folder: Path, *names: str) -> list[Clip]:
    """Clips with a click each."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"video " + name.encode())
    return [Clip(name, folder / name, [POINT]) for name in names]


def run(
    address: str,
    clips: list[Clip],
    folder: Path,
    settings: BatchSettings | None = None,
    on_event: Callable[[BatchEvent], None] | None = None,
) -> tuple[BatchSummary, list[tuple[str, str]]]:
    """Run a batch; how it stands, and what became of each clip."""
    events: list[tuple[str, str]] = []

    def take(event: BatchEvent) -> None:
        events.append((event.clip.name, event.kind))
        if on_event is not None:
            on_event(event)

    with masklet.Client(address) as client:
        summary = masklet.Batch(clips, folder, settings or BatchSettings(jobs=2, patience=IMPATIENT)).run(client, take)
    return summary, events
