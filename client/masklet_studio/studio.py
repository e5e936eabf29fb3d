"""The studio's videos: each with a decoding process, and a session while somebody works on it."""

from __future__ import annotations

import asyncio
import logging
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import masklet
from masklet.errors import FailedPrecondition, InvalidArgument, MaskletError, NotFound
from masklet_studio.exporting.exports import Exports, RunningExport
from masklet_studio.exporting.formats import export_of, known_formats
from masklet_studio.exporting.results import ResultWriter
from masklet_studio.frames.facts import VideoFacts
from masklet_studio.frames.frame_cache import FrameCache
from masklet_studio.live.archive import Archive
from masklet_studio.live.lives import LiveRules, Lives
from masklet_studio.project.project import Project, VideoEntry
from masklet_studio.server_link import ServerLink
from masklet_studio.session.video_session import VideoSession, open_board
from masklet_studio.studio_video import StudioVideo
from masklet_studio.uploads import Uploads

WIDTHS = (320, 640, 1280, 1920)
"""Widths in which frames are given; 0 stands for the video's own."""
THUMBNAIL_WIDTH = 320
MAX_DECODERS = 4
"""Videos whose decoding processes are kept: each takes 50 MB and more, and a project may have hundreds of videos."""

logger = logging.getLogger("masklet.studio")


@dataclass(frozen=True)
class Settings:
    """What a studio may do.

    Attributes:
        model: The model; empty: the server's default.
        max_upload_bytes: The largest video that may be uploaded; 0: none may.
        cache_bytes: What all encoded frames together may take.
        server: The server's address, for people.
        live: Which cameras the page may open, and how much it may record.
    """

    model: str = ""
    max_upload_bytes: int = 16 << 30
    cache_bytes: int = 128 << 20
    server: str = ""
    live: LiveRules = field(default_factory=LiveRules)


