"""CUDA graphs: a function of tensors is recorded once for each shape of its arguments, and replayed from then on.

A step is about two thousand small kernels. A GPU finishes them sooner than Python can launch them one by one; a
recording launches them all at once. The function itself runs for shapes that are rare, and when there are enough
recordings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Function = Callable[..., tuple[Tensor, ...]]
Capture = Callable[[Function, Sequence[Tensor]], Function]

# Each recording has its own memory for all intermediate results.
MAX_GRAPHS = 24
# Recording takes as long as several runs, so only shapes that come often are recorded.
RUNS_BEFORE = 3


class GraphCache:
    """A function of tensors that is replayed if it was recorded for the shapes of its arguments.

    Args:
        function: Takes and returns tensors, does not wait for the device, and reads no other tensor that changes.
        capture: Records the function for the shapes of the given arguments.
        limit: Largest number of recordings.
    """

    def __init__(self, function: Function, capture: Capture | None = None, *, limit: int = MAX_GRAPHS) -> None:
        self._function = function
        self._capture = capture or capture_cuda
        self._limit = limit
        self._graphs: dict[object, Function] = {}
        self._seen: Counter[object] = Counter()

    def __call__(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        """Call the function; the returned tensors belong to the caller."""
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
    """Record the function on the device of its arguments, as a CUDA graph."""
    inputs = [argument.clone() for argument in arguments]
    # Libraries set themselves up on first use, which must not be recorded. PyTorch's manual asks for a separate stream.
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
