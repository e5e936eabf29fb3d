"""Batches: thousands of clips, each tracked once, whatever happens in between.

    clips = masklet.batch.find_clips(["videos"])
    settings = masklet.batch.BatchSettings(jobs=8, exports=["coco"])
    with masklet.Client("127.0.0.1:50051") as client:
        summary = masklet.Batch(clips, "results", settings).run(client)
    print(summary.done, summary.poisoned, summary.left)

The folder of results has a folder for each clip, and a ledger. The same run again does what is not done yet: nothing is
done twice, and nothing is left out. `masklet batch` is the same on the command line.
"""

from __future__ import annotations

from masklet.batch.clips import Clip, Shard, find_clips
from masklet.batch.detections import with_detections
from masklet.batch.events import BatchEvent, BatchSettings, BatchSummary, EventKind
from masklet.batch.identity import Fingerprint
from masklet.batch.ledger import Entry, State
from masklet.batch.manifest import read_manifest
from masklet.batch.retrying import Patience
from masklet.batch.runner import Batch, OnEvent
from masklet.importing.prompts import PromptFile

__all__ = [
    "Batch",
    "BatchEvent",
    "BatchSettings",
    "BatchSummary",
    "Clip",
    "Entry",
    "EventKind",
    "Fingerprint",
    "OnEvent",
    "Patience",
    "PromptFile",
    "Shard",
    "State",
    "find_clips",
    "read_manifest",
    "with_detections",
]
