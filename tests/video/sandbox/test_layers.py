"""A machine that lacks layers of the sandbox: what the server says, and what a strict one refuses."""

from __future__ import annotations

import io
import os
import sys

import pytest

from masklet.errors import FailedPrecondition
from masklet_media import confinement
from masklet_server.video.limits import VideoLimits
from masklet_server.video.messages import (
    Channel,
    DecodingFailed,
    EndOfInput,
    Setup,
    decode_from_decoder,
    decode_to_decoder,
    encode,
)
from masklet_server.video.sandbox import layers
from masklet_server.video.worker import main


def test_missing_layers_are_named_and_a_strict_server_refuses(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in confinement.LAYERS:
        monkeypatch.setattr(layers, "missing_layers", lambda name=name: (name,))
        caplog.clear()
        layers.check_sandbox(strict=False)
        assert confinement.LAYERS[name] in caplog.text
        with pytest.raises(FailedPrecondition, match=f"lacks {name}"):
            layers.check_sandbox(strict=True)
    monkeypatch.setattr(layers, "missing_layers", tuple)
    layers.check_sandbox(strict=True)


def test_a_sandbox_that_cannot_be_tried_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/python")
    with pytest.raises(FailedPrecondition, match="cannot be tried"):
        layers.missing_layers.__wrapped__()


@pytest.mark.parametrize("strict", [False, True])
def test_a_strict_decoder_decodes_nothing_when_a_layer_is_missing(
    strict: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = VideoLimits(strict_sandbox=strict)
    incoming = io.BytesIO(
        b"".join(b"".join(encode(one)) for one in (Setup("packets", 32, 1, 4096, limits), EndOfInput()))
    )
    outgoing = io.BytesIO()
    monkeypatch.setattr(main, "confine", lambda **_: ["namespaces"])
    pixels = os.memfd_create("pixels")
    os.ftruncate(pixels, 4096)
    main.serve(Channel(incoming, outgoing, decode_to_decoder), pixels, -1)
    answer = decode_from_decoder(outgoing.getvalue().splitlines(keepends=True)[0])
    assert isinstance(answer, DecodingFailed)
    assert answer.kind == ("ResourceExhausted" if strict else "DataLoss")
    assert ("sandbox is strict, and the decoding process lacks namespaces" in answer.message) is strict
