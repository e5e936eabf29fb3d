from __future__ import annotations

import os
import subprocess
import sys
from unittest import mock

import pytest
import torch

from masklet.errors import FailedPrecondition, InvalidArgument
from masklet_server.engine.network import device
from masklet_server.engine.network.device import has_fast_bfloat16, make_network, pick_device, quickest
from masklet_server.engine.network.network import Network
from masklet_server.models.build import build_model
from masklet_server.models.registry import Registry

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ("ACTIVE", "1000")),
        ({"OMP_WAIT_POLICY": "PASSIVE"}, ("PASSIVE", None)),
        ({"GOMP_SPINCOUNT": "7"}, (None, "7")),
    ],
)
def test_threads_wait_as_told_or_else_for_microseconds(
    given: dict[str, str], expected: tuple[str | None, str | None]
) -> None:
    program = """
import os, sys
import masklet_server.engine
assert "torch" not in sys.modules, "too late"
print(repr((os.environ.get("OMP_WAIT_POLICY"), os.environ.get("GOMP_SPINCOUNT"))))
"""
    kept = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    said = subprocess.run(
        [sys.executable, "-c", program], env=kept | given, capture_output=True, text=True, check=True, timeout=60
    )
    assert said.stdout.strip() == repr(expected)


@pytest.mark.slow
@pytest.mark.parametrize(("given", "is_kept"), [({}, True), ({"MALLOC_PERTURB_": "0"}, False)])
def test_freed_memory_is_kept_for_the_next_layer_unless_the_user_says_how(given: dict[str, str], is_kept: bool) -> None:
    program = """
import masklet_server.engine
import resource, torch
def fill():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(16 * 2**20).fill_(1)  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(min(fill() for _ in range(40)))  # a block may have to be set apart from its neighbours first
"""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    said = subprocess.run(
        [sys.executable, "-c", program], env=kept | given, capture_output=True, text=True, check=True, timeout=60
    )
    # Of 16,384 pages, or 32 where the kernel gives large ones.
    assert (int(said.stdout) < 20) is is_kept


def test_cpu_is_always_there() -> None:
    assert pick_device("cpu") == CPU
    assert device.device_name(CPU)


@pytest.mark.parametrize("name", ["gpu", "cpu:1", "cuda:x", ""])
def test_no_such_device(name: str) -> None:
    with pytest.raises(InvalidArgument, match="must be auto, cpu, cuda or cuda:N"):
        pick_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_without_cuda_the_error_says_what_to_do() -> None:
    assert pick_device("auto") == CPU
    with pytest.raises(FailedPrecondition, match="use --device cpu"):
        pick_device("cuda")


@pytest.mark.parametrize(("dtype", "expected"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_a_dtype_asked_for_is_taken(dtype: str, expected: torch.dtype) -> None:
    network = make_network(build_model(Registry.load().get("nano"), image_size=64), CPU, dtype)
    assert network.dtype == expected
    assert network.model.memory_encoder.out_proj.weight.dtype == expected
    assert network.model.sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix.dtype == torch.float32


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="must be auto, float32 or bfloat16"):
        make_network(build_model(Registry.load().get("nano"), image_size=64), CPU, "float8")


@pytest.mark.slow
@pytest.mark.parametrize("quicker", [torch.float32, torch.bfloat16])
def test_auto_takes_what_was_measured_faster(quicker: torch.dtype) -> None:
    def seconds(network: Network) -> float:
        return 0.1 if network.dtype == quicker else 0.2

    with (
        mock.patch.object(device, "has_fast_bfloat16", return_value=True),
        mock.patch.object(device, "seconds_per_picture", seconds),
    ):
        network = make_network(build_model(Registry.load().get("nano"), image_size=64), CPU)
    assert network.dtype == quicker


@pytest.mark.slow
def test_auto_is_float32_where_the_processor_has_no_bfloat16() -> None:
    with mock.patch.object(device, "has_fast_bfloat16", return_value=False):
        assert make_network(build_model(Registry.load().get("nano"), image_size=64), CPU).dtype == torch.float32


def test_one_slow_round_does_not_decide() -> None:
    networks = [mock.Mock(spec=Network), mock.Mock(spec=Network)]
    timings = [9.0, 9.0, 0.1, 0.2, 5.0, 0.2, 0.1, 0.2]
    with mock.patch.object(device, "seconds_per_picture", side_effect=timings):
        assert quickest(networks, rounds=4) is networks[0]


def test_measuring_really_measures() -> None:
    network = make_network(build_model(Registry.load().get("nano"), image_size=64), CPU, "float32")
    assert 0 < device.seconds_per_picture(network) < 60
    assert isinstance(has_fast_bfloat16(CPU), bool)


def test_a_configuration_that_the_engine_cannot_run_is_refused() -> None:
    model = build_model(Registry.load().get("nano"), image_size=64)
    model.memory_temporal_stride_for_eval = 5
    with pytest.raises(InvalidArgument, match="memory_temporal_stride_for_eval=5"):
        Network(model, CPU)


@pytest.mark.parametrize(("cuda", "fix"), [(None, "this build of torch has no CUDA"), ("13.0", "nvidia-smi")])
def test_a_missing_cuda_device_is_told_with_its_reason(
    cuda: str | None, fix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(FailedPrecondition, match=f"finds no CUDA device.*{fix}.*--device cpu"):
        pick_device("cuda")
