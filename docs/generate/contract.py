"""The page of the contract, from the descriptors that `buf build` makes of `protos/`."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)

from docs.generate.markdown import anchor, page, table

ROOT = Path(__file__).parents[2]
PACKAGE = "masklet.v1"
# tracking.proto holds the service: it comes first.
_ORDER = ("tracking.proto", "common.proto", "image.proto", "server_info.proto")

INTRODUCTION = """
This is the whole interface of the server, for client authors in any language. The files are in `protos/masklet/v1`;
they change only compatibly within `v1`. A running server also answers reflection, so tools such as grpcurl can list and
call it.
"""

# Numbers of fields in descriptor.proto, of which paths to comments consist.
_MESSAGE, _ENUM, _SERVICE = 4, 5, 6
_FIELD, _VALUE, _METHOD = 2, 2, 2

_TYPES = {
    number: name.removeprefix("TYPE_").lower()
    for name, number in FieldDescriptorProto.Type.items()
    if name not in ("TYPE_MESSAGE", "TYPE_ENUM", "TYPE_GROUP")
}


def descriptors() -> list[FileDescriptorProto]:
    """The files of the contract with their comments.

    Raises:
        CalledProcessError: The files are not valid.
    """
    beside = Path(sys.executable).parent / "buf"
    buf = str(beside) if beside.exists() else shutil.which("buf") or "buf"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "contract.binpb"
        command = [buf, "build", "--as-file-descriptor-set", "-o", str(out)]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        files = FileDescriptorSet.FromString(out.read_bytes()).file
    ours = {Path(file.name).name: file for file in files if file.package == PACKAGE}
    return [ours[name] for name in (*_ORDER, *sorted(ours.keys() - set(_ORDER)))]


def render() -> str:
    """The page."""
    files = descriptors()
    return page("The contract", "`protos/masklet/v1`", INTRODUCTION, *(_File(file).render() for file in files))


class _File:
    """One file: its comments by path, and what is made of it."""

    def __init__(self, file: FileDescriptorProto) -> None:
        self._file = file
        self._comments = {
            tuple(location.path): location.leading_comments for location in file.source_code_info.location
        }

    def render(self) -> str:
        """A section for each service, message and enum."""
        parts = [f"## {Path(self._file.name).name}", _paragraphs(self._comments.get((2,), ""))]
        for index, service in enumerate(self._file.service):
            parts += self._service(service, (_SERVICE, index))
        for index, message in enumerate(self._file.message_type):
            parts += self._message(message, (_MESSAGE, index))
        for index, enum in enumerate(self._file.enum_type):
            parts += self._enum(enum, (_ENUM, index))
        return "\n\n".join(part for part in parts if part)

    def _service(self, service: ServiceDescriptorProto, path: Sequence[int]) -> Iterator[str]:
        yield f"### {service.name}"
        yield self._comment(path)
        for index, method in enumerate(service.method):
            taken = f"{'stream ' * method.client_streaming}{_short(method.input_type)}"
            given = f"{'stream ' * method.server_streaming}{_short(method.output_type)}"
            yield f"#### {service.name}.{method.name}"
            yield f"```protobuf\nrpc {method.name}({taken}) returns ({given})\n```"
            yield self._comment((*path, _METHOD, index))

    def _message(self, message: DescriptorProto, path: Sequence[int]) -> Iterator[str]:
        yield f"### {message.name}"
        yield self._comment(path)
        rows = [
            (f"`{field.name}`", _type(field, message), self._comment((*path, _FIELD, index)))
            for index, field in enumerate(message.field)
        ]
        yield table(("field", "type", "meaning"), rows) if rows else "No fields."

    def _enum(self, enum: EnumDescriptorProto, path: Sequence[int]) -> Iterator[str]:
        yield f"### {enum.name}"
        yield self._comment(path)
        rows = [(f"`{value.name}`", self._comment((*path, _VALUE, index))) for index, value in enumerate(enum.value)]
        yield table(("value", "meaning"), rows)

    def _comment(self, path: Sequence[int]) -> str:
        return _paragraphs(self._comments.get(tuple(path), ""))


def _paragraphs(comment: str) -> str:
    """The comment as Markdown. Lines that are indented further than others are code."""
    parts = []
    for is_code, group in itertools.groupby(comment.strip("\n").splitlines(), _is_code):
        lines = list(group)
        if is_code:
            parts.append("```text\n" + textwrap.dedent("\n".join(lines)).rstrip() + "\n```")
        else:
            parts.append("\n".join(line.strip() for line in lines).replace("<", "&lt;"))
    return "\n".join(parts).strip()


def _is_code(line: str) -> bool:
    return line.startswith("     ")


def _short(name: str) -> str:
    return name.rpartition(".")[2]


def _type(field: FieldDescriptorProto, message: DescriptorProto) -> str:
    if entry := next((nested for nested in message.nested_type if field.type_name.endswith(f".{nested.name}")), None):
        key, value = (_TYPES.get(part.type, _short(part.type_name)) for part in entry.field)
        return f"map of {key} to {value}"
    name = _TYPES.get(field.type, "")
    if not name:
        short = _short(field.type_name)
        name = f"[{short}](#{anchor(short)})" if field.type_name.startswith(f".{PACKAGE}.") else field.type_name[1:]
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated {name}"
    if field.proto3_optional:
        return f"optional {name}"
    if field.HasField("oneof_index"):
        return f"{name}, one of `{message.oneof_decl[field.oneof_index].name}`"
    return name
