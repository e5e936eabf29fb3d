"""All engines of a server: one for each device, with the same models. Each session is placed on one of them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace

from masklet.errors import InvalidArgument
from masklet_server.engine.network.device import pick_devices
from masklet_server.engine.serving.batch import EngineObserver
from masklet_server.engine.serving.engine import Engine, EngineOptions
from masklet_server.engine.serving.image_predictor import PictureCache
from masklet_server.engine.serving.loaded_model import LoadedModel
from masklet_server.engine.serving.picture_jobs import PictureJob, PictureOutput
from masklet_server.models.registry import ModelSpec


class Engines:
    """One engine for each device.

    A session stays on the device on which it was placed, because its memories are there. A picture goes where its hash
    says, so a request that names it by its `image_id` finds its features.

    Args:
        engines: At least one. All have the same models.

    Attributes:
        models: Facts about each loaded model, by name. `device` lists all devices.
        broken: Done when one of the engines has failed. The server must be started again then.

    Raises:
        InvalidArgument: There is no engine.
    """

    def __init__(self, engines: Sequence[Engine]) -> None:
        if not engines:
            raise InvalidArgument.of("device", "at least one device is needed")
        self._engines = tuple(engines)
        devices = ", ".join(engine.device for engine in engines)
        self.models: Mapping[str, LoadedModel] = {
            name: replace(model, device=devices, device_bytes=sum(one.models[name].device_bytes for one in engines))
            for name, model in engines[0].models.items()
        }
        self.broken: Future[None] = Future()
        self._turns = itertools.count(1)
        self._placed = dict.fromkeys(self._engines, 0)
        for engine in engines:
            engine.broken.add_done_callback(self._on_broken)

    @classmethod
    def load(
        cls, models: Sequence[ModelSpec], options: EngineOptions, *, observer: EngineObserver | None = None
    ) -> Engines:
        """Load the models on each device that the options name; see `pick_devices` and `Engine.load`."""
        devices = pick_devices(options.device)
        return cls([Engine.load(models, replace(options, device=str(one)), observer=observer) for one in devices])

    @property
    def default_model(self) -> str:
        """Name of the model that is used if a client names none."""
        return self._engines[0].default_model

    def place(self) -> Engine:
        """The engine for a new session: the one with the fewest objects. Equals take turns."""
        chosen = min(self._engines, key=lambda engine: (engine.object_count, self._placed[engine]))
        self._placed[chosen] = next(self._turns)
        return chosen

    async def segment(self, job: PictureJob) -> PictureOutput:
        """Segment one picture; see `Engine.segment`."""
        if len(self._engines) == 1:
            return await self._engines[0].segment(job)
        image_id = (
            job.picture if isinstance(job.picture, str) else await asyncio.to_thread(PictureCache.id_of, job.picture)
        )
        return await self._engines[_number_in(image_id) % len(self._engines)].segment(job)

    def bank_bytes(self) -> int:
        """Bytes of all memories that are in use, on all devices; any thread may ask."""
        return sum(engine.bank_bytes() for engine in self._engines)

    def start(self) -> None:
        """Start the threads that run jobs."""
        for engine in self._engines:
            engine.start()

    async def close(self) -> None:
        """Finish the batches under way and refuse all waiting jobs."""
        await asyncio.gather(*(engine.close() for engine in self._engines))

    def _on_broken(self, _: Future[None]) -> None:
        if self.broken.set_running_or_notify_cancel():
            self.broken.set_result(None)


def _number_in(image_id: str) -> int:
    """A number that is spread evenly over pictures. A client may name anything, also what no server has given."""
    try:
        return int(image_id[:8], 16)
    except ValueError:
        return 0
