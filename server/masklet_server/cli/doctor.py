"""``masklet doctor``: checks whether a server can run on this machine, and says how to fix what is wrong."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import typer
from rich.console import Console
from rich.markup import escape

from masklet.errors import MaskletError

_MARKS = {"ok": "[green]ok  [/green]", "warn": "[yellow]warn[/yellow]", "fail": "[red]fail[/red]"}
_HOW_TO_INSTALL = "install the server: https://github.com/masklet/masklet/blob/main/docs/start/install.md#the-server"
_PORT = 50051
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - looked at, not written to
_LEAST_SHARED_MEMORY = 64 * 1024**2
_LEAST_MEMORY = 2 * 1024**3


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Attributes:
        name: What was checked.
        state: "ok"; "warn" where a server can run all the same; "fail" where it cannot.
        detail: What was found.
        fix: What to do about it; empty where the state is "ok".
    """

    name: str
    state: Literal["ok", "warn", "fail"]
    detail: str
    fix: str = ""


Check = Callable[[], Iterator[Finding]]


def doctor() -> None:
    """Check whether a server can run on this machine, and say how to fix what is wrong.

    Exits with 0 if a server can run, and with 1 if not. A warning does not keep a server from running.
    """
    console = Console(highlight=False)
    findings = []
    for check in CHECKS:
        for finding in check():
            findings.append(finding)
            _show(console, finding)
    failed = sum(finding.state == "fail" for finding in findings)
    warned = sum(finding.state == "warn" for finding in findings)
    if failed:
        console.print(f"\n{failed} of {len(findings)} checks failed: a server cannot run here yet.")
        raise typer.Exit(1)
    warnings = f", with {warned} {'warning' if warned == 1 else 'warnings'}" if warned else ""
    console.print(f"\nA server can run here{warnings}. Start it with: masklet serve")


def _show(console: Console, finding: Finding) -> None:
    console.print(f"{_MARKS[finding.state]}  {finding.name}: {escape(finding.detail)}", soft_wrap=True)
    if finding.fix:
        console.print(f"      -> {escape(finding.fix)}", soft_wrap=True)


def check_python() -> Iterator[Finding]:
    """The versions of Python and masklet, and the operating system."""
    version = platform.python_version()
    system = f"{platform.system()} {platform.machine()}"
    if platform.system() != "Linux":
        yield Finding(
            "python",
            "warn",
            f"{version} on {system}",
            "the server is made for Linux; it was never tried on other systems",
        )
    else:
        yield Finding("python", "ok", f"{version} on {system}, masklet {metadata.version('masklet')}")


def check_torch() -> Iterator[Finding]:
    """PyTorch, and the device that a server would use."""
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Finding("torch", "fail", f"cannot be imported: {error}", _HOW_TO_INSTALL)
        return
    yield Finding("torch", "ok", torch.__version__)
    if importlib.util.find_spec("sam2") is None:
        return  # check_sam2 says so; the engine cannot be imported without it
    from masklet_server.engine.network.device import device_name, has_fast_bfloat16, pick_device

    device = pick_device("auto")
    fast = has_fast_bfloat16(device)
    detail = f"{device} ({device_name(device)}), {'fast' if fast else 'slow'} at bfloat16"
    if device.type == "cuda":
        yield Finding("device", "ok", detail)
        yield Finding("tuning", "ok", _tuning(device_name(device)))
    elif _has_nvidia_driver():
        yield Finding(
            "device",
            "warn",
            f"{detail}; there is an NVIDIA driver, but torch cannot use it",
            "install a torch that was built for CUDA: https://pytorch.org/get-started/locally",
        )
    else:
        yield Finding("device", "ok", f"{detail}; without a GPU, only the model nano is quick")


