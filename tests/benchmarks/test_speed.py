"""The comparison with upstream's predictor runs, with nano for a few frames."""

from __future__ import annotations

from benchmarks.sides import EXAMPLE
from benchmarks.speed import Setting
from masklet_server.models.build import build_reference
from masklet_server.models.registry import Registry


def setting(device: str = "cpu", *, compiled: bool = False) -> Setting:
    return Setting("nano", device, "auto", 1, 1, compiled, 2, 1, EXAMPLE)


def test_the_reference_runs_in_every_way_that_makes_sense() -> None:
    assert setting().sides == ["ours", "reference float32", "reference bfloat16 autocast"]
    assert setting("cuda:0", compiled=True).sides == [
        "ours",
        "reference bfloat16 autocast",
        "reference compiled bfloat16 autocast",
    ]


def test_the_compiled_reference_is_upstreams_own() -> None:
    predictor = build_reference(Registry.load().get("nano"), compiled=True)

    assert type(predictor).__name__ == "SAM2VideoPredictorVOS"
    # torch.compile wraps the functions; nothing is compiled before they are called.
    assert hasattr(predictor.memory_attention.forward, "_torchdynamo_orig_callable")
