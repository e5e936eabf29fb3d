"""The engine: loaded models, the memories of objects, and one scheduler that runs jobs on the device."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from masklet.errors import InvalidArgument, ResourceExhausted
from masklet_server.engine.memory.bank import MemoryBank
from masklet_server.engine.memory.history import History
from masklet_server.engine.memory.object_memory import ObjectMemory
from masklet_server.engine.memory.policies import MemoryPolicy
from masklet_server.engine.memory.sizes import MemorySizes
from masklet_server.engine.memory.tensor_file import TensorFile
from masklet_server.engine.network.device import device_bytes, device_name, make_network, pick_device
from masklet_server.engine.network.network import Network
from masklet_server.engine.serving.batch import EngineObserver
from masklet_server.engine.serving.image_predictor import PictureCache
from masklet_server.engine.serving.jobs import FrameOutput, TrackingJob
from masklet_server.engine.serving.loaded_model import LoadedModel, not_loaded
from masklet_server.engine.serving.out_of_memory import OUT_OF_MEMORY_ADVICE, is_out_of_memory
from masklet_server.engine.serving.picture_jobs import PictureJob, PictureOutput
from masklet_server.engine.serving.scheduler import Scheduler
from masklet_server.masks.edges import Edges
from masklet_server.models.build import build_model
from masklet_server.models.registry import ModelSpec
from masklet_server.models.sizes import Scaling

PICTURE_CACHE_BYTES = 256 * 1024**2


@dataclass(frozen=True)
class EngineOptions:
    """Where models compute, and what the engine may hold.

    Attributes:
        device: "auto", "cpu", "cuda" or "cuda:N". `Engines` also takes "all", and several with commas between them.
        dtype: "auto", "float32" or "bfloat16".
        runtime: "auto", "torch" or "openvino": the library that computes on a CPU.
        cuda_graphs: Record the image encoder and the step as CUDA graphs; then `tune` measures nothing.
        tune: On a GPU, measure how models compute fastest there, unless an earlier start has.
        picture_cache_bytes: Largest size of the cache for the features of pictures.
    """

    device: str = "auto"
    dtype: str = "auto"
    runtime: str = "auto"
    cuda_graphs: bool = False
    tune: bool = True
    picture_cache_bytes: int = PICTURE_CACHE_BYTES


class Engine:
    """SAM 2 models on one device.

    Everything that touches the device runs on one thread, or for it; see `Scheduler` and `Workers`. `run` and `segment`
    may be awaited on any event loop.

    Args:
        networks: By name; the first is the default model. All are on one device.
        picture_cache_bytes: Largest size of the cache for the features of pictures.
        edges: How the edges of each model's masks are drawn, if a client does not say; by name, NONE if left out.
        scaling: How frames of video are made as small as each model wants them; by name, "bicubic" if left out.
        observer: Gets numbers and durations of batches.

    Attributes:
        models: Facts about each loaded model, by name.
        default_model: Name of the model that is used if a client names none.

    Raises:
        InvalidArgument: There is no network.
    """

    def __init__(
        self,
        networks: Mapping[str, Network],
        *,
        picture_cache_bytes: int = PICTURE_CACHE_BYTES,
        edges: Mapping[str, Edges] | None = None,
        scaling: Mapping[str, Scaling] | None = None,
        observer: EngineObserver | None = None,
    ) -> None:
        if not networks:
            raise InvalidArgument.of("models", "at least one model is needed")
        self.default_model = next(iter(networks))
        drawn, scaled = edges or {}, scaling or {}
        self.models = {
            name: _describe(name, network, drawn.get(name, Edges.NONE), scaled.get(name, "bicubic"))
            for name, network in networks.items()
        }
        self._networks = dict(networks)
        self._scheduler = Scheduler(self._networks, PictureCache(picture_cache_bytes), observer)
        # Not a WeakSet, which cannot be listed on one thread while another one adds to it.
        self._memories: set[weakref.ref[ObjectMemory]] = set()

    @classmethod
    def load(
        cls,
        models: Sequence[ModelSpec],
        options: EngineOptions,
        *,
        observer: EngineObserver | None = None,
    ) -> Engine:
        """Make an engine with the weights of these models.

        Raises:
            FailedPrecondition: A checkpoint is missing (the message says how to fetch it), or the device is.
            DataLoss: A checkpoint is corrupt.
            InvalidArgument: There is no such device, dtype or runtime.
            ResourceExhausted: The models do not fit into the device's memory.
        """
        device = pick_device(options.device)
        try:
            networks = {
                spec.name: make_network(
                    build_model(spec),
                    device,
                    options.dtype,
                    graphs=options.cuda_graphs,
                    runtime=options.runtime,
                    tune=options.tune,
                )
                for spec in models
            }
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            names = ", ".join(spec.name for spec in models)
            raise ResourceExhausted(
                f"{names} do not fit into the memory of {device}; {OUT_OF_MEMORY_ADVICE}"
            ) from error
        edges = {spec.name: Edges(spec.edges) for spec in models}
        scaling = {spec.name: spec.scaling for spec in models}
        cached = options.picture_cache_bytes
        return cls(networks, picture_cache_bytes=cached, edges=edges, scaling=scaling, observer=observer)

    @property
    def device(self) -> str:
        """Where the models compute, such as "cpu" or "cuda:1"."""
        return self.models[self.default_model].device

    @property
    def object_count(self) -> int:
        """Number of memories that are in use; any thread may ask."""
        return len(self._memories)

    @property
    def broken(self) -> Future[None]:
        """Done when the engine has failed; no job is answered after that."""
        return self._scheduler.broken

    def start(self) -> None:
        """Start the thread that runs jobs."""
        self._scheduler.start()

    async def close(self) -> None:
        """Finish the batch under way and refuse all waiting jobs."""
        await self._scheduler.close()
        for network in self._networks.values():
            network.workers.close()

    def network(self, model: str) -> Network:
        """The network of a loaded model.

        Raises:
            NotFound: The model is not loaded; the message lists those that are.
        """
        if model not in self._networks:
            raise not_loaded(self.models, model)
        return self._networks[model]

    # Memories of objects

    def new_bank(
        self, model: str, *, correction_window: int = 0, memory_policy: MemoryPolicy = MemoryPolicy.SAM2
    ) -> MemoryBank:
        """An empty memory for one object.

        Raises:
            NotFound: The model is not loaded.
        """
        bank = MemoryBank(
            model,
            correction_window=correction_window,
            memory_policy=memory_policy,
            recent_memories=self.network(model).recent_memories,
        )
        self._count(bank)
        return bank

    def load_bank(self, model: str, data: bytes) -> MemoryBank:
        """A memory from the bytes that `MemoryBank.dump` gave.

        Raises:
            NotFound: The model is not loaded.
            InvalidArgument: These are not a bank's bytes, or the bank belongs to another model.
        """
        network = self.network(model)
        bank = MemoryBank.load(data, model=model, device=network.device)
        if bank.recent_memories != network.recent_memories:
            raise InvalidArgument(
                f"this memory bank is of a model {model!r} that attends to {bank.recent_memories} recent memories; the "
                f"model that is loaded attends to {network.recent_memories}; begin the session again"
            )
        self._count(bank)
        return bank

    def new_history(self, model: str, file: TensorFile) -> History:
        """An empty memory for one object that is tracked on request.

        Raises:
            NotFound: The model is not loaded.
        """
        history = History(model, file, self.network(model).recent_memories)
        self._count(history)
        return history

    def bank_bytes(self) -> int:
        """Bytes of all memories that are in use, and of what networks keep of them; any thread may ask."""
        memories = sum(memory.nbytes for reference in list(self._memories) if (memory := reference()) is not None)
        return memories + sum(network.kept_bytes for network in self._networks.values())

    def _count(self, memory: ObjectMemory) -> None:
        """Let `bank_bytes` count the memory for as long as somebody refers to it."""
        self._memories.add(weakref.ref(memory, self._memories.discard))

    # Jobs

    async def run(self, job: TrackingJob) -> FrameOutput:
        """Run one operation on objects of one stream; see `masklet_server.engine.serving.jobs`.

        Raises:
            NotFound: The model is not loaded.
            FailedPrecondition: The frame does not follow the last tracked one, or an object has no prompt.
            InvalidArgument: A prompt is wrong, or a frame can no longer be corrected.
            ResourceExhausted: The device has too little memory, or an object too many conditioning frames.
            Unavailable: The engine is closed or has failed.
        """
        self.network(job.stream.model)
        return await self._scheduler.run(job)

    async def segment(self, job: PictureJob) -> PictureOutput:
        """Segment one picture.

        Raises:
            NotFound: The model is not loaded, or the picture is no longer in the cache.
            InvalidArgument: A prompt lies outside the picture.
            ResourceExhausted: The device has too little memory.
            Unavailable: The engine is closed or has failed.
        """
        self.network(job.model)
        return await self._scheduler.segment(job)

    async def forget(self, stream: str) -> None:
        """Cancel the stream's waiting jobs; a job that is running goes on to its end."""
        self._scheduler.forget(stream)


def _describe(name: str, network: Network, edges: Edges, scaling: Scaling) -> LoadedModel:
    return LoadedModel(
        name=name,
        image_size=network.image_size,
        logits_size=network.logits_size,
        dtype=str(network.dtype).removeprefix("torch."),
        device=str(network.device),
        device_name=device_name(network.device),
        parameter_count=network.parameter_count,
        weights_checksum=network.weights_checksum,
        encode_ahead=network.encode_ahead,
        encodes_meanwhile=network.workers.threads > 1,
        runtime=network.runtime,
        tuning=network.tuning,
        edges=edges,
        scaling=scaling,
        memory=MemorySizes.of(
            network.grid_size,
            network.feature_position.shape[-1],
            network.memory_position.shape[-1],
            network.dtype.itemsize,
            frames=network.encode_ahead,
            recent_memories=network.recent_memories,
        ),
        device_bytes=device_bytes(network.device),
    )
