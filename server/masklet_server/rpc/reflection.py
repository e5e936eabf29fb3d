"""Reflection: tools such as grpcurl ask the server itself for the contract, and get it with its comments.

grpcio-reflection answers, but only under the name v1alpha, and without comments. The messages of grpc.reflection.v1 are
the same.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from importlib import resources
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

NAMES = ("grpc.reflection.v1.ServerReflection", reflection.SERVICE_NAME)
_V1_FILE = "grpc/reflection/v1/reflection.proto"


class Reflection(reflection_pb2_grpc.ServerReflectionServicer):  # type: ignore[misc]  # it has no types
    """Answers both versions of reflection.

    Args:
        services: Full names of the services that are listed. They must be in Protobuf's default pool.
    """

    def __init__(self, services: Iterable[str]) -> None:
        default = descriptor_pool.Default()
        files: dict[str, FileDescriptorProto] = {}
        for name in (*services, reflection.SERVICE_NAME):
            _collect(default.FindFileContainingSymbol(name), files)
        files[_V1_FILE] = _v1_file()
        pool = descriptor_pool.DescriptorPool()
        for file in files.values():
            pool.AddSerializedFile(file.SerializeToString())
        self._answers = reflection.aio.ReflectionServicer((*services, *NAMES), pool)
        self._commented = _commented_files()

    async def ServerReflectionInfo(  # noqa: N802
        self, requests: AsyncIterator[reflection_pb2.ServerReflectionRequest], context: Any
    ) -> AsyncIterator[reflection_pb2.ServerReflectionResponse]:
        """Answer each request of a tool, in order."""
        async for response in self._answers.ServerReflectionInfo(requests, context):
            if response.HasField("file_descriptor_response"):
                files = response.file_descriptor_response.file_descriptor_proto
                files[:] = [self._commented.get(FileDescriptorProto.FromString(file).name, file) for file in files]
            yield response


def add_reflection(services: Iterable[str], server: grpc.aio.Server) -> None:
    """Let a server answer reflection, as grpc.reflection.v1 and as v1alpha.

    Args:
        services: Full names of the services that are listed, beside those of reflection.
        server: Not yet started.
    """
    servicer = Reflection(services)
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    handlers = {"ServerReflectionInfo": handler}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAMES[0], handlers),))


def _collect(file: FileDescriptor, files: dict[str, FileDescriptorProto]) -> None:
    """Add a file to others, after those that it imports."""
    if file.name in files:
        return
    for imported in file.dependencies:
        _collect(imported, files)
    proto = FileDescriptorProto()
    file.CopyToProto(proto)
    files[file.name] = proto


def _v1_file() -> FileDescriptorProto:
    """The file of grpc.reflection.v1: that of v1alpha under another name."""
    old = reflection_pb2.DESCRIPTOR.package
    proto = FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(proto)
    proto.name, proto.package = _V1_FILE, "grpc.reflection.v1"
    for message in proto.message_type:
        for field in message.field:
            if field.type_name:
                field.type_name = field.type_name.replace(old, proto.package)
    for method in proto.service[0].method:
        method.input_type = method.input_type.replace(old, proto.package)
        method.output_type = method.output_type.replace(old, proto.package)
    return proto


def _commented_files() -> dict[str, bytes]:
    """The files of the contract with their comments, by name."""
    data = resources.files("masklet.v1").joinpath("contract.binpb").read_bytes()
    return {file.name: file.SerializeToString() for file in FileDescriptorSet.FromString(data).file}
