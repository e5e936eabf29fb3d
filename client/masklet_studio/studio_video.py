"""One video of the studio, as far as it is in use."""

from __future__ import annotations

import asyncio
from typing import Any

from masklet.errors import DataLoss, MaskletError
from masklet_studio.frames.decoder import Decoder
from masklet_studio.frames.facts import VideoFacts
from masklet_studio.project.project import VideoEntry
from masklet_studio.session.video_session import VideoSession


class StudioVideo:
    """A video of the project, as far as it is in use.

    Attributes:
        entry: What the project knows of it.
        error: Why it cannot be used; None where it can, or where that is not known yet.

    Args:
        entry: What the project knows of it.
    """

    def __init__(self, entry: VideoEntry) -> None:
        self.entry = entry
        self.error: str | None = entry.check() or None
        self.facts: VideoFacts | None = None
        self.decoder = Decoder(entry.path)
        self.session: VideoSession | None = None
        self.opening = asyncio.Lock()

    async def known(self) -> VideoFacts:
        """What is known of its frames; waits until they are counted.

        Raises:
            DataLoss: It cannot be decoded, or is not there.
        """
        if self.error is not None:
            raise DataLoss(self.error)
        try:
            self.facts = await self.decoder.facts()
        except MaskletError as error:
            self.error = error.message
            raise
        return self.facts

    def told(self) -> dict[str, Any]:
        """As the page has it."""
        facts, video_id = self.facts, self.entry.video_id
        return {
            "id": video_id,
            "name": self.entry.name,
            "width": facts.width if facts else 0,
            "height": facts.height if facts else 0,
            "frames": facts.frame_count if facts else None,
            "fps": facts.frame_rate if facts else 0.0,
            "duration": facts.duration if facts else 0.0,
            "ready": facts is not None and self.error is None,
            "error": self.error or (facts.damage if facts and facts.damage else None),
            "times": f"/api/videos/{video_id}/times" if facts else None,
        }

    async def close(self) -> None:
        """End its session and its decoding process."""
        if self.session is not None:
            await self.session.close()
        await self.decoder.close()
