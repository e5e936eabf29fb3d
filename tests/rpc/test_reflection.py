"""Reflection, as tools ask for it: both versions, the whole contract, and its comments."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection_pb2

from masklet_server.rpc.server import SERVICE_NAME
from tests.support.rpc import edge

V1, V1ALPHA = "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"


class Tool:
    """Asks a server about itself."""

    def __init__(self, channel: grpc.aio.Channel, version: str) -> None:
        self._ask = channel.stream_stream(
            f"/{version}/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )

    async def ask(self, **fields: str) -> Any:
        call = self._ask()
        await call.write(reflection_pb2.ServerReflectionRequest(**fields))
        await call.done_writing()
        (answer,) = [answer async for answer in call]
        return answer

    async def files(self, symbol: str) -> dict[str, FileDescriptorProto]:
        answer = await self.ask(file_containing_symbol=symbol)
        assert not answer.HasField("error_response"), symbol
        found = [FileDescriptorProto.FromString(data) for data in answer.file_descriptor_response.file_descriptor_proto]
        return {file.name: file for file in found}


@pytest.fixture(params=[V1, V1ALPHA])
async def tool(request: pytest.FixtureRequest) -> AsyncIterator[Tool]:
    async with edge() as running, grpc.aio.insecure_channel(running.server.address) as channel:
        yield Tool(channel, request.param)


def add_all(files: dict[str, FileDescriptorProto], pool: DescriptorPool) -> None:
    """Add files to a pool, each after those that it imports."""
    added: set[str] = set()

    def add(name: str) -> None:
        if name not in added:
            added.add(name)
            for imported in files[name].dependency:
                add(imported)
            pool.AddSerializedFile(files[name].SerializeToString())

    for name in files:
        add(name)


async def services(tool: Tool) -> set[str]:
    answer = await tool.ask(list_services="")
    return {service.name for service in answer.list_services_response.service}


async def test_every_service_that_is_listed_can_be_described(tool: Tool) -> None:
    names = await services(tool)
    assert names == {SERVICE_NAME, "grpc.health.v1.Health", "grpc.channelz.v1.Channelz", V1, V1ALPHA}
    for name in names:
        pool = DescriptorPool()
        add_all(await tool.files(name), pool)
        service = pool.FindServiceByName(name)
        assert service.methods
        for method in service.methods:
            package = name.rpartition(".")[0]
            assert method.input_type.file.package in (package, service.file.package)


async def test_the_contract_comes_with_its_comments(tool: Tool) -> None:
    files = await tool.files(SERVICE_NAME)
    assert {"masklet/v1/tracking.proto", "masklet/v1/common.proto", "google/rpc/status.proto"} < set(files)
    comments = {
        tuple(location.path): location.leading_comments
        for location in files["masklet/v1/tracking.proto"].source_code_info.location
    }
    assert "A whole client" in comments[(2,)]
    assert comments[(6, 0, 2, 0)].startswith(" Tracks objects through one video.")


async def test_symbols_and_files_are_found(tool: Tool) -> None:
    assert "masklet/v1/common.proto" in await tool.files("masklet.v1.Prompt")
    answer = await tool.ask(file_by_filename="masklet/v1/image.proto")
    names = [FileDescriptorProto.FromString(f).name for f in answer.file_descriptor_response.file_descriptor_proto]
    assert "masklet/v1/image.proto" in names


@pytest.mark.parametrize("question", [{"file_containing_symbol": "no.Such"}, {"file_by_filename": "no.proto"}])
async def test_what_is_not_there_is_not_found(tool: Tool, question: dict[str, str]) -> None:
    answer = await tool.ask(**question)
    assert answer.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
