"""masklet in CVAT (https://docs.cvat.ai): functions for an agent of CVAT.

    FUNCTION="--function-module masklet.integrations.cvat -p server=str:127.0.0.1:50051"
    cvat-cli --server-host https://app.cvat.ai function create-native masklet $FUNCTION
    cvat-cli --server-host https://app.cvat.ai function run-agent FUNCTION_ID $FUNCTION

The agent runs where you want it to, with pictures that CVAT sends it. Without ``server`` it is the server that
``MASKLET_SERVER`` names, or one inside the agent. ``-p kind=str:interactor`` makes the other function: masks from
clicks and a box. Needs ``pip install 'masklet[cvat]'``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from masklet import Client
from masklet.errors import InvalidArgument, NotFound
from masklet.integrations import library
from masklet.integrations.stepwise import Picture, SharedSession, SharedSessions

if TYPE_CHECKING:
    import PIL.Image
    from cvat_sdk import auto_annotation as cvataa

Kind = Literal["tracker", "interactor"]
SHAPES = frozenset({"mask", "rectangle"})
"""The shapes of CVAT that can be tracked."""


def create(
    server: str = "", kind: str = "tracker", model: str = "", token_file: str = "", idle_seconds: float = 600.0
) -> Tracker | Interactor:
    """Make a function for CVAT's agent; it calls this with the values of ``-p NAME=TYPE:VALUE``.

    Args:
        server: Address of a masklet server; empty: that of MASKLET_SERVER, or one that starts inside this process.
        kind: "tracker": tracks masks and rectangles through the frames; "interactor": makes masks from clicks.
        model: A model's name, such as "sam2.1-tiny"; empty: the server's default.
        token_file: A file with the server's token; empty: the token in MASKLET_TOKEN, if any.
        idle_seconds: After so long without a request for a picture's objects, their session on the server ends. The
            next request begins another one, from the last masks.

    Raises:
        InvalidArgument: `kind` is wrong.
        Unavailable: cvat-sdk is not installed, or there is no server.
        MaskletError: The server cannot be started, or does not have the model.
    """
    sdk = library("cvat_sdk.auto_annotation", "cvat-sdk", "cvat")
    if kind not in ("tracker", "interactor"):
        raise InvalidArgument.of("kind", f"is {kind!r}, must be tracker or interactor")
    if idle_seconds <= 0:
        raise InvalidArgument.of("idle_seconds", f"is {idle_seconds:g}, must be above 0")
    client, name = _connected(server, model, token_file)
    if kind == "interactor":
        return Interactor(client, name, sdk)
    return Tracker(client, name, sdk, idle_seconds)


class Tracker:
    """A tracking function of CVAT.

    Objects that are shown on one picture are tracked in one session on the server. So a picture is sent and encoded
    once, however many objects there are.

    Args:
        client: The connection to the server.
        model: A model's name; empty: the server's default.
        sdk: The module ``cvat_sdk.auto_annotation``.
        idle_seconds: As for `create`.
    """

    def __init__(self, client: Client, model: str, sdk: Any, idle_seconds: float) -> None:
        self._sessions = SharedSessions(client, model, idle_seconds=idle_seconds)
        self._sdk = sdk
        self._spec = sdk.TrackingFunctionSpec(supported_shape_types=SHAPES)

    @property
    def spec(self) -> cvataa.TrackingFunctionSpec:
        """What CVAT asks of a function: the shapes that it tracks."""
        return self._spec

    def preprocess_image(self, context: object, image: PIL.Image.Image) -> Picture:
        """Take a picture; CVAT's worker calls this once for each request."""
        del context
        return Picture(image)

    def init_tracking_state(self, context: object, pp_image: Picture, shape: cvataa.TrackableShape) -> State:
        """Begin to track a shape of a picture.

        Raises:
            InvalidArgument: The shape is not one that can be tracked.
        """
        del context
        session = pp_image.session = self._sessions.of(pp_image)
        if shape.type == "mask":
            mask = library("cvat_sdk.masks", "cvat-sdk", "cvat").decode_mask(
                shape.points, image_width=pp_image.width, image_height=pp_image.height
            )
            return State(session, session.add({"mask": mask}))
        if shape.type == "rectangle":
            return State(session, session.add({"box": _ordered(shape.points)}))
        raise InvalidArgument.of("shape", f"is a {shape.type}, must be one of {', '.join(sorted(SHAPES))}")

    def track(self, context: object, pp_image: Picture, state: State) -> cvataa.TrackableShape | None:
        """Find a shape on another picture; None where it is not to be seen.

        Raises:
            MaskletError: The server cannot be reached, or reports an error.
        """
        found = state.session.result(pp_image, state.object_id)
        if found is None or not found.visible or found.box is None:
            return None
        if context.original_shape_type == "rectangle":  # type: ignore[attr-defined]
            points: list[float] = [float(side) for side in found.box]
            return self._sdk.TrackableShape(type="rectangle", points=points)
        points = library("cvat_sdk.masks", "cvat-sdk", "cvat").encode_mask(found.mask)
        return self._sdk.TrackableShape(type="mask", points=points)

    def close(self) -> None:
        """End all sessions on the server; the next request of a state begins another one."""
        self._sessions.close()