def check_openvino() -> Iterator[Finding]:
    """OpenVINO, which computes most of the network on CPUs."""
    from masklet_server.engine.network.openvino.compiled import load_openvino

    if not (version := _version("openvino")):
        if _has_nvidia_driver():
            yield Finding("openvino", "ok", "not installed, and not needed with a GPU")
        else:
            detail = "not installed; on a CPU, nano runs more slowly without it"
            yield Finding("openvino", "warn", detail, "pip install openvino")
        return
    try:
        load_openvino()
    except (ImportError, OSError) as error:
        fix = "pip install --force-reinstall openvino"
        yield Finding("openvino", "warn", f"cannot be imported, so torch computes everything: {error}", fix)
    else:
        detail = "on a CPU, it computes each part of the network where it is faster than torch"
        yield Finding("openvino", "ok", f"{version}; {detail}")


def check_sam2() -> Iterator[Finding]:
    """Meta's package, which the engine is built on."""
    try:
        import sam2.build_sam  # noqa: F401
    except (ImportError, RuntimeError) as error:
        yield Finding(
            "sam2",
            "fail",
            f"cannot be imported: {error}",
            "SAM2_BUILD_CUDA=0 pip install --no-build-isolation --no-deps sam2==1.1.0",
        )
    else:
        yield Finding("sam2", "ok", _version("sam2"))


def check_video() -> Iterator[Finding]:
    """PyAV, and the codecs that videos mostly have."""
    try:
        import av
    except (ImportError, OSError) as error:
        yield Finding("av", "fail", f"cannot be imported: {error}", "pip install --force-reinstall av")
        return
    try:
        _h264_round_trip()
    except (av.FFmpegError, ValueError) as error:
        yield Finding(
            "av",
            "fail",
            f"{av.__version__}, H.264 does not work: {error}",
            "use PyPI's wheel: pip install --force-reinstall --only-binary :all: av",
        )
    else:
        yield Finding("av", "ok", f"{av.__version__}, H.264 encodes and decodes")
    missing = [name for name in ("hevc", "vp9", "libdav1d") if name not in av.codecs_available]
    if missing:
        yield Finding(
            "codecs",
            "warn",
            f"{', '.join(missing)} missing",
            "videos in these codecs are refused; install av from PyPI",
        )
    else:
        yield Finding("codecs", "ok", "H.265, VP9 and AV1 decode")


def check_sandbox() -> Iterator[Finding]:
    """The layers of the sandbox in which video is decoded."""
    try:
        from masklet_media.confinement import LAYERS, describe
        from masklet_server.video.sandbox.control_group import HOW_TO_HAVE, delegated_group
        from masklet_server.video.sandbox.layers import missing_layers

        missing = missing_layers()
    except ImportError as error:
        yield Finding("sandbox", "fail", f"cannot be imported: {error}", _HOW_TO_INSTALL)
        return
    except MaskletError as error:
        yield Finding("sandbox", "fail", str(error), "look at the kernel's log, and at limits on processes")
        return
    if not missing:
        yield Finding("sandbox", "ok", ", ".join(LAYERS))
    for name in missing:
        yield Finding("sandbox", "warn", f"{name} is missing", describe(name))
    if delegated_group() is None:
        yield Finding("sandbox", "ok", "without a control group for decoders", HOW_TO_HAVE)
    else:
        yield Finding("sandbox", "ok", "a control group for decoders can be made")


def check_grpc(port: int = _PORT) -> Iterator[Finding]:
    """The server's gRPC packages, and whether the usual port is free."""
    packages = ("grpcio", "grpcio-health-checking", "grpcio-reflection", "grpcio-channelz")
    missing = [name for name in packages if not _version(name)]
    if missing:
        yield Finding("grpc", "fail", f"{', '.join(missing)} missing", f"pip install {' '.join(missing)}")
    else:
        yield Finding("grpc", "ok", _version("grpcio"))
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            yield Finding(
                "port",
                "warn",
                f"127.0.0.1:{port} cannot be used: {error.strerror}",
                "let the server choose a free port: masklet serve --address 127.0.0.1:0",
            )
        else:
            yield Finding("port", "ok", f"127.0.0.1:{port} is free")


