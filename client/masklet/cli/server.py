"""The server that a command uses: one that runs somewhere, or one that is started inside this process."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

import masklet
from masklet._urls import without_secrets
from masklet.cli import plugins
from masklet.cli.console import err, waiting, warn
from masklet.errors import InvalidArgument

if TYPE_CHECKING:
    from masklet import Client, Edges, MemoryPolicy, ResumeEvent, TrackOptions

DEFAULT_ADDRESS = "127.0.0.1:50051"
CONNECT_SECONDS = 30.0
"""Seconds that commands wait for a server that is starting, as after `masklet serve &`."""
_PANEL = "Server"

ServerOption = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="HOST:PORT",
        help="Address of the server to use. Default: start a server inside this process.",
        rich_help_panel=_PANEL,
    ),
]
RunningServerOption = Annotated[
    str, typer.Option("--server", metavar="HOST:PORT", help="Address of the server.", rich_help_panel=_PANEL)
]
TokenFileOption = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        metavar="FILE",
        help="File with the bearer token, for a server that asks for one.",
        rich_help_panel=_PANEL,
    ),
]
CaOption = Annotated[
    Path | None,
    typer.Option(
        "--ca",
        metavar="FILE",
        help="Certificates (PEM) of the authorities to trust. Default: those of the system.",
        rich_help_panel=_PANEL,
    ),
]
CertOption = Annotated[
    Path | None,
    typer.Option(
        "--cert",
        metavar="FILE",
        help="This client's certificate (PEM), for a server that asks for one. Needs --key.",
        rich_help_panel=_PANEL,
    ),
]
KeyOption = Annotated[
    Path | None,
    typer.Option("--key", metavar="FILE", help="The private key (PEM) of that certificate.", rich_help_panel=_PANEL),
]
InsecureOption = Annotated[
    bool,
    typer.Option("--insecure", help="Connect to a server on another machine without TLS.", rich_help_panel=_PANEL),
]
ResumeOption = Annotated[
    bool,
    typer.Option(
        "--resume/--no-resume",
        help="When the connection to the server is lost, connect again and go on where it was.",
        rich_help_panel=_PANEL,
    ),
]
EdgesOption = Annotated[
    str | None,
    typer.Option(
        metavar="none|guided",
        help="How the edges of masks are drawn. none: as the model gives them. guided: moved to nearby edges of "
        "colour in the picture. Default: guided for nano, none for Meta's models.",
        rich_help_panel=_PANEL,
    ),
]
MEMORY_POLICIES = ("sam2", "distractor-aware", "motion-aware")
MemoryPolicyOption = Annotated[
    str,
    typer.Option(
        metavar="|".join(MEMORY_POLICIES),
        help="What an object's memory keeps. sam2: SAM 2's own rule. distractor-aware: also frames that tell the "
        "object from look-alikes. motion-aware: frames whose masks fit the object's motion.",
        rich_help_panel=_PANEL,
    ),
]
DeterministicOption = Annotated[
    bool,
    typer.Option(
        "--deterministic",
        help="Never share a batch with other clients, so that two runs give the same bits.",
        rich_help_panel=_PANEL,
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help="Model to use; `masklet models list` shows which there are. Default: the server's.",
        rich_help_panel=_PANEL,
    ),
]


@dataclass(frozen=True)
class Access:
    """How to reach a server: the options above.

    Attributes:
        server: Its address; None: one is started inside this process.
        token_file: A file with the bearer token.
        ca: A PEM file with the authorities to trust.
        cert: A PEM file with the client's certificate.
        key: A PEM file with the certificate's private key.
        insecure: True: no TLS.
    """

    server: str | None = None
    token_file: Path | None = None
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    insecure: bool = False

    @contextlib.contextmanager
    def connect(self, model: str | None = None) -> Iterator[Client]:
        """A client of the server, which is started first if no address was given.

        Args:
            model: The model that a server inside this process loads; None: its default.

        Raises:
            MaskletError: The options contradict one another, or the server cannot be started.
            OSError: A file cannot be read.
        """
        with contextlib.ExitStack() as stack:
            address = self.server
            if address is None:
                with waiting(f"starting a server in this process{f' with {model}' if model else ''} ..."):
                    address = stack.enter_context(plugins.embedded_server()(model))
            client = masklet.Client(
                address,
                token=None if self.token_file is None else read_token(self.token_file),
                root_certificates=self.ca,
                client_certificate=self.cert,
                client_key=self.key,
                secure=False if self.insecure else None,
                connect_timeout=CONNECT_SECONDS,
            )
            stack.enter_context(client)
            if client.has_to_wait():
                err().print(
                    f"waiting for a server at {address}, at most {CONNECT_SECONDS:g} s ...",
                    soft_wrap=True,
                    markup=False,
                )
            yield client


def read_token(path: Path) -> str:
    """The first token of a file: each line is TOKEN or NAME TOKEN, or a comment that begins with #.

    Raises:
        InvalidArgument: There is no token in the file.
        OSError: The file cannot be read.
    """
    for line in path.read_text("utf-8").splitlines():
        words = line.split()
        if words and not words[0].startswith("#"):
            return words[-1]
    raise InvalidArgument.of("token_file", f"{path} holds no token")


def checked_edges(name: str | None) -> Edges | None:
    """The value of `EdgesOption`.

    Raises:
        typer.BadParameter: There is no such way to draw edges.
    """
    if name not in (None, "none", "guided"):
        raise typer.BadParameter(f"is {name}, must be none or guided", param_hint="--edges")
    return cast("Edges | None", name)


def checked_memory_policy(name: str) -> MemoryPolicy:
    """The value of `MemoryPolicyOption`.

    Raises:
        typer.BadParameter: There is no such rule.
    """
    if name not in MEMORY_POLICIES:
        raise typer.BadParameter(
            f"is {name}, must be one of {', '.join(MEMORY_POLICIES)}", param_hint="--memory-policy"
        )
    return cast("MemoryPolicy", name.replace("-", "_"))


def resume_options(resume: bool) -> TrackOptions:
    """The options of a call that goes on after a break, and prints that it does.

    Args:
        resume: The value of `ResumeOption`.
    """
    logging.getLogger("masklet").addHandler(logging.NullHandler())  # what is printed need not be logged on stderr, too
    return {"resume": resume, "on_resume": _tell}


def _tell(event: ResumeEvent) -> None:
    if event.kind == "lost":
        warn(event.message)
    else:
        err().print(without_secrets(event.message), markup=False, soft_wrap=True)
