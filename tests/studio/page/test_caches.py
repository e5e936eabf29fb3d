"""The page's stores of pictures and masks: bounded, whatever the length of the clip."""

from __future__ import annotations

from typing import Any

import pytest

FRAMES = 10_000


@pytest.mark.slow
def test_masks_of_ten_thousand_frames_take_bounded_memory(modules: Any) -> None:
    most, held, asked, again = modules.evaluate(
        """async (frames) => {
            const { MaskCache } = await import("/page/masks/cache.js");
            const asked = [];
            const counts = new Uint8Array(2000).fill(49);
            let revision = 0;
            const cache = new MaskCache({
                changed: () => {},
                bytes: 4 << 20,
                ask: async (from, to) => {
                    asked.push(from);
                    for (let frame = from; frame <= to; frame++)
                        for (let object = 1; object <= 2; object++)
                            cache.put({ object, frame, revision: ++revision, width: 64, height: 64, counts });
                },
            });
            let most = 0;
            for (let frame = 0; frame < frames; frame += 10) {
                cache.at(frame);
                await new Promise((resolve) => setTimeout(resolve));
                most = Math.max(most, cache.bytes);
            }
            const before = asked.length;
            const held = cache.frames.size;
            cache.at(0);
            await new Promise((resolve) => setTimeout(resolve));
            const again = cache.at(0).length;
            cache.close();
            return [most, held, [before, asked.length], again];
        }""",
        FRAMES,
    )
    assert most <= 4 << 20
    assert 100 < held < 1000
    assert asked == [FRAMES / 50, FRAMES / 50 + 1], "each part is asked for once, and again after it was given up"
    assert again == 2


def test_masks_that_are_void_are_shown_until_the_new_ones_are_here(modules: Any) -> None:
    before, while_asking, after = modules.evaluate(
        """async () => {
            const { MaskCache } = await import("/page/masks/cache.js");
            let answer;
            const cache = new MaskCache({ changed: () => {}, ask: () => new Promise((resolve) => (answer = resolve)) });
            const mask = (frame, revision) =>
                cache.put({ object: 1, frame, revision, width: 8, height: 8, counts: new Uint8Array(4) });
            const seen = () => [5, 6].map((frame) => cache.at(frame).map((one) => one.revision));
            cache.at(5);
            mask(5, 7);
            mask(6, 8);
            answer();
            await null;
            const before = seen();
            cache.renew();
            const asking = seen();
            mask(5, 1); // a gateway that began anew counts from 1
            answer();
            await new Promise((resolve) => setTimeout(resolve));
            const after = seen();
            cache.close();
            return [before, asking, after];
        }"""
    )
    assert before == [[7], [8]]
    assert while_asking == [[7], [8]]
    assert after == [[1], []], "the mask that the gateway no longer has is gone"


def test_an_older_mask_does_not_replace_a_newer_one(modules: Any) -> None:
    revisions = modules.evaluate(
        """async () => {
            const { MaskCache } = await import("/page/masks/cache.js");
            const cache = new MaskCache({ changed: () => {}, ask: async () => {} });
            for (const revision of [3, 5, 4])
                cache.put({ object: 1, frame: 0, revision, width: 8, height: 8, counts: new Uint8Array(4) });
            const [one] = cache.at(0);
            cache.close();
            return [one.revision, cache.bytes];
        }"""
    )
    assert revisions == [5, 204]


def test_pictures_are_bounded_and_fetched_round_the_playhead(modules: Any) -> None:
    result = modules.evaluate(
        """async (frames) => {
            const { FrameCache } = await import("/page/state/frames.js");
            const canvas = new OffscreenCanvas(64, 36);
            canvas.getContext("2d");
            const blob = await canvas.convertToBlob();
            let fetched = 0;
            const real = window.fetch;
            window.fetch = async () => (fetched++, new Response(blob));
            const failed = [];
            const cache = new FrameCache({
                url: (frame, width) => `/${frame}/${width}`, full: 640, height: 360, changed: () => {},
                failed: (message) => failed.push(message), pictureBytes: 30 * 640 * 360 * 4, blobBytes: 50 * blob.size,
            });
            const idle = async () => { while (cache.running.size) await new Promise((r) => setTimeout(r, 2)); };
            cache.look(100, 640, frames);
            await idle();
            const round = [...cache.pictures.keys()].sort((a, b) => a - b);
            let [pictures, blobs] = [0, 0];
            for (let frame = 0; frame < frames; frame += 500) {
                cache.look(frame, 640, frames);
                await idle();
                pictures = Math.max(pictures, cache.pictures.size);
                blobs = Math.max(blobs, cache.blobs.size);
            }
            cache.look(frames - 1, 640, frames);
            await idle();
            const past = Math.max(...cache.pictures.keys());
            window.fetch = real;
            cache.close();
            return { round, pictures, blobs, past, failed };
        }""",
        FRAMES,
    )
    assert result["round"] == list(range(94, 122))
    assert result["pictures"] <= 30
    assert result["blobs"] <= 50
    assert result["past"] == FRAMES - 1, "no picture past the end is asked for"
    assert result["failed"] == []
