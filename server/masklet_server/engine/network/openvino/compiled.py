"""A torch module that OpenVINO compiles for this CPU: torch tensors in, torch tensors out.

OpenVINO reads and writes the memory of torch's own tensors, bfloat16 included, so that nothing is copied on the way.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
import threading
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.jit._trace import TracerWarning


def is_installed() -> bool:
    """Whether the package `openvino` is here."""
    return importlib.util.find_spec("openvino") is not None


class Model:
    """A module as a graph of OpenVINO's, not yet compiled for any size.

    Args:
        graph: OpenVINO's own `Model`.
    """

    def __init__(self, graph: Any) -> None:
        self._graph = graph

    @classmethod
    def convert(cls, module: nn.Module, example: Sequence[Tensor], dtypes: Sequence[torch.dtype]) -> Model:
        """Trace a module.

        Args:
            module: In float32 on the CPU, in evaluation mode.
            example: Arguments in float32, with the sizes at which it is traced.
            dtypes: Of the arguments, and after them of the results, as `CompiledModel` is to take and give them.
        """
        openvino = load_openvino()
        with torch.no_grad(), warnings.catch_warnings():
            # OpenVINO knows torch.jit best. A trace keeps what a branch was at these sizes, which are those that count.
            warnings.filterwarnings("ignore", message=".*torch.jit", category=DeprecationWarning)
            warnings.simplefilter("ignore", category=TracerWarning)
            graph = openvino.convert_model(module.eval(), example_input=tuple(example))
        graph.reshape({i: list(argument.shape) for i, argument in enumerate(example)})
        edges = openvino.preprocess.PrePostProcessor(graph)
        for i in range(len(graph.inputs)):
            edges.input(i).tensor().set_element_type(_element(dtypes[i]))
        for i in range(len(graph.outputs)):
            edges.output(i).tensor().set_element_type(_element(dtypes[len(graph.inputs) + i]))
        return cls(edges.build())

    @classmethod
    def read(cls, path: Path) -> Model:
        """A model from the file that `write` made; raises RuntimeError if it cannot be read."""
        return cls(_core().read_model(path))

    def write(self, path: Path) -> None:
        """Write the graph to ``path`` (.xml) and its weights beside it (.bin), in full precision."""
        load_openvino().save_model(self._graph, path, compress_to_fp16=False)

    def compile(
        self, compute: str, shapes: Mapping[int, Sequence[int]] | None = None, *, callers: int = 1
    ) -> CompiledModel:
        """Compile for this CPU.

        Args:
            compute: "bf16" or "f32".
            shapes: Of arguments by number, where they differ from those at which the module was traced; -1 for a length
                that may differ from call to call.
            callers: Number of threads that call it at the same time, and share torch's number of threads.
        """
        graph = self._graph
        if shapes:
            graph = graph.clone()
            openvino = load_openvino()
            graph.reshape({number: openvino.PartialShape(list(shape)) for number, shape in shapes.items()})
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": max(1, torch.get_num_threads() // callers),
            "INFERENCE_PRECISION_HINT": compute,
            # Pinned threads wait for a core that somebody else has, while another one is free.
            "ENABLE_CPU_PINNING": False,
        }
        return CompiledModel([_core().compile_model(graph, "CPU", options) for _ in range(callers)])


class CompiledModel:
    """A function of torch tensors. Results whose size differs from call to call have that of the first argument.

    Args:
        copies: The same model of OpenVINO's as often as threads call this at the same time; further threads wait.
    """

    def __init__(self, copies: Sequence[Any]) -> None:
        self._idle = [copy.create_infer_request() for copy in copies]
        self._changed = threading.Condition()
        self._last = threading.local()
        first = copies[0]
        self._outputs = [
            (None if port.partial_shape.is_dynamic else list(port.shape), _dtype(port.element_type))
            for port in first.outputs
        ]
        self._dtypes = [_dtype(port.element_type) for port in first.inputs]

    def __call__(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        """Results in tensors of the caller's own.

        Args:
            arguments: Of the sizes that the model was compiled for; another dtype is converted.
        """
        request = self._take()
        try:
            return self._infer(request, arguments)
        finally:
            self._put(request)

    def _take(self) -> Any:
        """A copy that is idle: if possible the one that this thread used last, which is in its core's cache."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._idle) > 0)
            last = getattr(self._last, "request", None)
            request = last if last in self._idle else self._idle[0]
            self._idle.remove(request)
        self._last.request = request
        return request

    def _put(self, request: Any) -> None:
        with self._changed:
            self._idle.append(request)
            self._changed.notify()

    def prepare(self, *arguments: Tensor) -> None:
        """Have every copy generate its code for arguments of these sizes, which it otherwise does when first called."""
        with self._changed:
            requests, self._idle = self._idle, []
        try:
            with ThreadPoolExecutor(len(requests)) as pool:
                for _ in pool.map(lambda request: self._infer(request, arguments), requests):
                    pass
        finally:
            for request in requests:
                self._put(request)

    def _infer(self, request: Any, arguments: Sequence[Tensor]) -> tuple[Tensor, ...]:
        held = []
        for i, (argument, dtype) in enumerate(zip(arguments, self._dtypes, strict=True)):
            held.append(argument.detach().to(dtype).contiguous())
            request.set_input_tensor(i, _shared(held[i]))
        results = tuple(torch.empty(shape or arguments[0].shape, dtype=dtype) for shape, dtype in self._outputs)
        for i, result in enumerate(results):
            request.set_output_tensor(i, _shared(result))
        request.infer()
        return results


@functools.cache
def load_openvino() -> Any:
    """The package openvino, kept from reporting its use.

    Each import and each conversion would be told to its makers over the network, if the package openvino_telemetry can
    be imported. A server must not do that, so it can't be.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    return importlib.import_module("openvino")


@functools.cache
def _core() -> Any:
    return load_openvino().Core()


def _shared(tensor: Tensor) -> Any:
    """OpenVINO's view of a contiguous tensor's memory."""
    openvino = load_openvino()
    if tensor.dtype == torch.bfloat16:  # NumPy has no such numbers
        return openvino.Tensor(tensor.view(torch.int16).numpy(), list(tensor.shape), openvino.Type.bf16)
    return openvino.Tensor(tensor.numpy(), shared_memory=True)


def _element(dtype: torch.dtype) -> Any:
    types = load_openvino().Type
    return {torch.bfloat16: types.bf16, torch.float32: types.f32, torch.uint8: types.u8}[dtype]


def _dtype(element: Any) -> torch.dtype:
    return {"bf16": torch.bfloat16, "f32": torch.float32, "u8": torch.uint8}[element.to_string()]
