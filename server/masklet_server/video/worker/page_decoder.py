"""Frames of a picture file with several pictures, by Pillow. Runs in the decoding process."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import IO, cast

from masklet_media.picture_pages import TIME_BASE, Page, PicturePages
from masklet_server.video.info import VideoInfo
from masklet_server.video.limits import VideoLimits
from masklet_server.video.worker.arriving_file import ArrivingFile
from masklet_server.video.worker.clip_limits import ClipLimits
from masklet_server.video.worker.pixels import shrink
from masklet_server.video.worker.refusal import Refusal
from masklet_server.video.worker.shown_frame import ShownFrame


class PageClip:
    """An open file of pictures whose header is within the limits; its faces are those of `clip_decoder.Clip`.

    Attributes:
        time_base: Seconds in one unit of time stamps.
        undecoded: Always empty: a file with a damaged picture breaks off there.

    Args:
        file: The file, which is waited for.
        limits: What decoding may cost.
        image_size: Side of the frames that come out.

    Raises:
        Refusal: The file is damaged, or beyond the limits.
    """

    def __init__(self, file: ArrivingFile, limits: VideoLimits, *, image_size: int) -> None:
        self.time_base: Fraction = TIME_BASE
        self.undecoded: tuple[int, ...] = ()
        self._image_size = image_size
        self._limits = ClipLimits(limits)
        file.wait_for_end()
        try:
            self._pages = PicturePages(cast("IO[bytes]", file))
        except MemoryError:
            raise
        except Exception as error:
            # Pillow's readers raise nearly anything for damaged files.
            raise Refusal("DataLoss", f"the file of pictures is damaged: {error}") from error
        width, height = self._pages.size
        self._limits.check_header(height, width, count=self._pages.count, seconds=0.0)

    def info(self, first: ShownFrame) -> VideoInfo:
        """What the file says of its pictures, and the size of the first one."""
        name = self._pages.format.lower()
        return VideoInfo(first.height, first.width, frame_count=self._pages.count, container=name, codec=name)

    def seek(self, pts: int) -> None:
        """Refuse: such a file is read from its start.

        Raises:
            Refusal: Always.
        """
        raise Refusal("DataLoss", "a file of pictures cannot be searched")

    def frames(self, *, skip: int = 0, since: int | None = None) -> Iterator[ShownFrame]:
        """Every frame in order.

        Args:
            skip: Leave out so many frames at the start.
            since: Leave out frames before that time, in units of `time_base`.

        Raises:
            Refusal: A picture is damaged, is beyond the limits, or has another size than the first one.
        """
        damage = ""
        pages = self._pages.pages()
        position = 0
        while True:
            try:
                page = next(pages, None)
            except MemoryError:
                raise
            except Exception as error:  # noqa: BLE001 - nearly anything, see above
                damage, page = f"picture {position} is damaged: {error}", None
            if page is None:
                break
            if position >= skip and (since is None or page.pts >= since):
                yield self._shown(page)
            position += 1
        self._limits.check_end(damage)

    def _shown(self, page: Page) -> ShownFrame:
        size = (page.picture.height, page.picture.width)
        self._limits.check_frame(size, shown=size, seconds=page.pts * TIME_BASE)
        pixels = shrink(page.picture, self._image_size)
        return ShownFrame(page.pts, *size, pixels, 0)