class State:
    """What CVAT keeps of a tracked shape.

    Args:
        session: Tracks all shapes of the first picture.
        object_id: The shape's number there.
    """

    def __init__(self, session: SharedSession, object_id: int) -> None:
        self.session = session
        self.object_id = object_id


class Interactor:
    """An interaction function of CVAT: masks from clicks and a box.

    Args:
        client: The connection to the server.
        model: A model's name; empty: the server's default.
        sdk: The module ``cvat_sdk.auto_annotation``.
    """

    def __init__(self, client: Client, model: str, sdk: Any) -> None:
        self._client, self._model, self._sdk = client, model, sdk
        self._spec = sdk.InteractionFunctionSpec(min_pos_points=0, min_neg_points=0, min_bounding_boxes=0)

    @property
    def spec(self) -> cvataa.InteractionFunctionSpec:
        """What CVAT asks of a function: clicks of both kinds, and a box, none of which is required."""
        return self._spec

    def preprocess_image(self, context: object, image: PIL.Image.Image) -> Picture:
        """Take a picture; CVAT's worker keeps it for later clicks."""
        del context
        return Picture(image)

    def detect(
        self, context: object, pp_image: Picture, prompts: cvataa.InteractionPrompts
    ) -> list[cvataa.InteractionResultShape]:
        """The mask that the clicks and the box show, with the model's own estimate of its quality.

        Returns:
            One mask; none if there is neither a click on the object nor a box, or if the mask is empty.

        Raises:
            MaskletError: The server cannot be reached, or reports an error.
        """
        del context
        if not prompts.pos_points and prompts.bounding_box is None:
            return []
        given: dict[str, Any] = {"model": self._model, "return_logits": False}
        coords = [*prompts.pos_points, *prompts.neg_points]
        if coords:
            given["point_coords"] = coords
            given["point_labels"] = [1] * len(prompts.pos_points) + [0] * len(prompts.neg_points)
        if prompts.bounding_box is not None:
            given["box"] = _ordered([side for corner in prompts.bounding_box for side in corner])
        # One click may mean a part or the whole: then the best of three. More say enough.
        given["multimask_output"] = len(coords) == 1 and prompts.bounding_box is None
        found = self._segment(pp_image, given)
        mask = found.masks[0]
        if not mask.any():
            return []
        confidence = library("cvat_sdk.models", "cvat-sdk", "cvat").AttributeValRequest(
            spec_id=int(self._sdk.InteractionResultAttributes.CONFIDENCE),
            value=f"{min(1.0, max(0.0, float(found.scores[0]))):.4f}",
        )
        points = library("cvat_sdk.masks", "cvat-sdk", "cvat").encode_mask(mask)
        return [self._sdk.InteractionResultShape(type="mask", points=points, attributes=[confidence])]

    def _segment(self, picture: Picture, given: dict[str, Any]) -> Any:
        """Segment the picture; from the second time on without sending it, unless the server has forgotten it."""
        found = None
        if picture.segmentation is not None:
            try:
                found = self._client.segment(picture.segmentation, **given)
            except NotFound:
                picture.segmentation = None
        if found is None:
            found = self._client.segment(picture.image, **given)
        picture.segmentation = found.image_id
        return found


def _connected(server: str, model: str, token_file: str) -> tuple[Client, str]:
    from masklet.compat._models.names import ModelChoice
    from masklet.compat._models.server import ADDRESS_VARIABLE, TOKEN_VARIABLE, connect

    token = os.environ.get(TOKEN_VARIABLE) or None
    if token_file:
        token = Path(token_file).expanduser().read_text(encoding="utf-8").strip()
    address = server or os.environ.get(ADDRESS_VARIABLE, "")
    if not address:
        return connect(ModelChoice(model or "nano", model or "nano"))
    client = Client(address, token=token)
    if model and not any(known.loaded and known.answers_to(model) for known in client.info().models):
        raise NotFound(f"the server at {address} has not loaded the model {model!r}")
    return client, model


def _ordered(points: Sequence[float]) -> list[float]:
    """The corners of a rectangle as x0, y0, x1, y1, whichever was drawn first."""
    x0, y0, x1, y1 = points
    return [min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)]
