"""CVAT's own agent runs our functions: its loop, its drivers and its worker process; only the transport is ours."""

from __future__ import annotations

import json
import logging
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import masklet
from masklet.integrations import cvat
from tests.support.e2e import frames, prompt, truth
from tests.support.synthetic import iou

_REASON = "cvat-cli is not installed: pip install cvat-cli 'masklet[cvat]'"
FUNCTION_ID = 7


class Transport:
    """What CVAT's server would answer: it hands out requests one after the other, and keeps the results.

    Attributes:
        results: By the request's id; a text for a request that failed.
    """

    def __init__(self, function: dict[str, Any], requests: list[dict[str, Any]]) -> None:
        self._function = function
        self._waiting = dict(enumerate(requests))
        self.results: dict[int, Any] = {}
        self.default_headers = {"User-Agent": "cvat_cli/2.80 (test)"}

    def call_api(self, path: str, method: str, **call: Any) -> tuple[None, Any]:
        answer: Any = {}
        if path.endswith("/acquire"):
            wanted = call["body"]["request_category"] == "batch" and self._waiting
            answer = {"ar_assignment": None}
            if wanted:
                number = min(self._waiting)
                parameters = {"task": 1, **self._waiting.pop(number)}
                if isinstance(parameters.get("states"), int):  # those that an earlier request has made
                    parameters["states"] = self.results[parameters["states"]]["states"]
                answer = {"ar_assignment": {"ar_id": number, "ar_params": parameters}}
        elif path.endswith("/complete"):
            result = {key: value for key, value in call["body"].items() if key != "agent_id"}
            from cvat_sdk.api_client import ApiClient

            sent = json.dumps(ApiClient.sanitize_for_serialization(result))
            self.results[call["path_params"]["request_id"]] = json.loads(sent)
        elif path.endswith("/fail"):
            self.results[call["path_params"]["request_id"]] = call["body"]["exc_info"]
        else:
            answer = self._function
        return None, types.SimpleNamespace(data=json.dumps(answer))


