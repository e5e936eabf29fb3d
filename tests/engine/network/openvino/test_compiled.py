"""A module compiled by OpenVINO takes and gives torch's tensors, whatever their dtype, and shares their memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from masklet_server.engine.network.openvino.compiled import CompiledModel, Model


class Affine(nn.Module):
    """``2 x + y`` and the sum of x's rows."""

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return 2 * x + y, x.sum(dim=-1)


def affine(*dtypes: torch.dtype) -> Model:
    return Model.convert(Affine(), [torch.zeros(2, 3), torch.zeros(2, 3)], dtypes)


def test_tensors_go_in_and_come_out() -> None:
    compiled = affine(*[torch.float32] * 4).compile("f32")
    x, y = torch.randn(2, 3), torch.randn(2, 3)
    joined, sums = compiled(x, y)
    assert torch.allclose(joined, 2 * x + y)
    assert torch.allclose(sums, x.sum(dim=-1))


def test_bfloat16_and_bytes_are_taken_and_given() -> None:
    compiled = affine(torch.uint8, torch.bfloat16, torch.bfloat16, torch.float32).compile("f32")
    x = torch.tensor([[1, 2, 250], [0, 7, 3]], dtype=torch.uint8)
    y = torch.tensor([[0.5, -1.0, 2.0], [4.0, 8.0, -16.0]], dtype=torch.bfloat16)
    joined, sums = compiled(x, y)
    assert joined.dtype == torch.bfloat16
    assert joined.tolist() == [[2.5, 3.0, 502.0], [4.0, 22.0, -10.0]]
    assert sums.dtype == torch.float32
    assert sums.tolist() == [253.0, 10.0]


def test_another_dtype_and_layout_are_converted() -> None:
    compiled = affine(*[torch.float32] * 4).compile("f32")
    x, y = torch.arange(6.0).view(3, 2).T, torch.ones(2, 3, dtype=torch.bfloat16)
    assert torch.equal(compiled(x, y)[0], 2 * x + 1)


def test_results_belong_to_the_caller() -> None:
    compiled = affine(*[torch.float32] * 4).compile("f32")
    first, _ = compiled(torch.ones(2, 3), torch.zeros(2, 3))
    compiled(torch.zeros(2, 3), torch.zeros(2, 3))
    assert torch.equal(first, torch.full((2, 3), 2.0))


def test_one_conversion_serves_several_sizes() -> None:
    model = affine(*[torch.float32] * 4)
    for rows in (1, 5):
        compiled = model.compile("f32", {0: [rows, 3], 1: [rows, 3]})
        assert compiled(torch.ones(rows, 3), torch.ones(rows, 3))[0].tolist() == [[3.0] * 3] * rows


def test_written_and_read_again_it_gives_the_same(tmp_path: Path) -> None:
    model = affine(*[torch.float32] * 4)
    model.write(tmp_path / "affine.xml")
    arguments = torch.randn(2, 3), torch.randn(2, 3)
    again = Model.read(tmp_path / "affine.xml").compile("f32")
    assert all(torch.equal(*pair) for pair in zip(model.compile("f32")(*arguments), again(*arguments), strict=True))


def test_a_wrong_number_of_arguments_is_refused() -> None:
    compiled: CompiledModel = affine(*[torch.float32] * 4).compile("f32")
    with pytest.raises(ValueError, match="argument"):
        compiled(torch.ones(2, 3))


@pytest.mark.slow
def test_nothing_is_reported_over_the_network() -> None:
    """OpenVINO would send a word of each import and conversion, where it finds the package openvino_telemetry."""
    program = (
        "import sys, socket, torch\n"
        "def refuse(*_): raise AssertionError('a socket was opened')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from tests.engine.network.openvino.test_compiled import affine\n"
        "affine(*[torch.float32] * 4).compile('f32')\n"
        "import openvino.tools.ovc as converter\n"
        "print(type(converter.telemetry).__module__)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "openvino.tools.ovc.telemetry_stub"
