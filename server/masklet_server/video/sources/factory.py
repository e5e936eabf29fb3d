"""Makes sources that decode in sandboxed processes: what a session uses, unless a test gives it something else."""

from __future__ import annotations

import dataclasses

from masklet_server.budgets.shares import UNBOUNDED, ClientShare
from masklet_server.fetching.download import VideoDownload
from masklet_server.fetching.rules import FetchRules
from masklet_server.video.limits import VideoLimits
from masklet_server.video.model_input import ModelInput
from masklet_server.video.sources.clip import ClipSource
from masklet_server.video.sources.latest_pictures import LatestPictureSource
from masklet_server.video.sources.packets import PacketSource
from masklet_server.video.sources.pictures import PictureSource


class SandboxedSourceFactory:
    """Makes sources that decode in processes of their own. It is a `masklet_server.session.ports.SourceFactory`.

    Args:
        limits: What decoding one video may cost.
        fetch_rules: From where the server may fetch videos; None: from nowhere.
        share: What the client may have of disk and of decoders' memory.
        latest_decoding: One of `formats.LATEST_DECODING`: what decoding leaves out if only the latest frames are
            wanted.
    """

    def __init__(
        self,
        limits: VideoLimits,
        fetch_rules: FetchRules | None = None,
        share: ClientShare = UNBOUNDED,
        latest_decoding: str = "full",
    ) -> None:
        self._limits = limits
        self._latest_decoding = latest_decoding
        self._share = share
        self._fetch_rules = fetch_rules or FetchRules()

    def clip(self, model: ModelInput) -> ClipSource:
        """Make a source for a video file that arrives in chunks."""
        return ClipSource(model.size, self._limits_for(model), share=self._share)

    def pictures(self, model: ModelInput, *, live: bool) -> PictureSource:
        """Make a source for a series of pictures. Live ones may differ in size and are not limited in number."""
        return PictureSource(model.size, self._limits_for(model), live=live, share=self._share)

    def latest_pictures(self, model: ModelInput, *, max_latency_seconds: float) -> LatestPictureSource:
        """Make a source for a live series of pictures that drops those which wait longer than that."""
        return LatestPictureSource(
            model.size, self._limits_for(model), max_latency_seconds=max_latency_seconds, share=self._share
        )

    def packets(self, model: ModelInput, *, latest: bool) -> PacketSource:
        """Make a source for a codec's packets; `latest`: only the latest frames are wanted."""
        decoding = self._latest_decoding if latest else "full"
        return PacketSource(model.size, self._limits_for(model), decoding=decoding, share=self._share)

    def _limits_for(self, model: ModelInput) -> VideoLimits:
        return dataclasses.replace(self._limits, scaling=model.scaling)

    def download(self, url: str) -> VideoDownload:
        """Make a download of a video file.

        Raises:
            InvalidArgument: The URL is malformed, or the rules do not allow it.
        """
        return VideoDownload(url, self._fetch_rules)
