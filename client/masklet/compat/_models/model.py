"""What `build_sam2` returns: a model that lies on a server."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, TypeVar

from masklet._protocol.server_info import ModelInfo, ServerInfo
from masklet._sync.client import Client
from masklet.compat._models.locate import warn
from masklet.errors import NotFound

if TYPE_CHECKING:
    import torch

_Self = TypeVar("_Self", bound="SAM2Model")


class SAM2Model:
    """A SAM 2 model on a masklet server, in place of sam2's ``SAM2Base``.

    `SAM2ImagePredictor` and `SAM2AutomaticMaskGenerator` take it. Of ``torch.nn.Module`` it has the methods that set a
    model up. They change nothing, because the weights are on the server.

    Args:
        server: A client, or a server's address for `masklet.Client`.
        model: A name from `masklet.Client.info`; empty: the server's default.

    Attributes:
        client: The connection to the server.
        requested_name: `model`.
    """

    # What may be set; setting anything else, as sam2's programs tune the network, is warned of.
    client: Client
    requested_name: str

    def __init__(self, server: Client | str, model: str = "") -> None:
        self.client = Client(server) if isinstance(server, str) else server
        self.requested_name = model
        self._info: ServerInfo | None = None

    @property
    def server_info(self) -> ServerInfo:
        """What the server says of itself; asked for once."""
        if self._info is None:
            self._info = self.client.info()
        return self._info

    @property
    def model_info(self) -> ModelInfo:
        """What the server says of the model.

        Raises:
            NotFound: The server has no such model.
        """
        models = self.server_info.models
        for info in models:
            if info.answers_to(self.requested_name):
                return info
        raise NotFound(
            f"the server has no model {self.requested_name!r}; it has {', '.join(info.name for info in models)}"
        )

    @property
    def name(self) -> str:
        """The model's name on the server."""
        return self.model_info.name

    @property
    def image_size(self) -> int:
        """Side of the square that the model sees, in pixels."""
        return self.model_info.image_size

    @property
    def device(self) -> torch.device:
        """The device of the results: always ``torch.device("cpu")``."""
        from masklet.compat import _torch

        return _torch.CPU

    def to(self: _Self, *args: Any, **kwargs: Any) -> _Self:
        """Return the model itself: it computes on the server's device, in the server's number format."""
        return self

    def cuda(self: _Self, device: Any = None) -> _Self:
        """Return the model itself, as `to` does."""
        return self

    def cpu(self: _Self) -> _Self:
        """Return the model itself, as `to` does."""
        return self

    def float(self: _Self) -> _Self:
        """Return the model itself, as `to` does."""
        return self

    def half(self: _Self) -> _Self:
        """Return the model itself, as `to` does."""
        return self

    def bfloat16(self: _Self) -> _Self:
        """Return the model itself, as `to` does."""
        return self

    def eval(self: _Self) -> _Self:
        """Return the model itself: it is never trained here."""
        return self

    def train(self: _Self, mode: bool = True) -> _Self:
        """Return the model itself with ``mode=False``.

        Raises:
            NotImplementedError: `mode` is true: the weights are on the server.
        """
        if mode:
            raise NotImplementedError(
                "a model on a server cannot be trained here; train with sam2, and serve the result"
            )
        return self

    def requires_grad_(self: _Self, requires_grad: bool = True) -> _Self:
        """Return the model itself with ``requires_grad=False``.

        Raises:
            NotImplementedError: `requires_grad` is true: the weights are on the server.
        """
        return self.train(requires_grad)

    def __setattr__(self, name: str, value: Any) -> None:
        is_known = any(name in inspect.get_annotations(cls) for cls in type(self).__mro__)
        if not name.startswith("_") and not is_known:
            warn(f"{type(self).__name__}.{name} = {value!r} changes nothing: the model is on a masklet server")
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"{type(self).__name__} has no {name!r}: the model is on a masklet server, and masklet.compat has only "
            "what docs/guides/move-from-sam2.md lists"
        )


def find_model(model: SAM2Model | Client | str, name: str = "") -> SAM2Model:
    """The model that a predictor is made of.

    Args:
        model: A model; or a client or an address.
        name: With a client or an address: the model's name there; empty: the server's default.
    """
    return model if isinstance(model, SAM2Model) else SAM2Model(model, name)
