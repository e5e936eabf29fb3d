"""Edges of masks over a real channel: drawn in the way that a client asks for, and the same tracking in any case."""

from __future__ import annotations

from pathlib import Path

import grpc
import numpy as np
import pytest

import masklet
from masklet.v1 import common_pb2, tracking_pb2, tracking_pb2_grpc
from masklet_server.embedded import EmbeddedServer
from tests.cli.test_commands import run
from tests.support.e2e import NUM_FRAMES, Mask, frames, lossless, prompt, truth
from tests.support.synthetic import iou


def masks_and_scores(client: masklet.Client, **options: object) -> tuple[list[Mask], list[float]]:
    results = list(client.track(lossless(), prompt("mask"), **options))  # type: ignore[arg-type]
    assert len(results) == NUM_FRAMES
    return [frame.objects[1].mask for frame in results], [frame.objects[1].predicted_iou for frame in results]


def test_a_client_chooses_and_tracking_stays_the_same(client: masklet.Client) -> None:
    plain, scores = masks_and_scores(client, edges="none")
    guided, guided_scores = masks_and_scores(client, edges="guided")
    unsaid, _ = masks_and_scores(client)
    assert guided_scores == scores
    np.testing.assert_array_equal(guided[0], plain[0], err_msg="a mask that was given stays as it is")
    assert any(not np.array_equal(*pair) for pair in zip(plain, guided, strict=True))
    for index, pair in enumerate(zip(unsaid, guided, strict=True)):
        np.testing.assert_array_equal(*pair, err_msg=f"nano's own way is guided, frame {index}")
    overlaps = [[iou(mask, truth(0, i)) for i, mask in enumerate(masks)] for masks in (plain, guided)]
    assert np.mean(overlaps[1]) > np.mean(overlaps[0]), "the clip's objects have clear edges of colour"


def test_annotation_draws_edges_too(client: masklet.Client) -> None:
    plain, _ = masks_and_scores(client, edges="none")
    with client.annotate(lossless(), edges="none") as annotation:
        annotation.prompt(prompt("mask"))
        found = [frame.objects[1].mask for frame in annotation.propagate()]
    for pair in zip(found, plain, strict=True):
        np.testing.assert_array_equal(*pair)


def test_pictures_have_edges_and_logits_of_their_own(client: masklet.Client) -> None:
    picture = frames()[0]
    box = [int(side) for side in prompt("box").box]  # type: ignore[union-attr]
    plain = client.segment(picture, box=box, multimask_output=False, edges="none")
    guided = client.segment(picture, box=box, multimask_output=False)
    again = client.segment(plain, box=box, multimask_output=False, edges="guided")  # from the server's cache
    assert not np.array_equal(plain.masks, guided.masks)
    np.testing.assert_array_equal(again.masks, guided.masks)
    np.testing.assert_array_equal(plain.logits, guided.logits)
    assert iou(guided.masks[0], truth(0)) >= iou(plain.masks[0], truth(0))


def test_what_is_no_way_to_draw_edges_is_refused(client: masklet.Client, nano_server: str) -> None:
    with pytest.raises(masklet.InvalidArgument, match=r"edges: is 'sharp', must be one of none, guided"):
        list(client.track(lossless(), prompt("mask"), edges="sharp"))  # type: ignore[arg-type]
    unknown: common_pb2.Edges.ValueType = 9  # type: ignore[assignment]
    request = tracking_pb2.TrackRequest(config=tracking_pb2.TrackConfig(edges=unknown))
    with grpc.insecure_channel(nano_server) as channel, pytest.raises(grpc.RpcError, match=r"config\.edges"):
        list(tracking_pb2_grpc.TrackingServiceStub(channel).Track(iter([request])))


def test_the_command_line_has_the_option(nano_server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = tmp_path / "clip.mkv"
    clip.write_bytes(lossless())
    x, y = (float(number) for number in prompt("point").point_coords[0])  # type: ignore[index]
    command = ["track", clip, "--server", nano_server, "--point", f"{x},{y}"]
    for edges in ("none", "guided"):
        assert run(*command, "--edges", edges, "--masks", tmp_path / edges) == 0
    first = [(tmp_path / edges / "00000.png").read_bytes() for edges in ("none", "guided")]
    assert first[0] != first[1]
    assert run(*command, "--edges", "sharp") == 2
    assert "must be none or guided" in capsys.readouterr().err


@pytest.mark.parametrize("runtime", ["torch", "openvino"])
def test_either_runtime_serves(runtime: str) -> None:
    with EmbeddedServer(device="cpu", dtype="bfloat16", runtime=runtime) as address, masklet.Client(address) as client:
        (model,) = [model for model in client.info().models if model.loaded]
        # On a processor without bfloat16, torch may be quicker in every part.
        assert model.runtime in {runtime, "torch"}
        masks, _ = masks_and_scores(client)
    assert np.mean([iou(mask, truth(0, i)) for i, mask in enumerate(masks)]) > 0.5
