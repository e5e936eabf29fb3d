"""The registry: each model's name, configuration, checkpoint, and address for downloads."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from masklet.errors import InvalidArgument, NotFound
from masklet_server.models import paths
from masklet_server.models.sizes import Scaling, split_size

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HUB_PREFIX = "hub:"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_HUB_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
_FORMS = (
    "a model is a known name, NAME@SIZE for another size of its input, NAME=CHECKPOINT:CONFIG for your own weights, or "
    "hub:OWNER/REPO on Hugging Face"
)


@dataclass(frozen=True)
class ModelSpec:
    """An entry of the registry: one model.

    Attributes:
        name: The name in requests.
        config: The configuration: a file beside the registry, a path, or a file in the sam2 package; empty for a
            repository of the hub, whose configuration is downloaded with the checkpoint.
        checkpoint: The weights: a file beside the registry (`ships`), a path, or the file name in the cache; empty for
            a repository of the hub.
        description: One line for users.
        image_size: Side of the square that the model sees, in pixels; 0 if only the downloaded configuration tells it.
        url: Address for downloads of the checkpoint, or empty.
        hub: Hugging Face repository with the same file, or empty.
        bytes: Size of the checkpoint, 0 if unknown.
        sha256: Checksum of the checkpoint, empty if unknown.
        ships: The checkpoint is part of masklet.
        edges: How the edges of masks are drawn, if a client does not say: "none" or "guided".
        scaling: How frames of video are made as small: "bicubic", or "area", which is quicker.
        chosen_size: The size in ``NAME@SIZE``; None: the configuration's own.
    """

    name: str
    config: str
    checkpoint: str
    description: str = ""
    image_size: int = 0
    url: str = ""
    hub: str = ""
    bytes: int = 0
    sha256: str = ""
    ships: bool = False
    edges: Literal["none", "guided"] = "none"
    scaling: Scaling = "bicubic"
    chosen_size: int | None = None

    def at(self, size: int | None) -> ModelSpec:
        """The same model and weights at another size, called ``NAME@SIZE``; itself at its own size or for None."""
        if size in (None, self.image_size):
            return self
        return replace(self, name=f"{self.name}@{size}", image_size=size, chosen_size=size)

    @property
    def is_hub_repository(self) -> bool:
        """Whether configuration and checkpoint come from a Hugging Face repository."""
        return not self.checkpoint

    @property
    def is_downloadable(self) -> bool:
        """Whether the weights are downloaded, and neither ship with masklet nor come from a path."""
        return bool(self.url or self.hub)

    def config_path(self) -> Path:
        """Path of the configuration.

        Raises:
            FailedPrecondition: The hub repository has not been downloaded.
            InvalidArgument: The hub repository does not hold exactly one configuration.
        """
        if self.is_hub_repository:
            return paths.file_of_repository(self.hub, self.name, (".yaml", ".yml"))
        return paths.config_file(self.config)

    def checkpoint_path(self) -> Path:
        """Path of the checkpoint, even if it is not downloaded yet.

        Raises:
            FailedPrecondition: The hub repository has not been downloaded.
            InvalidArgument: The hub repository does not hold exactly one checkpoint.
        """
        if self.is_hub_repository:
            return paths.file_of_repository(self.hub, self.name, (".pt", ".pth", ".safetensors"))
        folder = paths.checkpoints_folder() if self.ships else paths.cache_folder()
        return folder / self.checkpoint  # an absolute path replaces the folder


@dataclass(frozen=True)
class Registry:
    """The known models, in the order of ``registry.toml``.

    Attributes:
        specs: Models by name.
    """

    specs: Mapping[str, ModelSpec]

    @classmethod
    def load(cls, path: Path | None = None) -> Registry:
        """Read masklet's own ``registry.toml``, or the one at `path`."""
        with (path or paths.checkpoints_folder() / "registry.toml").open("rb") as file:
            tables = tomllib.load(file)
        return cls({name: ModelSpec(name=name, **table) for name, table in tables.items()})

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all models, in order."""
        return tuple(self.specs)

    def __iter__(self) -> Iterator[ModelSpec]:
        return iter(self.specs.values())

    def __len__(self) -> int:
        return len(self.specs)

    def __contains__(self, name: object) -> bool:
        return name in self.specs

    def get(self, text: str) -> ModelSpec:
        """The model with this name, which may be ``NAME@SIZE``.

        Raises:
            NotFound: There is no such model; the message lists those that exist, similar names first.
            InvalidArgument: The size is not allowed.
        """
        name, size = split_size(text)
        if name in self.specs:
            return self.specs[name].at(size)
        alike = difflib.get_close_matches(name.lower(), self.names, n=3)
        hint = f"did you mean {' or '.join(alike)}? " if alike else ""
        raise NotFound(f"there is no model {name!r}; {hint}known models: {', '.join(self.names)}")

    def find(self, name: str) -> ModelSpec | None:
        """As `get`; None if there is no such model, such as one with weights of the operator's own."""
        try:
            return self.get(name)
        except (InvalidArgument, NotFound):
            return None

    def resolve(self, text: str) -> ModelSpec:
        """The model that a command line or a setting asks for.

        Args:
            text: A known name; ``NAME=CHECKPOINT:CONFIG`` for fine-tuned weights, where CONFIG is a path, one of sam2's
                configurations (``configs/sam2.1/sam2.1_hiera_t.yaml``), or the name of a known model with the same
                configuration; or ``[NAME=]hub:OWNER/REPO``. After a name, or after a repository that is given without
                one, ``@SIZE`` chooses another side of the square that the model sees.

        Raises:
            InvalidArgument: `text` has none of these forms, or the size is not allowed.
            NotFound: No model has this name, or one of the paths has no file.
        """
        named, equals, source = text.partition("=")
        name, size = split_size(named)
        return self._resolve(name, equals, source).at(size)

    def _resolve(self, name: str, equals: str, source: str) -> ModelSpec:
        if not equals and name.startswith(HUB_PREFIX):
            source = name
        elif not equals:
            return self.get(name)
        elif not _NAME.fullmatch(name):
            raise InvalidArgument.of(
                "model", f"has the name {name!r}; a name has letters, digits, '.', '_' and '-' only"
            )
        elif name in self.specs:
            raise InvalidArgument.of(
                "model", f"has the name {name!r} of a known model; give your own model another name"
            )
        if source.startswith(HUB_PREFIX):
            return self._from_hub(name, source.removeprefix(HUB_PREFIX))
        return self._from_files(name, source)

    def extended(self, *specs: ModelSpec) -> Registry:
        """A registry with further models, which replace models of the same name."""
        return Registry({**self.specs, **{spec.name: spec for spec in specs}})

    def _from_hub(self, name: str, repository: str) -> ModelSpec:
        if not _HUB_REPOSITORY.fullmatch(repository):
            raise InvalidArgument.of(
                "model", f"is {repository!r}, which is no Hugging Face repository OWNER/REPO; {_FORMS}"
            )
        official = next((spec for spec in self if spec.hub == repository), None)
        if official is not None:
            chosen = official.name if name.startswith(HUB_PREFIX) else name
            return replace(official, name=chosen, url="")
        return ModelSpec(name, config="", checkpoint="", description=f"{repository} on Hugging Face", hub=repository)

    def _from_files(self, name: str, source: str) -> ModelSpec:
        checkpoint, colon, config = source.rpartition(":")
        if not (checkpoint and colon and config):
            raise InvalidArgument.of("model", f"is {source!r}, which lacks a checkpoint or a configuration; {_FORMS}")
        weights = Path(checkpoint).expanduser().absolute()
        if not weights.is_file():
            raise NotFound(f"model {name}: there is no checkpoint at {weights}")
        known = self.specs.get(config) or next((spec for spec in self if spec.config == config), None)
        path = paths.config_file(config) if known is None else known.config_path()
        from masklet_server.models.config import read_model_config

        size = int(read_model_config(path)["image_size"])
        like = ModelSpec(name, config, checkpoint) if known is None else known
        return ModelSpec(
            name,
            str(path),
            str(weights),
            description=f"Your own, {weights}",
            image_size=size,
            edges=like.edges,
            scaling=like.scaling,
        )
