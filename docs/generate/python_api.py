"""The page of the Python library, from the docstrings of `masklet` and `masklet.compat`."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, is_typeddict

import masklet
import masklet.batch
import masklet.compat
import masklet.compat.transformers
from docs.generate.markdown import anchor, page, table
from masklet.errors import MaskletError

INTRODUCTION = """
Everything here is imported from `masklet`, or from the module that the heading names. Functions that draw are
in `masklet.drawing`, too, and functions for run-lengths in `masklet.rle`. `masklet.export`, `masklet.importing` and
`masklet.batch` are modules of their own. Shapes and dtypes are
written as `bool[H, W]`: H rows, W columns. Coordinates are pixels of the picture as shown, x to the right, y down.
"""

_SECTIONS = (
    "Clients",
    "Running calls",
    "Options",
    "Prompts and results",
    "Drawing and run-lengths",
    "Export and import",
    "Batches",
    "Types",
    "Errors",
    "masklet.compat",
    "masklet.compat.transformers",
)
_MEMBERS_OF_EXCEPTIONS = {"with_traceback", "add_note", "args"}
_SECTION = re.compile(r"^(Args|Attributes|Returns|Yields|Raises):$")
_ITEM = re.compile(r"^ {4}(\*{0,2}\w[\w, ]*): (.*)$")


def public_names() -> dict[str, list[tuple[str, Any]]]:
    """Everything public by section: pairs of name and object."""
    found: dict[str, list[tuple[str, Any]]] = {section: [] for section in _SECTIONS}
    for name in masklet.__all__:
        value = getattr(masklet, name)
        if not name.startswith("__") and not inspect.ismodule(value):
            found[_section_of(name, value)].append((name, value))
    for names in found.values():
        names.sort(key=lambda item: (item[0].removeprefix("Async"), item[0].startswith("Async")))
    for module in (masklet.drawing, masklet.rle):
        shown = [value for _, value in found["Drawing and run-lengths"]]
        for name, value in vars(module).items():
            homes = (module.__name__, "masklet.colours")  # drawing has the colours' names, too
            is_own = inspect.isfunction(value) and value.__module__ in homes and not name.startswith("_")
            if is_own and value not in shown:
                found["Drawing and run-lengths"].append((f"{module.__name__.partition('.')[2]}.{name}", value))
    exporting = [("ExportOptions", masklet.export.ExportOptions), ("ExportFormat", masklet.export.ExportFormat)]
    found["Export and import"] = [(f"export.{name}", value) for name, value in exporting]
    found["Export and import"][:0] = [("export.write", masklet.export.write)]
    found["Export and import"].append(("importing.read", masklet.importing.read))
    batches = [name for name in masklet.batch.__all__ if name not in masklet.__all__]
    found["Batches"] = [(f"batch.{name}", getattr(masklet.batch, name)) for name in batches]
    for module in (masklet.compat, masklet.compat.transformers):
        found[module.__name__] = [(name, getattr(module, name)) for name in module.__all__]
    return found


def render() -> str:
    """The page."""
    parts = []
    for section, names in public_names().items():
        parts.append(f"## {section}")
        if section == "Errors":
            parts.append(_error_tree())
        parts += ["\n\n".join(part for part in _entry(name, value) if part) for name, value in names]
    return page("Python library", "the docstrings of the package `masklet`", INTRODUCTION, *parts)


def _section_of(name: str, value: Any) -> str:
    if inspect.isroutine(value) or name == "Rle":
        return "Drawing and run-lengths"
    if not inspect.isclass(value):
        return "Types"
    if name.endswith("Options"):
        return "Options"
    if issubclass(value, MaskletError) or name == "FieldViolation":
        return "Errors"
    if name.endswith("Client") or name == "Batch":
        return "Clients"
    is_call = hasattr(value, "close") or hasattr(value, "cancel")
    return "Running calls" if is_call else "Prompts and results"


def _error_tree() -> str:
    """The tree in the docstring of `masklet.errors`."""
    lines = inspect.getdoc(masklet.errors) or ""
    tree = [line for line in lines.splitlines() if line == "MaskletError" or (line[:1] in "├└│" and line)]
    return "```text\n" + "\n".join(tree) + "\n```"


def _entry(name: str, value: Any) -> Iterator[str]:
    yield f"### {name}"
    if not inspect.isroutine(value) and not inspect.isclass(value):
        definition, docstring = _alias(name.rpartition(".")[2])
        yield f"```python\n{name} = {definition}\n```"
        yield _prose(docstring)
        return
    if not is_typeddict(value) and _section_of(name, value) != "Running calls":  # which the clients make
        yield f"```python\n{_signature(name, value)}\n```"
    yield _docstring(value)
    if inspect.isclass(value):
        for member, function in _members(value):
            yield f"#### {name}.{member}"
            if isinstance(function, (property, functools.cached_property)):
                getter = function.fget if isinstance(function, property) else function.func
                yield f"```python\n{name}.{member}{_returned(getter)}\n```"
                yield _docstring(getter)
            else:
                yield f"```python\n{_signature(member, _bare(function))}\n```"
                yield _docstring(_bare(function))


def _alias(name: str) -> tuple[str, str]:
    """The definition of a type's name in the sources of `masklet`, and the docstring below it."""
    for file in sorted(Path(masklet.__file__).parent.rglob("*.py")):
        body = ast.parse(file.read_text()).body
        for statement, below in zip(body, [*body[1:], None], strict=True):
            if isinstance(statement, ast.Assign):
                target, value = statement.targets[0], statement.value
            elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
                target, value = statement.target, statement.value
            else:
                continue
            if isinstance(target, ast.Name) and target.id == name:
                docstring = below.value if isinstance(below, ast.Expr) else None
                definition = value.value if isinstance(value, ast.Constant) else ast.unparse(value)
                return str(definition), str(docstring.value) if isinstance(docstring, ast.Constant) else ""
    raise LookupError(f"no source defines {name}")


