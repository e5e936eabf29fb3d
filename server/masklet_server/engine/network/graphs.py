"""CUDA graphs: a function of tensors recorded once for each shape of its arguments, and from then on replayed.

A step is some two thousand small kernels, which a GPU finishes sooner than Python can launch them. A recording launches
them all at once. On other devices, for shapes seen too seldom, and beyond a bounded number of recordings, the function
itself runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Function = Callable[..., tuple[Tensor, ...]]
Capture = Callable[[Function, Sequence[Tensor]], Function]

# A recording keeps its own memory for everything that the function computes on the way.
MAX_GRAPHS = 24
# Recording takes as long as some runs: only what comes again and again is worth it.
RUNS_BEFORE = 3


class GraphCache:
    """A function of tensors, replayed where it was recorded for such arguments.

    Args:
        function: Takes and returns tensors, waits for nothing, and reads no other tensor that changes.
        capture: Records the function for arguments of these shapes.
        limit: Recordings at most.
    """

    def __init__(self, function: Function, capture: Capture | None = None, *, limit: int = MAX_GRAPHS) -> None:
        self._function = function
        self._capture = capture or capture_cuda
        self._limit = limit
        self._graphs: dict[object, Function] = {}
        self._seen: Counter[object] = Counter()

    def __call__(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        """What the function returns, in tensors of the caller's own."""
        key = tuple((argument.shape, argument.dtype) for argument in arguments)
        if (graph := self._graphs.get(key)) is not None:
            return graph(*arguments)
        if len(self._graphs) >= self._limit:
            return self._function(*arguments)
        self._seen[key] += 1
        if self._seen[key] > RUNS_BEFORE:
            self._graphs[key] = self._capture(self._function, arguments)
            del self._seen[key]
        return self._function(*arguments)


def capture_cuda(function: Function, arguments: Sequence[Tensor]) -> Function:
    """Record the function on the arguments' device."""
    inputs = [argument.clone() for argument in arguments]
    # What libraries set up on first use must not be recorded; PyTorch's manual wants that on a stream of its own.
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            function(*inputs)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = function(*inputs)

    def replay(*arguments: Tensor) -> tuple[Tensor, ...]:
        for place, argument in zip(inputs, arguments, strict=True):
            place.copy_(argument)
        graph.replay()
        return tuple(output.clone() for output in outputs)

    return replay
