"""A prompt as the client sent it: its mask is checked and decoded."""

from __future__ import annotations

import numpy as np
import pytest

from masklet.errors import InvalidArgument
from masklet.prompts import Prompt
from masklet_server.masks.encoding import EncodedMask, MaskEncoding, encode
from masklet_server.masks.pool import MaskPool
from masklet_server.masks.runs import Runs
from masklet_server.session.prompts import GivenPrompt
from tests.support.masks import sandboxed_png


def mask_prompt(mask: EncodedMask) -> GivenPrompt:
    return GivenPrompt(Prompt(1, 0, mask=np.ones((1, 1), np.bool_)), mask)


async def checked(prompt: GivenPrompt) -> Prompt:
    prompt.check_mask()
    return prompt.prompt


async def decoded_to_two(prompt: GivenPrompt) -> Prompt:
    pool = MaskPool(1, sandboxed_png)
    try:
        return await prompt.decode_in(pool, 2)
    finally:
        pool.close()


async def test_masks_are_checked_and_decoded_with_their_path() -> None:
    pixels = np.zeros((4, 6), np.bool_)
    pixels[:2, 3:] = True
    good = mask_prompt(encode(Runs.of(pixels), MaskEncoding.PNG))
    good.check_mask()
    decoded = (await decoded_to_two(good)).mask  # at the model's size
    assert decoded is not None
    assert np.array_equal(decoded, [[False, True], [False, False]])
    for mask, method, field in (
        (EncodedMask(MaskEncoding.COCO_RLE, 4, 6, b"0"), checked, "prompt.mask.data"),
        (EncodedMask(MaskEncoding.COCO_RLE, 4, 6, b"0"), decoded_to_two, "prompt.mask.data"),
        (encode(Runs.of(np.zeros((4, 6), np.bool_)), MaskEncoding.PNG), decoded_to_two, "prompt.mask"),
        (
            encode(Runs.of(np.eye(1, 4 * 6, dtype=np.bool_).reshape(4, 6)), MaskEncoding.PNG),
            decoded_to_two,
            "prompt.mask",
        ),
    ):
        with pytest.raises(InvalidArgument) as raised:
            await method(mask_prompt(mask))
        assert [violation.field for violation in raised.value.violations] == [field]