class Studio:
    """A project that is open, with a server that tracks.

    Attributes:
        project: The project.
        settings: What the studio may do.
        uploads: Videos that are on their way.
        lives: Cameras and streams that are tracked while they run.

    Args:
        project: The project.
        server: The server.
        settings: What the studio may do.
    """

    def __init__(self, project: Project, server: ServerLink, settings: Settings) -> None:
        self.project = project
        self.settings = settings
        self.uploads = Uploads(project, settings.max_upload_bytes)
        archive = Archive(project, settings.live.max_recording_bytes, self._recorded)
        self.lives = Lives(settings.live, (server, settings.model), archive)
        self._exports = Exports(project.folder / "exports")
        self._server = server
        self._cache = FrameCache(settings.cache_bytes)
        self._videos: dict[str, StudioVideo] = {}
        self._decoding: OrderedDict[str, StudioVideo] = OrderedDict()  # the one that was used last stands last
        self._counting: set[asyncio.Task[None]] = set()
        self._models: tuple[str, list[str]] | None = None
        for entry in project.videos:
            self.take(entry)

    def begin(self) -> None:
        """Start the server, and count the frames of all videos, in the background."""
        self._server.begin()
        self.count_frames()

    def take(self, entry: VideoEntry) -> StudioVideo:
        """Begin to use a video that was added to the project; its frames are counted meanwhile."""
        if entry.video_id not in self._videos:
            self._videos[entry.video_id] = StudioVideo(entry)
        return self._videos[entry.video_id]

    def _recorded(self, entry: VideoEntry) -> dict[str, Any]:
        """Use a recording that is whole."""
        video = self.take(entry)
        self.count_frames()
        return video.told()

    def count_frames(self) -> None:
        """Count the frames of all videos, one after the other, in the background."""
        task = asyncio.create_task(self._count())
        self._counting.add(task)
        task.add_done_callback(self._counting.discard)

    async def _count(self) -> None:
        for video in list(self._videos.values()):
            if video.facts is None and video.error is None:
                try:
                    await self._known(video)
                    # For the page's list, as long as the process is there that would have to be started again for it.
                    await self.frame(video.entry.video_id, 0, THUMBNAIL_WIDTH)
                except MaskletError:
                    continue  # the video tells it
                except OSError:
                    logger.exception("the frames of %s could not be counted", video.entry.path)

    async def _known(self, video: StudioVideo) -> VideoFacts:
        facts = await video.known()
        await self._use(video)
        return facts

    async def _use(self, video: StudioVideo) -> None:
        """Take note that a video is decoded, and end the processes of those that have not been for the longest time."""
        video_id = video.entry.video_id
        self._decoding[video_id] = video
        self._decoding.move_to_end(video_id)
        while len(self._decoding) > MAX_DECODERS:
            _, idle = self._decoding.popitem(last=False)
            await idle.decoder.rest()

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
            "server": self.settings.server,
            "live": self.lives.told(),
            "exports": known_formats(),
            "project": {"name": self.project.name, "path": str(self.project.folder)},
            "videos": [video.told() for video in self._videos.values()],
            "may_upload": self.settings.max_upload_bytes > 0,
            "max_upload_bytes": self.settings.max_upload_bytes,
        }

    async def _known_models(self) -> tuple[str, list[str]]:
        if self._models is None:
            if not self._server.is_there:
                return self.settings.model, []
            try:
                client = await self._server.client()
                info = await asyncio.wait_for(client.info(), 3.0)
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
        facts = await self._known(video)
        if not 0 <= index < facts.frame_count:
            raise NotFound(f"the video has {facts.frame_count} frames, so there is no frame {index}")
        wanted = 0 if width >= facts.width else width
        picture = await self._cache.get((video_id, index, wanted), lambda: video.decoder.frame(index, wanted))
        if width != THUMBNAIL_WIDTH:
            self._server.picture_is_there()
        return picture

    async def session(self, video_id: str) -> VideoSession:
        """The session of a video, which begins if there is none.

        Raises:
            NotFound: There is no such video.
            DataLoss: It cannot be decoded, or its project's files are damaged.
            OSError: The project's files cannot be opened.
        """
        video = self.find(video_id)
        async with video.opening:
            self.find(video_id)  # it may have been removed meanwhile
            if video.session is None:
                facts = await self._known(video)
                folder = self.project.folder_of(video_id)
                board = await asyncio.to_thread(open_board, folder, facts, video.told())
                video.session = VideoSession(board, self._server, video.entry.path, self.settings.model)
        return video.session

    async def export(self, video_id: str, request: Mapping[str, Any]) -> RunningExport:
        """Begin to export the masks of a video.

        Args:
            video_id: The video.
            request: What the page asks for.

        Raises:
            NotFound: There is no such video.
            InvalidArgument: The request is wrong.
            FailedPrecondition: There is nothing to export.
            ResourceExhausted: Too many exports are running.
        """
        export = export_of(request)
        video, session = self.find(video_id), await self.session(video_id)
        board = session.board
        objects = export.objects or tuple(board.project.state.objects)
        if unknown := set(objects) - board.project.state.objects.keys():
            raise InvalidArgument.of("options.objects", f"has {min(unknown)}, which is no object")
        if not any(board.project.masks(one) for one in objects):
            raise FailedPrecondition("there is no mask to export; click an object first")
        results = ResultWriter(board.project, board.facts, video.entry.path, objects)
        name = re.sub(r"[^\w.-]+", "_", Path(video.entry.name).stem)[:80] or "video"
        return self._exports.start(export, video_id, name, results, lambda told: board.tell("export", **told))

    @property
    def exports(self) -> Exports:
        """The exports that there are."""
        return self._exports

    async def remove(self, video_id: str) -> None:
        """Take a video out of the project.

        Raises:
            NotFound: There is none.
            FailedPrecondition: A tab works on it.
        """
        video = self.find(video_id)
        async with video.opening:
            self.find(video_id)  # it may have been removed meanwhile
            if video.session is not None and video.session.board.tabs:
                raise FailedPrecondition(f"{video.entry.name} is open in a tab; close it there first")
            del self._videos[video_id]
            self._decoding.pop(video_id, None)
            await video.close()
            await asyncio.to_thread(self.project.remove, video_id)

    async def close(self) -> None:
        """End all sessions and processes, and close the project."""
        await self.lives.close()
        for task in self._counting:
            task.cancel()
        await asyncio.gather(*self._counting, return_exceptions=True)
        await self._exports.close()
        for video in self._videos.values():
            await video.close()
        await self._server.close()
        self.project.close()


def studio_of(folder: Path, videos: list[Path], server: ServerLink, settings: Settings) -> Studio:
    """Open a project, and add videos to it.

    Args:
        folder: The project's.
        videos: What to add, if it is not there yet.
        server: The server.
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
    return Studio(project, server, settings)
