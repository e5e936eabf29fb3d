"""Masks leave the device as run-lengths: a few kilobytes instead of a byte for every pixel."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from masklet_server.masks.runs import Runs

# Pixels of masks that are on the device at the same time, a byte each.
MAX_WAITING_PIXELS = 2**25


def runs_of(masks: Tensor) -> list[Runs]:
    """The runs of each mask of ``bool[B, H, W]``."""
    if masks.device.type == "cpu":
        return [Runs.of(mask) for mask in masks.numpy()]  # on a CPU ten times as fast as the same in torch
    leaving = MasksOnDevice()
    leaving.add(masks)
    return leaving.download()[0]


class MasksOnDevice:
    """Masks of a batch, of any sizes, that leave the device together with other numbers in one copy.

    The host waits twice, whatever the number of masks: until it is known how many edges they have, and for the copy.
    It waits once more for each `MAX_WAITING_PIXELS` pixels.
    """

    def __init__(self) -> None:
        self._sizes: list[tuple[int, int]] = []
        self._changes: list[Tensor] = []
        self._edges: list[Tensor] = []
        self._pixels = 0
        self._searched_pixels = 0

    def add(self, masks: Tensor) -> None:
        """Take masks ``bool[B, H, W]`` into the next copy."""
        count, height, width = masks.shape
        # A pixel of background before the first one makes a mask's first run of foreground an edge like any other.
        down = F.pad(masks.mT.reshape(count, -1), (1, 0))
        self._changes.append((down[:, 1:] != down[:, :-1]).flatten())
        self._sizes += [(height, width)] * count
        self._pixels += masks.numel()
        if self._pixels - self._searched_pixels >= MAX_WAITING_PIXELS:
            self._search()

    def download(self, numbers: Tensor | None = None) -> tuple[list[Runs], list[float]]:
        """Copy everything to the host.

        Args:
            numbers: ``float32[N]``.

        Returns:
            The runs of each mask in the order in which the masks came, and the numbers.
        """
        if self._changes:
            self._search()
        # A float64 holds every float32, and has as many bytes as an edge, so that one copy takes both.
        parts = self._edges if numbers is None else [numbers.double().view(torch.int64), *self._edges]
        if not parts:
            return [], []
        copied = torch.cat(parts).cpu().numpy()
        count = 0 if numbers is None else len(numbers)
        return self._split(copied[count:]), copied[:count].view(np.float64).tolist()

    def _search(self) -> None:
        """Find the edges: pixels that differ from the pixel before them, counted through all masks."""
        found = torch.cat(self._changes).nonzero()[:, 0]
        self._edges.append(found + self._searched_pixels)
        self._changes, self._searched_pixels = [], self._pixels

    def _split(self, edges: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[Runs]:
        ends = np.array(list(itertools.accumulate(height * width for height, width in self._sizes)), np.int64)
        of_mask: Sequence[np.ndarray[tuple[int], np.dtype[np.int64]]] = np.split(edges, np.searchsorted(edges, ends))
        return [
            Runs.between(one - (end - height * width), height, width)
            for one, end, (height, width) in zip(of_mask[:-1], ends, self._sizes, strict=True)
        ]
