"""Answers masklet's methods by passing them on to workers."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import quote

import grpc

from masklet.errors import MaskletError, NotFound, Unavailable
from masklet.v1 import cluster_pb2, image_pb2, server_info_pb2, tracking_pb2
from masklet_cluster.gateway import relay
from masklet_cluster.gateway.options import GatewayOptions
from masklet_cluster.gateway.relay import Calling, Context, Ending, StreamRelay, lost
from masklet_cluster.gateway.whole import whole
from masklet_cluster.placement.placement import Lease, LeaseRequest, Placement
from masklet_server.budgets.message_size import RawMessage
from masklet_server.rpc.admission import current_refusal
from masklet_server.rpc.auth import CLIENT_KEY, IDENTITY_KEY, current_client, current_identity
from masklet_server.rpc.receiving.messages import MessageKind, MessageReader
from masklet_server.rpc.server import GenericService, SessionKeeper
from masklet_server.rpc.usage import current_usage
from masklet_server.session.idle import IdleWatch
from masklet_server.session.resuming.tokens import instance_of

_TRACKING = tracking_pb2.DESCRIPTOR.services_by_name["TrackingService"].full_name
_CLUSTER = cluster_pb2.DESCRIPTOR.services_by_name["ClusterService"].full_name
_TRACK, _SEGMENT_IMAGE = f"/{_TRACKING}/Track", f"/{_TRACKING}/SegmentImage"
# A call is offered to so many workers before the last one's refusal is what the client gets ...
_TRIES = 3
# ... and a picture that one of them has already to so many.
_PICTURE_TRIES = 16
# Of so many pictures a gateway knows which worker has them.
_PICTURES = 10_000

_TRACK_REQUEST = MessageKind(tracking_pb2.TrackRequest.FromString, tracking_pb2.TrackRequest.DESCRIPTOR)
_SEGMENT_REQUEST = MessageKind(image_pb2.SegmentImageRequest.FromString, image_pb2.SegmentImageRequest.DESCRIPTOR)

TryOn = Callable[[Lease], Awaitable["Ending | None"]]


class GatewayService(GenericService, SessionKeeper):
    """masklet.v1.TrackingService by way of workers, and masklet.v1.ClusterService.

    It keeps nothing of a session: the client's token says which worker has it.

    Args:
        placement: Chooses a worker for each call.
        options: What the gateway allows.
    """

    services = (_TRACKING, _CLUSTER)

    def __init__(self, placement: Placement, options: GatewayOptions) -> None:
        self._placement = placement
        self._options = options
        self._reader = MessageReader()
        self._streams: Counter[str] = Counter()
        self._pictures: OrderedDict[str, str] = OrderedDict()  # image_id to the instance_id of who has the picture
        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            _TRACK: grpc.stream_stream_rpc_method_handler(self._track, RawMessage, None),
            _SEGMENT_IMAGE: grpc.unary_unary_rpc_method_handler(self._segment_image, RawMessage, None),
            f"/{_TRACKING}/GetServerInfo": grpc.unary_unary_rpc_method_handler(
                self._get_server_info,
                server_info_pb2.GetServerInfoRequest.FromString,
                server_info_pb2.GetServerInfoResponse.SerializeToString,
            ),
            f"/{_CLUSTER}/Locate": grpc.unary_stream_rpc_method_handler(
                self._locate,
                cluster_pb2.LocateRequest.FromString,
                cluster_pb2.LocateResponse.SerializeToString,
            ),
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The handler of a method; None if there is no such method."""
        return self._handlers.get(handler_call_details.method)

    def close(self) -> None:
        """End the thread that reads messages; call it when no call runs any longer."""
        self._reader.close()

    def announce_stop(self, seconds: float) -> None:
        """Nothing to do: a stream that has not ended in time is ended with UNAVAILABLE, and resumed elsewhere."""

    def replaceable(self, client: str) -> int:
        """Number of the client's streams, of which another call may take the place."""
        return self._streams[client]

    async def end_sessions(self) -> None:
        """Nothing to do: workers have the sessions, and keep them for clients that resume them."""

    # Streams

    async def _track(self, requests: AsyncIterator[RawMessage], context: Context) -> None:
        idle = IdleWatch(self._options.idle_timeout_seconds)
        first = await idle.wait_for_client(anext(requests, None), "the first message, config")
        messages = () if first is None else (first,)

        async def try_on(lease: Lease) -> Ending | None:
            if (failed := await relay.connected(lease)) is not None:
                return failed
            stream = StreamRelay(self._calling(_TRACK, context), lease)
            try:
                answer = await stream.begin(messages)
                if isinstance(answer, Ending):
                    return answer
                ending = await stream.run(answer, requests, context)
            finally:
                stream.close()
            if ending.is_of_the_network:
                lease.doubt()
                raise lost(lease, ending)
            await ending.tell(context)
            return None

        client = current_client.get()
        self._streams[client] += 1
        try:
            await self._offer(await self._first_of(first), try_on, context)
        finally:
            self._streams[client] -= 1
            if not self._streams[client]:
                del self._streams[client]

    async def _offer(self, request: LeaseRequest, try_on: TryOn, context: Context, *, is_picture: bool = False) -> None:
        """Offer a call to workers until one takes it.

        Args:
            request: What is known of the call.
            try_on: Tries one worker. Returns None if the call is over, or how it has ended before it was answered.
            context: The client's call.
            is_picture: The request is about a picture that one of the workers may have.

        Raises:
            Unavailable: There is no worker, or the last one was lost.
        """
        avoid: set[str] = set()
        refusal: tuple[Lease, Ending] | None = None
        for _ in range(_PICTURE_TRIES if is_picture else _TRIES):
            offered = LeaseRequest(request.model, request.instance_id, frozenset(avoid))
            async with contextlib.AsyncExitStack() as stack:
                try:
                    lease = await stack.enter_async_context(self._placement.lease(offered))
                except Unavailable:
                    if refusal is None:
                        raise
                    break  # nobody else: the last refusal counts
                ending = await try_on(lease)
            if ending is None:
                return
            refusal = lease, ending
            avoid.add(lease.name)
            if ending.is_of_the_network:
                lease.doubt()
            if not (ending.may_fit_elsewhere or (is_picture and ending.code is grpc.StatusCode.NOT_FOUND)):
                break
        assert refusal is not None
        if refusal[1].is_of_the_network:
            raise lost(*refusal)
        await refusal[1].tell(context)

    async def _first_of(self, message: RawMessage | None) -> LeaseRequest:
        """What the first message of a stream says of its model and its worker.

        Raises:
            InvalidArgument: The message has too many fields.
            ResourceExhausted: The client has too many streams, and the message does not resume one of them.
        """
        if message is None:
            return _lease_request(None)
        request = await self._reader.read(message.data, _TRACK_REQUEST, current_client.get())
        return _lease_request(request)

    # Pictures

    async def _segment_image(self, message: RawMessage, context: Context) -> bytes:
        wanted = await self._reader.read(message.data, _SEGMENT_REQUEST, current_client.get())
        usage = current_usage.get()
        if usage is not None:
            usage.model = wanted.model[:100]
        answers: list[bytes] = []

        async def try_on(lease: Lease) -> Ending | None:
            answer, initial, ending = await relay.ask(self._calling(_SEGMENT_IMAGE, context), lease, message.data)
            if answer is None:
                return ending
            self._remember(image_pb2.SegmentImageResponse.FromString(answer).image_id, lease)
            await context.send_initial_metadata(initial)
            context.set_trailing_metadata(ending.trailing)
            answers.append(answer)
            return None

        request = LeaseRequest(wanted.model, self._pictures.get(wanted.image_id, ""))
        await self._offer(request, try_on, context, is_picture=bool(wanted.image_id))
        return answers[0]

    def _remember(self, image_id: str, lease: Lease) -> None:
        self._pictures[image_id] = lease.instance_id
        self._pictures.move_to_end(image_id)
        if len(self._pictures) > _PICTURES:
            self._pictures.popitem(last=False)

    # The whole

    async def _get_server_info(
        self, request: server_info_pb2.GetServerInfoRequest, context: Context
    ) -> server_info_pb2.GetServerInfoResponse:
        return whole(self._placement.workers(), tells_addresses=self._options.direct)

    async def _locate(
        self, request: cluster_pb2.LocateRequest, context: Context
    ) -> AsyncIterator[cluster_pb2.LocateResponse]:
        if not self._options.direct:
            raise NotFound("this gateway tells nobody where its workers are (--direct); use its own Track")
        is_lost = asyncio.Event()
        async with self._placement.lease(LeaseRequest(request.model, instance_of(request.resume_token))) as lease:
            forget = lease.lost.call(is_lost.set)
            try:
                yield cluster_pb2.LocateResponse(address=lease.address, instance_id=lease.instance_id)
                await is_lost.wait()
            finally:
                forget()
        raise Unavailable("the worker was lost; ask again, and resume the session", retry_after_seconds=0.1)

    def _calling(self, method: str, context: Context) -> Calling:
        metadata = relay.passed_on(context.invocation_metadata() or ())
        if self._options.worker_token:
            metadata = tuple((key, value) for key, value in metadata if key != "authorization")
            metadata = (*metadata, ("authorization", f"Bearer {self._options.worker_token}"))
        told = ((CLIENT_KEY, quote(current_client.get())), (IDENTITY_KEY, quote(current_identity.get())))
        return Calling(method, (*metadata, *told), context.time_remaining())


def _lease_request(first: tracking_pb2.TrackRequest | None) -> LeaseRequest:
    """What the first message of a stream says of its model and its worker.

    Raises:
        ResourceExhausted: The client has too many streams, and the message does not resume one of them.
    """
    is_resume = first is not None and first.HasField("resume")
    refusal: MaskletError | None = current_refusal.get()
    if refusal is not None and not is_resume:
        raise refusal
    if first is None:
        return LeaseRequest()
    config = first.resume.config if is_resume else first.config
    usage = current_usage.get()
    if usage is not None:
        usage.model = config.model[:100]
    return LeaseRequest(config.model, instance_of(first.resume.token) if is_resume else "")