def _members(cls: type) -> Iterator[tuple[str, Any]]:
    """Public methods and properties, inherited ones too, in the order of the source."""
    seen: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if base.__module__.startswith("masklet"):
            seen.update({name: value for name, value in vars(base).items() if not name.startswith("_")})
    fields = {field.name for field in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set()
    for name, value in seen.items():
        is_member = isinstance(value, (property, functools.cached_property, classmethod, staticmethod))
        if (is_member or inspect.isfunction(value)) and name not in fields | _MEMBERS_OF_EXCEPTIONS:
            yield name, value


def _bare(function: Any) -> Any:
    return function.__func__ if isinstance(function, (classmethod, staticmethod)) else function


def _signature(name: str, value: Any) -> str:
    """The signature, on one line or on one line a parameter."""
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return name
    parameters = [p for p in signature.parameters.values() if p.name not in ("self", "cls")]
    written = [_parameter(parameter) for parameter in parameters]
    keyword = next((i for i, p in enumerate(parameters) if p.kind is p.KEYWORD_ONLY), None)
    if keyword is not None and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        written.insert(keyword, "*")
    end = "" if inspect.isclass(value) else _returned(value).replace(":", " ->", 1)
    line = f"{name}({', '.join(written)}){end}"
    if len(line) <= 100:
        return line
    return f"{name}(\n" + "".join(f"    {parameter},\n" for parameter in written) + f"){end}"


def _parameter(parameter: inspect.Parameter) -> str:
    text = str(parameter.replace(annotation=parameter.empty, default=parameter.empty))
    if parameter.annotation is not parameter.empty:
        text += f": {_annotation(parameter.annotation)}"
    return text if parameter.default is parameter.empty else f"{text} = {parameter.default!r}"


def _returned(function: Any) -> str:
    annotation = inspect.signature(function).return_annotation
    return "" if annotation is inspect.Signature.empty else f": {_annotation(annotation)}"


def _annotation(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _docstring(value: Any) -> str:
    """A docstring in Google's style as Markdown: lists become tables, indented code becomes a block."""
    text = _dedented(value.__doc__ or "")
    parts: list[str] = []
    title, lines = "", list[str]()
    for line in [*text.splitlines(), "Returns:"]:
        if (match := _SECTION.match(line)) is None:
            lines.append(line)
            continue
        parts.append(_part(title, lines))
        title, lines = match[1], []
    return "\n\n".join(part for part in parts if part)


def _dedented(docstring: str) -> str:
    """The docstring without its own indentation, which its last line tells; the code in it stays indented."""
    first, _, rest = docstring.partition("\n")
    margin = rest.rpartition("\n")[2]
    rest = "\n".join(line.removeprefix(margin) for line in rest.splitlines())
    return f"{first}\n{rest}".strip()


def _part(title: str, lines: list[str]) -> str:
    if not title:
        return _prose("\n".join(lines))
    items: list[list[str]] = []
    for line in lines:
        if (match := _ITEM.match(line)) is not None:
            items.append([match[1], match[2]])
        elif items:
            items[-1][1] += f" {line.strip()}"
        elif line.strip():
            items.append(["", line.strip()])
    heads = {"Args": "argument", "Attributes": "attribute", "Raises": "raises"}
    if title in heads:
        return table((heads[title], "meaning"), [(f"`{name}`", _inline(text)) for name, text in items])
    return f"{title}: " + _inline(" ".join(f"{name}: {text}" if name else text for name, text in items))


def _prose(text: str) -> str:
    paragraphs = []
    for paragraph in text.strip("\n").split("\n\n"):
        if all(line.startswith("    ") for line in paragraph.splitlines() if line.strip()) and paragraph.strip():
            paragraphs.append(f"```python\n{textwrap.dedent(paragraph)}\n```")
        elif paragraph.startswith(">>> "):
            paragraphs.append(f"```pycon\n{paragraph}\n```")
        else:
            paragraphs.append(_inline(paragraph.strip()))
    return "\n\n".join(paragraphs)


def _inline(text: str) -> str:
    """Names in single or double backticks; names of this page become links."""
    text = text.replace("``", "`")

    def link(match: re.Match[str]) -> str:
        name = match[1]
        owner, _, member = name.partition(".")
        if owner in masklet.__all__ and (not member or hasattr(getattr(masklet, owner), member)):
            is_field = (
                member
                and dataclasses.is_dataclass(value := getattr(masklet, owner))
                and member in {field.name for field in dataclasses.fields(value)}
            )
            return f"[`{name}`](#{anchor(owner if is_field else name)})"
        return match[0]

    return re.sub(r"`([A-Za-z_.]+)`", link, text)
