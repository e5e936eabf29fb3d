"""What all parity tests need, whatever the number of threads that they run with."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F


@pytest.fixture(autouse=True)
def two_threads_resize(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resize with two threads at least, on both sides.

    With a single thread, torch resizes one mask by other instructions than three candidates at once, and the last bit
    differs; upstream resizes the candidates, masklet the one that is chosen. Nothing else depends on the number of
    threads, and small models are quicker with one.
    """
    resize = F.interpolate

    def resized(*args: Any, **kwargs: Any) -> torch.Tensor:
        threads = torch.get_num_threads()
        torch.set_num_threads(max(2, threads))
        try:
            return resize(*args, **kwargs)
        finally:
            torch.set_num_threads(threads)

    monkeypatch.setattr(F, "interpolate", resized)
