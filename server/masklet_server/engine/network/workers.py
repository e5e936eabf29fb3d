"""Threads that compute independent parts of a batch beside the engine's own thread.

A small network on two cores is faster if each core computes something else than if both share every layer, because
then no core waits for the other one some hundred times a frame.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Any, Generic, TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


class Task(Generic[R]):
    """Something that is computed once, by whichever thread comes first.

    Args:
        function: Computes it.
    """

    def __init__(self, function: Callable[[], R]) -> None:
        self._function: Callable[[], R] | None = function
        self._claim = threading.Lock()
        self._future: Future[R] = Future()

    def run(self) -> None:
        """Compute it, unless another thread does or did."""
        if not self._claim.acquire(blocking=False):
            return
        function, self._function = self._function, None  # it may refer to much memory
        assert function is not None
        try:
            self._future.set_result(function())
        except BaseException as error:  # noqa: BLE001 - whoever asks for the result gets it
            self._future.set_exception(error)

    def result(self) -> R:
        """What was computed; computed now if no thread has begun. Raises what the function raised."""
        self.run()
        return self._future.result()


class Workers:
    """Threads that share work with the thread that gives it.

    The threads begin when there is work for them.

    Args:
        threads: Number of threads that compute at the same time, the one that gives work included.

    Attributes:
        threads: As above.
    """

    def __init__(self, threads: int = 1) -> None:
        self.threads = threads
        self._now: deque[Task[Any]] = deque()
        self._later: deque[Task[Any]] = deque()
        self._changed = threading.Condition()
        self._helpers: list[threading.Thread] = []
        self._closed = False

    def each(self, function: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """The function's results for all items, in order; the calling thread computes, too.

        Raises:
            Exception: What the function raised for the first item for which it did. All items are computed before.
        """
        tasks = [Task(lambda item=item: function(item)) for item in items]  # type: ignore[misc]
        if len(tasks) > 1:
            self._give(self._now, tasks[1:])
        for task in tasks:
            task.run()
        failures = [error for task in tasks if (error := _failure(task)) is not None]
        if failures:
            raise failures[0]
        return [task.result() for task in tasks]

    def later(self, function: Callable[[], R]) -> Task[R]:
        """Something to be computed by a thread that has nothing else to do, or when its result is asked for."""
        task = Task(function)
        self._give(self._later, [task])
        return task

    def single_threaded(self) -> AbstractContextManager[None]:
        """Torch's functions use the calling thread alone inside the block, if there are other threads here."""
        return one_thread() if self.threads > 1 else contextlib.nullcontext()

    def close(self) -> None:
        """End the threads once they are done with what they have begun. What waits is computed when it is asked for."""
        with self._changed:
            self._closed = True
            self._now.clear()
            self._later.clear()
            self._changed.notify_all()
        for helper in self._helpers:
            helper.join()

    def _give(self, queue: deque[Task[Any]], tasks: Sequence[Task[Any]]) -> None:
        if self.threads == 1:
            return
        with self._changed:
            if self._closed:
                return
            queue.extend(tasks)
            self._changed.notify(len(tasks))
            if not self._helpers:
                self._helpers = [
                    threading.Thread(target=self._help, name=f"masklet-engine-{number}", daemon=True)
                    for number in range(1, self.threads)
                ]
                for helper in self._helpers:
                    helper.start()

    def _help(self) -> None:
        torch.set_flush_denormal(True)  # as on the engine's own thread
        torch.set_num_threads(1)  # for this thread only: every other thread that computes has its own number
        with torch.inference_mode():
            while (task := self._next()) is not None:
                task.run()
                del task  # its result may be large

    def _next(self) -> Task[Any] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._now or self._later or self._closed)
            if self._closed:
                return None
            return self._now.popleft() if self._now else self._later.popleft()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Torch's functions use the calling thread alone inside the block."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _failure(task: Task[Any]) -> BaseException | None:
    try:
        task.result()
    except BaseException as error:  # noqa: BLE001 - raised by the caller
        return error
    return None
