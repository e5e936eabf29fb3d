"""A GPU's choice is measured once, on the CPU and on a pretended GPU here; float32 is never touched."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from unittest import mock

import pytest
import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

from masklet_server.engine.network import device as devices
from masklet_server.engine.network.attention import fused
from masklet_server.engine.network.graphs import CudaCapture, Function
from masklet_server.engine.network.network import Network
from masklet_server.engine.network.tuning import fastest as timing
from masklet_server.engine.network.tuning import tune
from masklet_server.engine.network.tuning.choice import BUCKETS, Choice, Circumstances, StoredChoices
from masklet_server.engine.network.tuning.fastest import Candidate, Results, Verdict, fastest, other_masks
from masklet_server.engine.network.tuning.kernels import KERNELS, KnownKernels, MeasuredKernels, shape_name
from masklet_server.engine.network.tuning.trial import Trial
from masklet_server.models.build import build_model
from masklet_server.models.registry import Registry
from tests.support.devices.pretend import pretend_devices

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")
HERE = Circumstances(device="Card 1", driver="580.1", torch="2.13", masklet="1", model="abc", dtype="auto")


def nano() -> SAM2Base:
    return build_model(Registry.load().get("nano"), image_size=64)


def one_round() -> contextlib.AbstractContextManager[object]:
    """Nothing is timed more than once."""
    return mock.patch.object(timing, "ROUNDS", 1)


@contextlib.contextmanager
def wishes(*wanted: str) -> Iterator[list[tuple[str, list[str]]]]:
    """Candidates are compared as always; of the right ones, the wanted ones are the fastest. Tells what was asked."""
    asked: list[tuple[str, list[str]]] = []

    def decide(
        what: str, candidates: Sequence[Candidate], fault: Callable[[Results, Results], str], *, seconds: float
    ) -> Verdict:
        verdict = fastest(what, candidates, fault, seconds=1e9)
        asked.append((what, list(verdict.seconds) or [candidates[0].name]))
        return Verdict(next((name for name in verdict.seconds if name in wanted), candidates[0].name))

    with mock.patch.object(tune, "fastest", decide), one_round():
        yield asked


@contextlib.contextmanager
def fake_recording() -> Iterator[list[int]]:
    """CUDA graphs that run the function itself; tells the sizes of recorded batches."""
    recorded: list[int] = []

    def capture(_: CudaCapture, function: Function, arguments: Sequence[Tensor]) -> Function:
        recorded.append(len(arguments[0]))
        return function

    with mock.patch.object(CudaCapture, "__call__", capture):
        yield recorded


@pytest.mark.slow
def test_every_question_is_asked_with_candidates_that_give_the_plain_masks() -> None:
    with pretend_devices(), fake_recording() as recorded, wishes("float32", "with", "padded", "4") as asked:
        network, choice = tune.measured_network(nano(), GPU, ("bfloat16", "float32"))

    assert [what for what, _ in asked] == ["dtype", "CUDA graphs", "buckets", "pictures a pass"]
    assert dict(asked) == {
        "dtype": ["bfloat16", "float32"],
        "CUDA graphs": ["without", "with"],
        "buckets": ["none", "padded"],
        "pictures a pass": ["1", "2", "4"],
    }
    assert (choice.dtype, choice.graphs, choice.pictures, choice.buckets) == ("float32", True, 4, BUCKETS)
    assert network.dtype == torch.float32
    assert network.encode_ahead == 4
    assert {1, 3} <= set(recorded), "sizes as they are"
    assert {4, 8} <= set(recorded), "and padded ones"


@pytest.mark.slow
def test_where_nothing_is_better_all_stays_plain() -> None:
    with pretend_devices(), fake_recording(), wishes() as asked:
        network, choice = tune.measured_network(nano(), GPU, ("bfloat16", "float32"))

    assert [what for what, _ in asked] == ["dtype", "CUDA graphs", "pictures a pass"]
    assert choice == Choice("bfloat16", choice.kernels)
    assert (network.dtype, network.encode_ahead) == (torch.bfloat16, 1)


@pytest.mark.slow
def test_measuring_really_measures() -> None:
    with one_round():
        network, choice = tune.measured_network(nano(), CPU, ("bfloat16",))
    assert network.dtype == torch.bfloat16
    assert set(choice.kernels.values()) <= set(KERNELS)
    assert choice.pictures in (1, 2, 4)


def test_a_choice_is_measured_once(tmp_path: Path) -> None:
    stored = StoredChoices(tmp_path)
    measured = Choice("float16", graphs=True, pictures=2, buckets=BUCKETS)

    def measure(model: SAM2Base, device: torch.device, _: Sequence[str]) -> tuple[Network, Choice]:
        return Network(model, device, torch.float16), measured

    with mock.patch.object(tune, "measured_network", side_effect=measure) as measuring:
        first = tune.tuned_network(nano(), CPU, ("bfloat16", "float16"), stored, HERE)
        again = tune.tuned_network(nano(), CPU, ("bfloat16", "float16"), stored, HERE)
        assert measuring.call_count == 1
        tune.tuned_network(nano(), CPU, ("bfloat16",), stored, HERE.model_copy(update={"driver": "590.0"}))
        assert measuring.call_count == 2, "another driver"

    assert first.tuning == again.tuning == str(measured)
    assert (again.dtype, again.encode_ahead) == (torch.float16, 2)


def test_what_was_chosen_gives_the_masks_of_the_plain_way() -> None:
    """Padding and passes of several pictures, in float32 where rounding cannot hide a fault."""
    plain, other = Network(nano(), CPU), Network(nano(), CPU)
    other.compute_as(graphs=False, pictures=4, buckets=(8,))
    trial = Trial(plain)
    for one, two in zip(trial.track(plain, (1, 3, 9)), trial.track(other, (1, 3, 9)), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(trial.encode(plain, 1), trial.encode(other, 4), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "arguments", "is_measured"),
    [
        ("auto", {}, True),
        ("bfloat16", {}, True),
        ("float32", {}, False),
        ("auto", {"tune": False}, False),
        ("auto", {"graphs": True}, False),
    ],
)
def test_a_gpu_is_measured_unless_the_settings_say_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, arguments: dict[str, bool], is_measured: bool
) -> None:
    monkeypatch.setenv("MASKLET_CACHE", str(tmp_path))
    with (
        pretend_devices(),
        fake_recording(),
        one_round(),
        mock.patch.object(devices, "device_name", return_value="Card 1"),
        mock.patch.object(devices, "has_fast_bfloat16", return_value=True),
        mock.patch.object(tune, "dtypes_of", return_value=("bfloat16",)),  # float16 is slow on a CPU
    ):
        network = devices.make_network(nano(), GPU, dtype, **arguments)  # type: ignore[arg-type]

    stored = list(StoredChoices(tmp_path / "tuning"))
    assert len(stored) == is_measured
    assert bool(network.tuning) == is_measured
    if is_measured:
        ((known_as, choice),) = stored
        assert known_as.device == "Card 1"
        assert network.tuning == str(choice)
    if dtype == "float32":
        assert network.dtype == torch.float32


def test_a_cpu_is_not_measured_as_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKLET_CACHE", str(tmp_path))
    assert devices.make_network(nano(), CPU, "bfloat16", runtime="torch").tuning == ""
    assert not (tmp_path / "tuning").exists()


def test_float16_gives_the_masks_of_float32() -> None:
    plain = Network(nano(), CPU)
    trial = Trial(plain)
    assert other_masks(trial.track(Network(nano(), CPU, torch.float16), (1,)), trial.track(plain, (1,))) == ""


def test_dtypes_to_choose_among() -> None:
    assert tune.dtypes_of("bfloat16", fast_bfloat16=True) == ("bfloat16",)
    assert tune.dtypes_of("auto", fast_bfloat16=True) == ("bfloat16", "float16")
    assert tune.dtypes_of("auto", fast_bfloat16=False) == ("float32", "float16")


SHAPE = {"queries": 16, "keys": 48, "dim": 32, "width": 8}


def test_kernels_that_this_device_lacks_are_left_out() -> None:
    choose = MeasuredKernels(CPU, torch.bfloat16, seconds=0.2)
    assert choose(**SHAPE) in (KERNELS["fused"], KERNELS["blocked"])
    assert choose.names[shape_name(**SHAPE)] in ("fused", "blocked")
    assert KnownKernels(choose.names)(**SHAPE) is KERNELS[choose.names[shape_name(**SHAPE)]]
    assert KnownKernels()(**SHAPE) is fused


def test_a_wrong_kernel_is_never_taken() -> None:
    def wrong(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return v.new_zeros(*q.shape[:-1], v.shape[-1])

    choose = MeasuredKernels(CPU, torch.bfloat16, seconds=0.2, kernels={"fused": fused, "wrong": wrong})
    assert choose(**SHAPE) is fused


def test_float32_has_only_the_kernel_of_parity() -> None:
    choose = MeasuredKernels(CPU, torch.float32, seconds=0.2)
    assert choose(**SHAPE) is fused
    assert choose.names == {}
