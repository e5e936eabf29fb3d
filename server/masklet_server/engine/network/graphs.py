"""CUDA graphs: a function of tensors is recorded once for each shape of its arguments, and replayed from then on.

A recording that fails costs nothing but its time: the function itself goes on. All recordings of a cache share the
memory for what is between arguments and results, because they run one after the other.

A step is about two thousand small kernels. A GPU finishes them sooner than Python can launch them one by one; a
recording launches them all at once. The function itself runs for shapes that are rare, and when there are enough
recordings.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

Function = Callable[..., tuple[Tensor, ...]]
Capture = Callable[[Function, Sequence[Tensor]], Function]

# Each recording has its own memory for arguments and results.
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
        self._capture = capture or CudaCapture()
        self._limit = limit
        self._graphs: dict[object, Function] = {}
        self._seen: Counter[object] = Counter()
        self._failed: set[object] = set()

    def __call__(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        """Call the function; the returned tensors belong to the caller."""
        key = tuple((argument.shape, argument.dtype) for argument in arguments)
        if (graph := self._graphs.get(key)) is not None:
            return graph(*arguments)
        if len(self._graphs) >= self._limit or key in self._failed:
            return self._function(*arguments)
        self._seen[key] += 1
        if self._seen[key] > RUNS_BEFORE:
            del self._seen[key]
            try:
                self._graphs[key] = self._capture(self._function, arguments)
            except (RuntimeError, MemoryError) as error:
                self._failed.add(key)
                shapes = [list(argument.shape) for argument in arguments]
                logger.warning("a step of the shapes %s cannot be recorded and is run as it is: %s", shapes, error)
        return self._function(*arguments)

    def forget(self) -> None:
        """Give back the memory of all recordings; shapes that come often are recorded again."""
        self._graphs.clear()
        self._seen.clear()
        self._failed.clear()


class InBuckets:
    """A function of tensors whose batches are padded to a few sizes, so that a few recordings serve all of them.

    Padding repeats the last row. The results of a row must not depend on the other rows.

    Args:
        function: Takes and returns tensors whose first dimension is the batch.
        sizes: Of padded batches. Larger batches stay as they are.
    """

    def __init__(self, function: Function, sizes: Sequence[int]) -> None:
        self._function = function
        self._sizes = sorted(sizes)

    def __call__(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        """Call the function, and return the rows that were asked for."""
        count = len(arguments[0])
        size = next((size for size in self._sizes if size >= count), count)
        if size == count:
            return self._function(*arguments)
        repeated = [torch.cat([one, one[-1:].expand(size - count, *one.shape[1:])]) for one in arguments]
        return tuple(result[:count] for result in self._function(*repeated))


class CudaCapture:
    """Records functions as CUDA graphs that share one pool of memory."""

    def __init__(self) -> None:
        self._pool: Any = None  # torch has no public name for its type

    def __call__(self, function: Function, arguments: Sequence[Tensor]) -> Function:
        """Record the function on the device of its arguments."""
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        with torch.cuda.device(arguments[0].device):
            return capture_cuda(function, arguments, self._pool)


def capture_cuda(function: Function, arguments: Sequence[Tensor], pool: Any = None) -> Function:
    """Record the function on the current device, as a CUDA graph.

    Args:
        function: Takes and returns tensors.
        arguments: Of the shapes to record.
        pool: Memory that is shared with other recordings, which never run at the same time. Results are copied at once,
            so one recording may write over what another one has computed.
    """
    inputs = [argument.clone() for argument in arguments]
    # Libraries set themselves up on first use, which must not be recorded. PyTorch's manual asks for a separate stream.
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            function(*inputs)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        outputs = function(*inputs)

    def replay(*arguments: Tensor) -> tuple[Tensor, ...]:
        for place, argument in zip(inputs, arguments, strict=True):
            place.copy_(argument)
        graph.replay()
        return tuple(output.clone() for output in outputs)

    return replay
