"""The studio's videos: each with a decoding process, and a session while somebody works on it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import masklet
from masklet import AsyncClient
from masklet.errors import DataLoss, FailedPrecondition, MaskletError, NotFound
from masklet_studio.frames.decoder import Decoder
from masklet_studio.frames.facts import VideoFacts
from masklet_studio.frames.frame_cache import FrameCache
from masklet_studio.project.project import Project, VideoEntry
from masklet_studio.session.video_session import VideoSession, open_board

WIDTHS = (320, 640, 1280, 1920)
"""Widths in which frames are given; 0 stands for the video's own."""
THUMBNAIL_WIDTH = 320


@dataclass(frozen=True)
class Settings:
    """What a studio may do.

    Attributes:
        model: The model; empty: the server's default.
        max_upload_bytes: The largest video that may be uploaded; 0: none may.
        cache_bytes: What all encoded frames together may take.
        server: The server's address, for people.
    """

    model: str = ""
    max_upload_bytes: int = 16 << 30
    cache_bytes: int = 128 << 20
    server: str = ""


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


class Studio:
    """A project that is open, with a server that tracks.

    Attributes:
        project: The project.
        settings: What the studio may do.
        client: Of the server.

    Args:
        project: The project.
        client: Of the server.
        settings: What the studio may do.
    """

    def __init__(self, project: Project, client: AsyncClient, settings: Settings) -> None:
        self.project = project
        self.settings = settings
        self.client = client
        self._cache = FrameCache(settings.cache_bytes)
        self._videos: dict[str, StudioVideo] = {}
        self._counting: set[asyncio.Task[None]] = set()
        self._models: tuple[str, list[str]] | None = None
        for entry in project.videos:
            self.take(entry)

    def take(self, entry: VideoEntry) -> StudioVideo:
        """Begin to use a video that was added to the project; its frames are counted meanwhile."""
        if entry.video_id not in self._videos:
            self._videos[entry.video_id] = StudioVideo(entry)
        return self._videos[entry.video_id]

    def count_frames(self) -> None:
        """Count the frames of all videos, one after the other, in the background."""
        task = asyncio.create_task(self._count())
        self._counting.add(task)
        task.add_done_callback(self._counting.discard)

    async def _count(self) -> None:
        for video in list(self._videos.values()):
            if video.facts is None and video.error is None:
                try:
                    await video.known()
                except MaskletError:
                    continue  # the video tells it

    def find(self, video_id: str) -> StudioVideo:
        """A video by its id.

        Raises:
            NotFound: There is none.
        """
        if video_id not in self._videos:
            raise NotFound(f"there is no video {video_id!r:.60}")
        return self._videos[video_id]

    async def state(self) -> dict[str, Any]:
        """What the page begins with."""
        model, models = await self._known_models()
        return {
            "version": masklet.__version__,
            "model": model,
            "models": models,
            "project": {"name": self.project.name, "path": str(self.project.folder)},
            "videos": [video.told() for video in self._videos.values()],
            "may_upload": self.settings.max_upload_bytes > 0,
            "max_upload_bytes": self.settings.max_upload_bytes,
        }

    async def _known_models(self) -> tuple[str, list[str]]:
        if self._models is None:
            try:
                info = await asyncio.wait_for(self.client.info(), 3.0)
            except (MaskletError, asyncio.TimeoutError):
                return self.settings.model, []
            names = [model.name for model in info.models if model.loaded]
            default = [model.name for model in info.models if model.default]
            self._models = (self.settings.model or default[0], names)
        return self._models

    async def frame(self, video_id: str, index: int, width: int) -> bytes:
        """A frame as JPEG.

        Args:
            video_id: The video.
            index: The frame's number.
            width: One of `WIDTHS`, or 0.

        Raises:
            NotFound: There is no such video or frame.
            DataLoss: It cannot be decoded.
        """
        video = self.find(video_id)
        facts = await video.known()
        if not 0 <= index < facts.frame_count:
            raise NotFound(f"the video has {facts.frame_count} frames, so there is no frame {index}")
        wanted = 0 if width >= facts.width else width
        return await self._cache.get((video_id, index, wanted), lambda: video.decoder.frame(index, wanted))

    async def session(self, video_id: str) -> VideoSession:
        """The session of a video, which begins if there is none.

        Raises:
            NotFound: There is no such video.
            DataLoss: It cannot be decoded, or its project's files are damaged.
            OSError: The project's files cannot be opened.
        """
        video = self.find(video_id)
        async with video.opening:
            if video.session is None:
                facts = await video.known()
                folder = self.project.folder_of(video_id)
                board = await asyncio.to_thread(open_board, folder, facts, video.told())
                video.session = VideoSession(board, self.client, video.entry.path, self.settings.model)
        return video.session

    async def remove(self, video_id: str) -> None:
        """Take a video out of the project.

        Raises:
            NotFound: There is none.
            FailedPrecondition: A tab works on it.
        """
        video = self.find(video_id)
        if video.session is not None and video.session.board.tabs:
            raise FailedPrecondition(f"{video.entry.name} is open in a tab; close it there first")
        await video.close()
        del self._videos[video_id]
        self.project.remove(video_id)

    async def close(self) -> None:
        """End all sessions and processes, and close the project."""
        for task in self._counting:
            task.cancel()
        await asyncio.gather(*self._counting, return_exceptions=True)
        for video in self._videos.values():
            await video.close()
        await self.client.close()
        self.project.close()


def studio_of(folder: Path, videos: list[Path], client: AsyncClient, settings: Settings) -> Studio:
    """Open a project, and add videos to it.

    Args:
        folder: The project's.
        videos: What to add, if it is not there yet.
        client: Of the server.
        settings: What the studio may do.

    Raises:
        MaskletError: The project cannot be opened.
        OSError: A file cannot be read.
    """
    project = Project(folder)
    try:
        for path in videos:
            project.add(path)
    except BaseException:
        project.close()
        raise
    return Studio(project, client, settings)