def check_models() -> Iterator[Finding]:
    """The model that ships with masklet, the downloaded models, and the folder for downloads."""
    from masklet_server.models.download import verify
    from masklet_server.models.paths import cache_folder
    from masklet_server.models.registry import Registry

    registry = Registry.load()
    try:
        verify(registry.get("nano"))
    except MaskletError as error:
        yield Finding("nano", "fail", str(error), "install masklet again")
    else:
        yield Finding("nano", "ok", "ships with masklet, and its checksum is right")
    here = [spec.name for spec in registry if spec.is_downloadable and spec.checkpoint_path().is_file()]
    yield Finding("models", "ok", f"{', '.join(here) or 'none'} downloaded; `masklet models list` shows all")
    cache = cache_folder()
    existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
        free = shutil.disk_usage(existing).free
        yield Finding("downloads", "ok", f"{cache} can be written to, {_gibibytes(free)} free")
    else:
        yield Finding(
            "downloads", "warn", f"{cache} cannot be written to", "set MASKLET_CACHE to a folder that can be written to"
        )


def check_memory() -> Iterator[Finding]:
    """Main memory, and shared memory, through which decoded frames reach the server."""
    try:
        size = shutil.disk_usage(_SHARED_MEMORY).total
    except OSError as error:
        yield Finding(
            "shared memory", "fail", f"{_SHARED_MEMORY} cannot be used: {error.strerror}", "mount a tmpfs there"
        )
    else:
        if size < _LEAST_SHARED_MEMORY:
            yield Finding(
                "shared memory",
                "warn",
                f"{size // 1024**2} MiB in {_SHARED_MEMORY}",
                "enlarge it; with Docker: --shm-size=1g",
            )
        else:
            yield Finding("shared memory", "ok", f"{_gibibytes(size)} in {_SHARED_MEMORY}")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if memory < _LEAST_MEMORY:
        yield Finding("memory", "warn", _gibibytes(memory), "a server with nano needs about 2 GiB")
    else:
        yield Finding("memory", "ok", _gibibytes(memory))


CHECKS: tuple[Check, ...] = (
    check_python,
    check_torch,
    check_openvino,
    check_sam2,
    check_video,
    check_sandbox,
    check_grpc,
    check_models,
    check_memory,
)


def _h264_round_trip() -> None:
    """Encode a small grey picture and decode it again."""
    import av
    import numpy as np

    encoder = av.CodecContext.create("libx264", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt, encoder.framerate = 64, 64, "yuv420p", 25  # type: ignore[assignment]
    picture = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 128, np.uint8), format="rgb24")
    packets = [*encoder.encode(picture.reformat(format="yuv420p")), *encoder.encode(None)]
    decoder = av.CodecContext.create("h264", "r")
    assert isinstance(decoder, av.VideoCodecContext)
    frames = [frame for packet in [*packets, None] for frame in decoder.decode(packet)]
    if len(frames) != 1 or abs(int(frames[0].to_ndarray(format="rgb24").mean()) - 128) > 8:
        raise ValueError("the decoded picture differs from the encoded one")


def _tuning(device: str) -> str:
    """What servers have chosen by measuring on this GPU."""
    from masklet_server.engine.network.device import tuning_folder
    from masklet_server.engine.network.tuning.choice import StoredChoices, driver_version

    here = [
        str(choice)
        for known_as, choice in StoredChoices(tuning_folder())
        if known_as.device == device and known_as.driver == driver_version()
    ]
    return f"measured: {'; '.join(here)}" if here else "not measured yet; the first start of a server does"


def _has_nvidia_driver() -> bool:
    return Path("/proc/driver/nvidia/version").exists()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _gibibytes(size: int) -> str:
    return f"{size / 1024**3:.1f} GiB"
