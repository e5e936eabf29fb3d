"""One video of the studio from the first tab that looks at it to the last."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import Any

from masklet.errors import DataLoss, InvalidArgument, MaskletError, Unavailable
from masklet_studio.frames.facts import VideoFacts
from masklet_studio.project.video_project import VideoProject
from masklet_studio.server_link import ServerLink
from masklet_studio.session import conversation
from masklet_studio.session.board import Board
from masklet_studio.session.conversation import Conversation, PageSocket
from masklet_studio.session.engine import Engine
from masklet_studio.session.tab import Tab
from masklet_studio.session.tracker import Tracker
from masklet_studio.session.verbs import Verbs

RECONNECT_SECONDS = 2.0
"""How long to wait before a server is tried again that was not there."""
KEEP_SECONDS = 120.0
"""How long the server keeps a video that nobody looks at and that is not tracked."""

logger = logging.getLogger("masklet.studio")


class VideoSession:
    """Everything that belongs to one video that is worked on.

    Attributes:
        board: The video's state.

    Args:
        board: The video's state.
        server: The server.
        path: The video's file, or its folder of pictures.
        model: The model; empty: the server's default.
    """

    def __init__(self, board: Board, server: ServerLink, path: Path, model: str) -> None:
        self.board = board
        self._engine = Engine(server, path, model)
        self._tracker = Tracker(board, self._engine)
        self._pending = asyncio.Event()
        self._verbs = Verbs(board, self._engine, self._tracker, self._pending.set)
        self._wake = asyncio.Event()
        self._keeper = asyncio.create_task(self._keep())

    async def serve(self, socket: PageSocket) -> None:
        """Serve a tab until it is closed.

        Raises:
            Exception: Whatever says that the tab is gone.
        """
        tab = Tab(socket)
        tab.event(self.board.state())
        self.board.tabs.add(tab)
        self._wake.set()
        talk = Conversation(lambda request: self._verbs.do(request, tab), lambda: self.board.tabs.discard(tab), {})
        await conversation.serve(socket, tab, talk)

    # The session on the server

    async def _keep(self) -> None:
        """Open the session as soon as somebody looks at the video, so that the first click need not wait."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._connect()
            while self.board.tabs or self._tracker.is_running:
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._pending.wait(), RECONNECT_SECONDS)
                if self._pending.is_set() or not self.board.connected:
                    self._pending.clear()
                    await self._connect()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._wake.wait(), KEEP_SECONDS)
                continue
            if not self._tracker.is_running:
                await self._engine.close()

    async def _connect(self) -> None:
        self.board.tell_loading(self._engine.is_loading)
        try:
            if not self._tracker.is_running:
                await self._engine.open()
            await self._verbs.show_pending()
        except InvalidArgument:
            self.board.tell_connection(None)  # it is the prompt that is wrong, which the page shows without a mask
        except MaskletError as error:
            self.board.tell_connection(error)
        except OSError as error:
            self.board.tell_connection(DataLoss(f"the project cannot be written: {error.strerror or error}"))
        except Exception as error:
            logger.exception("the session on the server could not be opened")
            self.board.tell_connection(Unavailable(f"the studio failed: {error}"))
        else:
            self.board.tell_connection(None)
        finally:
            self.board.tell_loading(False)

    async def close(self) -> None:
        """End everything; what was done is in the project."""
        self._keeper.cancel()
        await asyncio.gather(self._keeper, return_exceptions=True)
        await self._tracker.close()
        await self._engine.close()
        await self.board.close()


def open_board(folder: Path, facts: VideoFacts, video: dict[str, Any]) -> Board:
    """The board of a video.

    Args:
        folder: Has what the project keeps of the video.
        facts: What is known of its frames.
        video: The video, as the page has it.

    Raises:
        DataLoss: The project's files are damaged.
        OSError: They cannot be opened.
    """
    return Board(VideoProject(folder), facts, video)