class Frames:
    """In place of ``cvat_sdk.datasets.TaskDataset``, which would download the frames."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.labels: list[Any] = []
        self.samples = [
            types.SimpleNamespace(
                frame_index=index, media=types.SimpleNamespace(load_image=lambda i=index: Image.fromarray(frames()[i]))
            )
            for index in range(6)
        ]


@pytest.fixture
def run_agent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, nano_server: str) -> Any:
    agent = pytest.importorskip("cvat_cli._internal.agent", reason=_REASON)
    common = pytest.importorskip("cvat_cli._internal.common", reason=_REASON)
    import cvat_sdk.datasets

    monkeypatch.setattr(cvat_sdk.datasets, "TaskDataset", Frames)

    def run(kind: str, function: dict[str, Any], requests: list[dict[str, Any]]) -> dict[int, Any]:
        transport = Transport({"id": FUNCTION_ID, "provider": "native", **function}, requests)
        client = types.SimpleNamespace(
            api_client=transport,
            logger=logging.getLogger("cvat"),
            config=types.SimpleNamespace(cache_dir=tmp_path),
            api_map=types.SimpleNamespace(host="https://cvat.example"),
        )
        loader = common.FunctionLoader("masklet.integrations.cvat", None, {"server": nano_server, "kind": kind})
        agent.run_agent(client, loader, FUNCTION_ID, burst=True)
        return transport.results

    return run


def encoded(mask: Any) -> list[float]:
    from cvat_sdk.masks import encode_mask

    points: list[float] = encode_mask(mask)
    return points


def decoded(points: list[float]) -> Any:
    from cvat_sdk.masks import decode_mask

    return decode_mask(points, image_width=320, image_height=240)


@pytest.mark.timeout(300)
def test_the_agent_tracks_several_shapes(run_agent: Any, client: masklet.Client) -> None:
    box = [float(side) for side in prompt("box", 1).box]  # type: ignore[union-attr]
    shapes = [{"type": "mask", "points": encoded(truth(0))}, {"type": "rectangle", "points": box}]
    tracks = [{"type": "track", "frame": index, "states": 0} for index in range(1, 6)]
    bad = [
        {"type": "init_tracking", "frame": 0, "shapes": [{"type": "polygon", "points": [1, 1, 5, 5, 1, 5]}]},
        {"type": "track", "frame": 90, "states": 0},
    ]
    function = {"kind": "tracker", "supported_shape_types": ["mask", "rectangle"]}
    results = run_agent("tracker", function, [{"type": "init_tracking", "frame": 0, "shapes": shapes}, *tracks, *bad])
    assert len(set(results[0]["states"])) == 2
    wanted = list(client.track(list(frames()[:6]), [prompt("mask", 0), masklet.Prompt(object_id=2, box=box)]))
    for index in range(1, 6):
        first, second = results[index]["shapes"]
        assert (first["type"], second["type"]) == ("mask", "rectangle")
        # A clip of known length counts its pointers in another way than a stream; the masks differ by single pixels.
        assert (decoded(first["points"]) == wanted[index].objects[1].mask).mean() > 0.999
        assert second["points"] == pytest.approx(wanted[index].objects[2].box, abs=2)
        assert iou(decoded(first["points"]), truth(0, index)) > 0.6
    assert "Unsupported shape type 'polygon'" in results[6]
    assert "Frame with index 90 does not exist" in results[7]


@pytest.mark.timeout(300)
def test_the_agent_makes_masks_from_clicks_and_boxes(run_agent: Any, client: masklet.Client) -> None:
    x, y = (float(value) for value in prompt("point").point_coords[0])  # type: ignore[index]
    box = [float(side) for side in prompt("box").box]  # type: ignore[union-attr]
    nothing: dict[str, Any] = {"type": "interact", "frame": 0, "pos_points": [], "neg_points": [], "obj_bbox": []}
    requests = [
        {**nothing, "pos_points": [[x, y]]},
        {**nothing, "pos_points": [[x, y]], "neg_points": [[2.0, 2.0]]},
        {**nothing, "obj_bbox": [box[:2], box[2:]]},
        nothing,
    ]
    function = {"kind": "interactor", "min_pos_points": 0, "min_neg_points": 0, "startswith_box": False,
                "startswith_box_optional": True}  # fmt: skip
    results = run_agent("interactor", function, requests)
    wanted = [
        client.segment(frames()[0], point_coords=[[x, y]]),
        client.segment(frames()[0], point_coords=[[x, y], [2.0, 2.0]], point_labels=[1, 0], multimask_output=False),
        client.segment(frames()[0], box=box, multimask_output=False),
    ]
    for number, expected in enumerate(wanted):
        (shape,) = results[number]["shapes"]
        assert shape["type"] == "mask"
        np.testing.assert_array_equal(decoded(shape["points"]), expected.masks[0])
        (confidence,) = shape["attributes"]
        assert float(confidence["value"]) == pytest.approx(float(expected.scores[0]), abs=1e-3)
    assert results[3] == {"shapes": []}


def test_wrong_parameters_are_refused(nano_server: str) -> None:
    pytest.importorskip("cvat_sdk", reason=_REASON)
    with pytest.raises(masklet.InvalidArgument, match="kind: is 'detector', must be tracker or interactor"):
        cvat.create(server=nano_server, kind="detector")
    with pytest.raises(masklet.InvalidArgument, match="idle_seconds: is 0, must be above 0"):
        cvat.create(server=nano_server, idle_seconds=0)
    with pytest.raises(masklet.NotFound, match=r"has not loaded the model 'sam2\.1-tiny'"):
        cvat.create(server=nano_server, model="sam2.1-tiny")
    assert cvat.create(server=nano_server, model="nano@384").spec.supported_shape_types == {"mask", "rectangle"}


def test_without_cvats_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("cvat_sdk", "cvat_sdk.auto_annotation"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(masklet.Unavailable, match=r"pip install 'masklet\[cvat\]'"):
        cvat.create()
