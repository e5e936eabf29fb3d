"""Pictures and masks at the model's size: the same values as `F.interpolate` gives, in a fraction of the memory."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from masklet_server.engine.network.mask_input import logits_of_mask, shrink, square_mask

# What a mask of 35 megapixels may add to the process, which keeps freed memory. Its bytes alone are 35 MB.
MOST_BYTES = 300 * 1024**2
PROGRAM = """
import numpy as np
from masklet_server.engine.network.mask_input import logits_of_mask

def peak():
    status = open("/proc/self/status").read()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))

mask = np.zeros((4320, 8192), bool)
mask[100:4000, 100:8000] = True
logits_of_mask(mask[:64, :64] | True, 256)
before = peak()
logits_of_mask(mask, 256)
print(peak() - before)
"""


@pytest.mark.parametrize(
    ("channels", "height", "width", "size"),
    [(1, 1100, 1900, 256), (3, 1500, 1000, 512), (3, 240, 320, 512), (1, 300, 7000, 512), (1, 7000, 300, 512)],
)
def test_strips_change_nothing(channels: int, height: int, width: int, size: int) -> None:
    pixels = torch.randint(0, 256, (height, width, channels), dtype=torch.uint8).permute(2, 0, 1)
    whole = F.interpolate(pixels[None].float() / 255, size=(size, size), mode="bilinear", antialias=True)[0]
    assert torch.equal(shrink(pixels, size, lambda rows: rows.float() / 255), whole)


def test_a_large_mask_has_the_values_of_sam2() -> None:
    mask = np.random.default_rng(0).random((1100, 1900)) > 0.5
    values = torch.from_numpy(mask).float()[None, None]
    logits = F.interpolate(values * 20.0 - 10.0, size=(256, 256), mode="bilinear", antialias=True)[0, 0]
    square = F.interpolate(values, size=(512, 512), mode="bilinear", antialias=True)[0, 0] >= 0.5
    assert np.array_equal(logits_of_mask(mask, 256), logits.numpy())
    assert np.array_equal(square_mask(mask, 512), square.numpy())


def test_a_large_mask_takes_little_memory() -> None:
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert int(done.stdout) < MOST_BYTES
