"""The engine: one thread that owns the device, a fair queue before it, and futures for those who wait."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

import torch

from masklet.errors import InvalidArgument, NotFound, ResourceExhausted, Unavailable
from masklet_server.engine.memory.bank import MemoryBank
from masklet_server.engine.memory.history import History
from masklet_server.engine.memory.object_memory import ObjectMemory
from masklet_server.engine.memory.policies import MemoryPolicy
from masklet_server.engine.memory.tensor_file import TensorFile
from masklet_server.engine.network.device import device_name, make_network, pick_device
from masklet_server.engine.network.network import Network
from masklet_server.engine.serving.batch import EngineObserver, run_jobs, run_picture
from masklet_server.engine.serving.fair_queue import Entry, FairQueue
from masklet_server.engine.serving.image_predictor import PictureCache
from masklet_server.engine.serving.jobs import FrameOutput, TrackingJob
from masklet_server.engine.serving.loaded_model import LoadedModel
from masklet_server.engine.serving.picture_jobs import PictureJob, PictureOutput
from masklet_server.models.build import build_model
from masklet_server.models.registry import ModelSpec

logger = logging.getLogger(__name__)

# Objects of all jobs in one batch: beyond this a batch gets no more efficient, only later.
MAX_BATCH_OBJECTS = 32
OUT_OF_MEMORY_ADVICE = "use a smaller model, fewer objects or fewer streams at once"

J = TypeVar("J", TrackingJob, PictureJob)
R = TypeVar("R", FrameOutput, PictureOutput)


@dataclass(frozen=True, eq=False)
class _Ticket(Generic[J, R]):
    """A job and where its answer is awaited."""

    job: J
    future: Future[R] = field(default_factory=Future)
    queued_at: float = field(default_factory=time.perf_counter)


_AnyTicket = _Ticket[TrackingJob, FrameOutput] | _Ticket[PictureJob, PictureOutput]


class Engine:
    """SAM 2 models on one device.

    Everything that touches the device runs on one thread; `run` and `segment` may be awaited from any event loop.
    Streams take turns, and jobs of different streams that wait at the same time run as one batch.

    Args:
        networks: By name; the first is the default. All on one device.
        picture_cache_bytes: For the features of pictures that may be asked for again.
        observer: Told of what goes on.

    Attributes:
        broken: Done once the thread has ended by a failure that was no job's; nothing is answered from then on.
    """

    def __init__(
        self,
        networks: Mapping[str, Network],
        *,
        picture_cache_bytes: int = 256 * 1024**2,
        observer: EngineObserver | None = None,
    ) -> None:
        if not networks:
            raise InvalidArgument.of("models", "at least one model is needed")
        self.observer = observer
        self.broken: Future[None] = Future()
        self.default_model = next(iter(networks))
        self.models = {name: _describe(name, network) for name, network in networks.items()}
        self._networks = dict(networks)
        self._pictures = PictureCache(picture_cache_bytes)
        self._queue: FairQueue[_AnyTicket] = FairQueue(MAX_BATCH_OBJECTS)
        # No WeakSet, which can't be listed on one thread while another adds to it.
        self._banks: set[weakref.ref[ObjectMemory]] = set()
        self._why_closed = "the server is shutting down"
        self._thread = threading.Thread(target=self._work, name="masklet-engine", daemon=True)

    @classmethod
    def load(
        cls,
        models: Sequence[ModelSpec],
        *,
        device: str = "auto",
        dtype: str = "auto",
        cuda_graphs: bool = False,
        picture_cache_bytes: int = 256 * 1024**2,
        observer: EngineObserver | None = None,
    ) -> Engine:
        """An engine with these models' weights.

        Raises:
            FailedPrecondition: A checkpoint is missing (the message says which command fetches it), or the device is.
            DataLoss: A checkpoint is corrupt.
            InvalidArgument: No such device or dtype.
            ResourceExhausted: The models do not fit into the device's memory.
        """
        chosen = pick_device(device)
        try:
            networks = {
                spec.name: make_network(build_model(spec), chosen, dtype, graphs=cuda_graphs) for spec in models
            }
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            names = ", ".join(spec.name for spec in models)
            raise ResourceExhausted(
                f"{names} do not fit into the memory of {chosen}; {OUT_OF_MEMORY_ADVICE}"
            ) from error
        return cls(networks, picture_cache_bytes=picture_cache_bytes, observer=observer)

    def start(self) -> None:
        """Begin to work on jobs."""
        self._thread.start()

    async def close(self) -> None:
        """Finish the batch at hand and refuse everything that waits."""
        self._refuse()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)

    def network(self, model: str) -> Network:
        """The network called so.

        Raises:
            NotFound: It is not loaded; the message lists those that are.
        """
        try:
            return self._networks[model]
        except KeyError:
            raise NotFound(f"the model {model!r} is not loaded; this server has {', '.join(self.models)}") from None

    def new_bank(
        self, model: str, *, correction_window: int = 0, memory_policy: MemoryPolicy = MemoryPolicy.SAM2
    ) -> MemoryBank:
        """An empty memory for one object; freed when its last reference goes.

        Raises:
            NotFound: The model is not loaded.
        """
        self.network(model)
        bank = MemoryBank(model, correction_window=correction_window, memory_policy=memory_policy)
        self._banks.add(weakref.ref(bank, self._banks.discard))
        return bank

    def load_bank(self, model: str, data: bytes) -> MemoryBank:
        """A memory that was dumped by `MemoryBank.dump`; freed when its last reference goes.

        Raises:
            NotFound: The model is not loaded.
            InvalidArgument: These are not a bank's bytes, or it belongs to another model.
        """
        bank = MemoryBank.load(data, model=model, device=self.network(model).device)
        self._banks.add(weakref.ref(bank, self._banks.discard))
        return bank

    def new_history(self, model: str, file: TensorFile) -> History:
        """An empty memory for one object that is tracked on request; freed when its last reference goes.

        Raises:
            NotFound: The model is not loaded.
        """
        self.network(model)
        history = History(model, file)
        self._banks.add(weakref.ref(history, self._banks.discard))
        return history

    def bank_bytes(self) -> int:
        """Bytes of all living banks."""
        return sum(bank.nbytes for reference in list(self._banks) if (bank := reference()) is not None)

    async def run(self, job: TrackingJob) -> FrameOutput:
        """Do one operation on objects of one stream; see `masklet_server.engine.serving.jobs`.

        Raises:
            NotFound: The model is not loaded.
            FailedPrecondition: The frame does not follow the last one tracked.
            ResourceExhausted: The device's memory does not suffice; the banks are as before.
            Unavailable: The engine is closing.
        """
        stream = job.stream
        self.network(stream.model)
        ticket: _Ticket[TrackingJob, FrameOutput] = _Ticket(job)
        kind = None if stream.deterministic else ("frame", stream.model)
        self._put(Entry(ticket, stream.id, kind, weight=len(job.memories)))
        return await asyncio.wrap_future(ticket.future)

    async def segment(self, job: PictureJob) -> PictureOutput:
        """Segment one picture.

        Raises:
            NotFound: The model is not loaded, or the picture no longer cached.
            InvalidArgument: A prompt outside the picture.
            ResourceExhausted: The device's memory does not suffice.
            Unavailable: The engine is closing.
        """
        self.network(job.model)
        ticket: _Ticket[PictureJob, PictureOutput] = _Ticket(job)
        self._put(Entry(ticket, job.stream, kind=None))
        return await asyncio.wrap_future(ticket.future)

    async def forget(self, stream: str) -> None:
        """Drop the stream's waiting jobs; one that is running goes on to its end."""
        for ticket in self._queue.drop(lambda entry: entry.stream == stream):
            ticket.future.cancel()

    def _put(self, entry: Entry[_AnyTicket]) -> None:
        try:
            self._queue.put(entry)
        except RuntimeError as error:
            raise Unavailable(self._why_closed) from error

    def _refuse(self, at_hand: Sequence[_AnyTicket] = ()) -> None:
        """Take no more jobs, and refuse those that wait, and those at hand that have no answer yet."""
        unanswered = [ticket for ticket in at_hand if ticket.future.running()]
        waiting = [t for t in self._queue.close() if t.future.set_running_or_notify_cancel()]
        for ticket in (*unanswered, *waiting):
            ticket.future.set_exception(Unavailable(self._why_closed))

    def _work(self) -> None:
        """The thread's life. No name here holds a batch while the next is awaited: it would keep dead banks alive."""
        # CPUs are slow with numbers too small for the normal form, and these count for nothing in a mask. Holds for
        # this thread and those that it starts.
        torch.set_flush_denormal(True)
        while self._run_batch(self._queue.take()):
            pass

    def _run_batch(self, batch: Sequence[_AnyTicket]) -> bool:
        """Answer a batch; False for the empty one that says that the queue is closed."""
        wanted = [ticket for ticket in batch if ticket.future.set_running_or_notify_cancel()]
        try:
            self._answer_batch(wanted)
        except BaseException:
            # No job can do this. Should anything else, nobody is to wait for what will never come.
            self._why_closed = "the engine of this server has broken down; the server must be started anew"
            self._refuse(wanted)
            if self.broken.set_running_or_notify_cancel():
                self.broken.set_result(None)
            raise
        return bool(batch)

    def _answer_batch(self, wanted: Sequence[_AnyTicket]) -> None:
        start = time.perf_counter()
        if self.observer is not None:
            for ticket in wanted:
                self.observer.on_queue(start - ticket.queued_at)
        if tracking := [ticket for ticket in wanted if isinstance(ticket.job, TrackingJob)]:
            self._answer_tracking(tracking, start)
        for ticket in wanted:
            if isinstance(ticket.job, PictureJob):
                self._answer(ticket, lambda job=ticket.job: self._picture(job))  # type: ignore[misc]

    def _answer_tracking(self, tickets: Sequence[_Ticket[TrackingJob, FrameOutput]], start: float) -> None:
        """One batch for all; if that fails, each alone, so that only those at fault get the error."""
        network = self._networks[tickets[0].job.stream.model]

        def run(some: Sequence[_Ticket[TrackingJob, FrameOutput]]) -> list[FrameOutput]:
            outputs = run_jobs(network, [ticket.job for ticket in some], self.observer)
            return [replace(o, queue_seconds=start - t.queued_at) for t, o in zip(some, outputs, strict=True)]

        if len(tickets) > 1:
            try:
                outputs = run(tickets)
            except Exception as error:  # noqa: BLE001 - whatever it was, each job gets its own answer below
                logger.warning("a batch of %d streams failed (%s); running them one by one", len(tickets), error)
                _free_device_memory(error)
            else:
                for ticket, output in zip(tickets, outputs, strict=True):
                    ticket.future.set_result(output)
                return
        for ticket in tickets:
            self._answer(ticket, lambda ticket=ticket: run([ticket])[0])  # type: ignore[misc]

    def _picture(self, job: PictureJob) -> PictureOutput:
        return run_picture(self._networks[job.model], job, self._pictures, self.observer)

    def _answer(self, ticket: _Ticket[J, R], compute: Callable[[], R]) -> None:
        """Run one job; whatever goes wrong is the answer to whoever asked, never the end of this thread."""
        try:
            output = compute()
        except Exception as error:  # noqa: BLE001 - handed to the one who waits
            ticket.future.set_exception(_as_answer(error))
            _free_device_memory(error)
        else:
            ticket.future.set_result(output)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device or the machine had no memory left; torch has no class of its own for the CPU's."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def _as_answer(error: Exception) -> Exception:
    if is_out_of_memory(error):
        answer = ResourceExhausted(f"the device ran out of memory on this request; {OUT_OF_MEMORY_ADVICE}")
        answer.__cause__ = error
        return answer
    return error


def _free_device_memory(error: Exception) -> None:
    """Give back what the failed job held, so that the next one finds room."""
    if is_out_of_memory(error) and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _describe(name: str, network: Network) -> LoadedModel:
    return LoadedModel(
        name=name,
        image_size=network.image_size,
        logits_size=network.logits_size,
        dtype=str(network.dtype).removeprefix("torch."),
        device=str(network.device),
        device_name=device_name(network.device),
        parameter_count=network.parameter_count,
        encode_ahead=network.encode_ahead,
    )
