"""Run-lengths, outlines and strokes in the browser, compared with pycocotools and with the pixels themselves."""

from __future__ import annotations

import base64
import struct
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pycocotools import mask as coco

from masklet import rle

Mask = npt.NDArray[np.bool_]


def blobs(seed: int, height: int, width: int) -> Mask:
    """A mask with several parts, holes and single pixels."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    mask = np.zeros((height, width), np.bool_)
    for _ in range(6):
        cy, cx, r = random.uniform(0, height), random.uniform(0, width), random.uniform(2, height / 3)
        mask ^= np.hypot(y - cy, x - cx) < r
    return mask ^ (random.random((height, width)) < 0.01)


MASKS = {
    "one pixel": np.eye(1, dtype=np.bool_),
    "nothing": np.zeros((7, 5), np.bool_),
    "everything": np.ones((7, 5), np.bool_),
    "diagonal": np.eye(9, dtype=np.bool_),
    "chess": np.indices((8, 6)).sum(0) % 2 == 0,
    "ring": np.pad(~np.pad(np.ones((3, 3), np.bool_), 1), 1, constant_values=False)
    ^ np.pad(np.ones((5, 5), np.bool_), 1),
    "blobs": blobs(1, 90, 160),
    "large": blobs(2, 720, 1280),
}


def counts_of(mask: Mask) -> str:
    counts: bytes = coco.encode(np.asfortranarray(mask, np.uint8))["counts"]
    return counts.decode()


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_the_browser_reads_and_writes_as_pycocotools_does(modules: Any, mask: Mask) -> None:
    height, width = mask.shape
    runs, counts, patch = modules.evaluate(
        """async ([text, width, height]) => {
            const { readCounts, writeCounts, paintRuns } = await import("/page/masks/rle.js");
            const runs = readCounts(new TextEncoder().encode(text));
            const patch = paintRuns(runs, width, height);
            const text64 = (bytes) => { // a list of numbers takes seconds to come over
                let text = "";
                for (const byte of bytes) text += String.fromCharCode(byte);
                return btoa(text);
            };
            return [runs, writeCounts(runs), patch && { ...patch, pixels: text64(patch.pixels) }];
        }""",
        [counts_of(mask), width, height],
    )
    assert runs == rle.find_runs(mask).tolist()
    assert counts == counts_of(mask)
    painted = np.zeros_like(mask)
    if patch is None:
        assert not mask.any()
    else:
        shape = (patch["height"], patch["width"])
        part = painted[patch["y"] : patch["y"] + shape[0], patch["x"] : patch["x"] + shape[1]]
        part[:] = np.frombuffer(base64.b64decode(patch["pixels"]), np.bool_).reshape(shape)
        assert part[:, 0].any(), "the rectangle is larger than the mask"
        assert part[-1].any(), "the rectangle is larger than the mask"
    assert np.array_equal(painted, mask)


def test_run_lengths_that_are_cut_off_are_refused(modules: Any) -> None:
    told = modules.evaluate(
        """async () => {
            const { readCounts } = await import("/page/masks/rle.js");
            try { readCounts(new TextEncoder().encode("Q")); } catch (error) { return error.message; }
        }"""
    )
    assert "cut off" in told


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_a_filled_outline_is_the_mask(modules: Any, mask: Mask) -> None:
    """Pixel by pixel: the browser fills the path, and each pixel is either full or empty."""
    height, width = mask.shape
    filled = modules.evaluate(
        """async ([text, width, height]) => {
            const { readCounts, paintRuns } = await import("/page/masks/rle.js");
            const { traceOutlines, pathOf } = await import("/page/masks/contour.js");
            const patch = paintRuns(readCounts(new TextEncoder().encode(text)), width, height);
            const canvas = new OffscreenCanvas(width, height);
            const context = canvas.getContext("2d");
            if (patch) context.fill(pathOf(traceOutlines(patch), 0), "evenodd");
            const { data } = context.getImageData(0, 0, width, height);
            let opaque = "";
            for (let i = 3; i < data.length; i += 4) opaque += String.fromCharCode(data[i]);
            return btoa(opaque);
        }""",
        [counts_of(mask), width, height],
    )
    assert np.array_equal(np.frombuffer(base64.b64decode(filled), np.uint8).reshape(height, width), mask * 255)


def test_a_smooth_outline_stays_within_half_a_pixel(modules: Any) -> None:
    mask = blobs(3, 60, 80)
    length, worst = modules.evaluate(
        """async ([text, width, height]) => {
            const { readCounts, paintRuns } = await import("/page/masks/rle.js");
            const { traceOutlines, pathOf } = await import("/page/masks/contour.js");
            const outlines = traceOutlines(paintRuns(readCounts(new TextEncoder().encode(text)), width, height));
            const area = (cut) => {
                const canvas = new OffscreenCanvas(width * 8, height * 8);
                const context = canvas.getContext("2d");
                context.scale(8, 8);
                context.fill(pathOf(outlines, cut), "evenodd");
                return context.getImageData(0, 0, width * 8, height * 8).data;
            };
            const [exact, smooth] = [area(0), area(0.5)];
            let changed = 0;
            for (let i = 3; i < exact.length; i += 4) changed += Math.abs(exact[i] - smooth[i]) > 127;
            return [outlines.length, changed / 64];
        }""",
        [counts_of(mask), 80, 60],
    )
    corners = length / 2
    assert 0 < worst <= corners / 8  # a corner that is cut by half a pixel gives or takes an eighth of one


@pytest.mark.parametrize("add", [True, False])
def test_strokes_paint_the_pixels_within_their_radius(modules: Any, add: bool) -> None:
    mask = blobs(4, 50, 70)
    points, radius = [10.0, 10.0, 40.0, 30.0, 40.0, 45.0], 4.5
    counts = modules.evaluate(
        """async ([counts, width, height, stroke]) => {
            const worker = new Worker("/page/masks/worker.js", { type: "module" });
            const reply = await new Promise((resolve) => {
                worker.onmessage = ({ data }) => resolve(data);
                worker.postMessage({ id: 1, counts: new TextEncoder().encode(counts), width, height, stroke });
            });
            worker.terminate();
            return reply.counts;
        }""",
        [counts_of(mask), 70, 50, {"points": points, "radius": radius, "add": add}],
    )
    y, x = np.mgrid[:50, :70] + 0.5
    near = np.full(mask.shape, np.inf)
    for (ax, ay), (bx, by) in [((10, 10), (40, 30)), ((40, 30), (40, 45))]:
        along = np.clip(((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / ((bx - ax) ** 2 + (by - ay) ** 2), 0, 1)
        near = np.minimum(near, np.hypot(x - ax - along * (bx - ax), y - ay - along * (by - ay)))
    expected = mask | (near <= radius) if add else mask & (near > radius)
    assert np.array_equal(rle.decode({"size": [50, 70], "counts": counts}), expected)


def test_records_are_read_as_they_are_written(modules: Any) -> None:
    counts = counts_of(MASKS["blobs"]).encode()
    record = (
        struct.pack("<BBHIIffIII", 1, 0b101, 513, 70_000, 9, 0.75, -1.5, 1234, 160 << 16 | 90, len(counts)) + counts
    )
    empty = struct.pack("<BBHIIffIII", 1, 0b010, 2, 3, 4, 0.5, 0.25, 0, 160 << 16 | 90, 0)
    read = modules.evaluate(
        """async (bytes) => {
            const { readRecords } = await import("/page/masks/records.js");
            const records = readRecords(Uint8Array.from(bytes).buffer);
            return records.map((record) => ({ ...record, counts: new TextDecoder().decode(record.counts) }));
        }""",
        list(record + empty),
    )
    assert read == [
        {
            "object": 513, "frame": 70_000, "revision": 9, "visible": True, "prompted": False, "edited": True,
            "iou": 0.75, "score": -1.5, "area": 1234, "width": 160, "height": 90, "counts": counts.decode(),
        },
        {
            "object": 2, "frame": 3, "revision": 4, "visible": False, "prompted": True, "edited": False,
            "iou": 0.5, "score": 0.25, "area": 0, "width": 160, "height": 90, "counts": "",
        },
    ]  # fmt: skip
