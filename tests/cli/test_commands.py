"""The commands as a user runs them, against a server that follows a script."""

from __future__ import annotations

import itertools
import json
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar

import av
import grpc
import numpy as np
import pytest
import typer
from PIL import Image

import masklet
from masklet import _embedded
from masklet.cli import main, plugins
from masklet.v1 import common_pb2, tracking_pb2
from tests.support.scripted.fake_script import HEIGHT, WIDTH, Script, square, status
from tests.support.scripted.fake_server import FakeServer, starting

OUT_OF_VIEW = common_pb2.OBJECT_EVENT_OUT_OF_VIEW
# Ctrl-C's signal is as in a terminal, also where these tests run in the background, which ignores it.
PROGRAM = """
import signal
from masklet.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""


def run(*arguments: object) -> int:
    """Run a command line; its exit status."""
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    code = left.value.code
    assert isinstance(code, int)
    return code


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as running:
        yield running


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for _ in range(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((HEIGHT, WIDTH, 3), 90, np.uint8))))
        container.mux(stream.encode(None))
    return path


def test_track_writes_everything(
    server: FakeServer, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overlay, masks, result = tmp_path / "out.mp4", tmp_path / "new" / "masks", tmp_path / "result.json"
    outputs = ("--overlay", overlay, "--masks", masks, "--json", result)
    prompts = ("--point", "10,20", "--box", "4:1,2,30,40@2", "--background", "1,1")
    assert run("track", clip, *prompts, *outputs, "--server", server.address, "--model", "nano") == 0

    session = server.sessions[0]
    assert session.video == clip.read_bytes()
    assert session.config.model == "nano"
    assert [(p.object_id, p.frame_index, len(p.points)) for p in session.prompts] == [(1, 0, 2), (4, 2, 0)]

    out, err = capsys.readouterr()
    assert "5 frames in" in out
    assert "frames/s" in out
    assert [line.split() for line in out.splitlines() if "■" in line] == [
        ["■", "1", "5", "0.750"],
        ["■", "4", "3", "0.750"],
    ]
    assert str(overlay) in out
    assert err == "tracking clip.mp4\n"

    assert sorted(p.name for p in masks.iterdir()) == [*(f"0000{i}.png" for i in range(5)), "objects"]
    # The fake's objects lie on each other, from frame 2 on, on which the second one is prompted.
    assert "in 3 frames masks overlap, or object ids are above 255; the folder objects has" in " ".join(out.split())
    for object_id in (1, 4):
        folder = masks / "objects" / str(object_id)
        assert sorted(p.name for p in folder.iterdir()) == [f"0000{i}.png" for i in (2, 3, 4)]
        with Image.open(folder / "00003.png") as image:
            np.testing.assert_array_equal(np.asarray(image), square(3) * np.uint8(255))
    with Image.open(masks / "00003.png") as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image), square(3) * np.uint8(4))
    with av.open(str(overlay)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 5
    assert frames[0][20, 15, 2] > frames[0][20, 15, 0] + 40  # sky blue inside
    np.testing.assert_allclose(frames[0][40, 60], [90] * 3, atol=8)


def test_json_reads_back(server: FakeServer, clip: Path, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    assert run("track", clip, "--point", "10,20", "--json", file, "--server", server.address) == 0
    result = json.loads(file.read_text())
    assert result["video"] == {
        "height": HEIGHT,
        "width": WIDTH,
        "frame_rate": 30.0,
        "duration_seconds": pytest.approx(5 / 30),
        "frame_count": 5,
        "container": "mov",
        "codec": "h264",
        "rotation_degrees": 0,
        "undecoded_pts_seconds": [],
        "broken_off": "",
    }
    assert result["undecoded_pts_seconds"] == []
    assert result["error"] is None
    assert [frame["frame_index"] for frame in result["frames"]] == list(range(5))
    assert result["frames"][2]["pts_seconds"] == pytest.approx(2 / 30)
    (found,) = result["frames"][2]["objects"]
    np.testing.assert_array_equal(masklet.decode_rle(found.pop("rle")), square(2))
    assert found == {
        "object_id": 1,
        "box": [7, 10, 27, 30],
        "area": 400,
        "predicted_iou": pytest.approx(0.75),
        "object_score": pytest.approx(5.0),
        "visible": True,
        "event": None,
    }


def test_what_happened_to_objects_is_told(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "result.json"
    happened = {1: common_pb2.OBJECT_EVENT_LOST, 3: common_pb2.OBJECT_EVENT_REACQUIRED, 4: OUT_OF_VIEW}
    with FakeServer(Script(events=happened)) as server:
        prompts = ("--point", "1,1", "--point", "2:1,1@4")
        assert run("track", clip, *prompts, "--json", file, "--server", server.address) == 0
    out = capsys.readouterr().out
    assert "object 1: lost at frame 1, reacquired at frame 3, out of view at frame 4\n" in out
    assert "object 2: out of view at frame 4\n" in out
    events = [[one["event"] for one in frame["objects"]] for frame in json.loads(file.read_text())["frames"]]
    assert events == [[None], ["lost"], [None], ["reacquired"], ["out_of_view", "out_of_view"]]


def test_few_of_many_events_are_told(clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FakeServer(Script(frame_count=15, events=dict.fromkeys(range(15), OUT_OF_VIEW))) as server:
        assert run("track", clip, "--point", "1,1", "--server", server.address) == 0
    out = capsys.readouterr().out
    assert "out of view at frame 9\nand 5 more such events\n" in out


def test_the_memory_policy_is_asked_for(server: FakeServer, clip: Path) -> None:
    arguments = ("track", clip, "--point", "1,1", "--server", server.address)
    assert run(*arguments) == 0
    assert run(*arguments, "--memory-policy", "distractor-aware") == 0
    assert [session.config.memory_policy for session in server.sessions] == [
        tracking_pb2.MEMORY_POLICY_SAM2,
        tracking_pb2.MEMORY_POLICY_DISTRACTOR_AWARE,
    ]


@pytest.mark.parametrize("option", [("--jsonl", "out.jsonl"), ("--json", "out.jsonl"), ("--jsonl", "-")])
def test_json_lines(
    server: FakeServer,
    clip: Path,
    option: tuple[str, str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(clip.parent)
    assert run("track", clip, "--point", "10,20", *option, "--server", server.address) == 0
    out, err = capsys.readouterr()
    written = out if option[1] == "-" else Path("out.jsonl").read_text()
    lines = [json.loads(line) for line in written.splitlines()]
    assert [line["kind"] for line in lines] == ["video", *["frame"] * 5, "end"]
    assert (lines[0]["width"], lines[0]["height"]) == (WIDTH, HEIGHT)
    assert [line["frame_index"] for line in lines[1:-1]] == list(range(5))
    assert lines[-1] == {"kind": "end", "frames": 5, "undecoded_pts_seconds": [], "error": None}
    assert "5 frames in" in (err if option[1] == "-" else out)
    if option[1] != "-":
        recording = masklet.Recording.load("out.jsonl")
        assert [frame.frame_index for frame in recording] == list(range(5))


@pytest.mark.parametrize("option", ["--json", "--jsonl", "--overlay", "--masks"])
def test_a_full_disk_is_told_with_the_path(
    server: FakeServer, clip: Path, tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / {"--overlay": "out.mp4", "--masks": "masks"}.get(option, "out.json")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, limits[1]))  # as on a full disk: nothing can be written
    try:
        assert run("track", clip, "--point", "10,20", option, path, "--server", server.address) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    told = capsys.readouterr().err
    assert f"error: {path}: File too large" in told
    assert "add --overlay" not in told


def test_json_on_stdout_is_nothing_but_json(server: FakeServer, clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("track", clip, "--point", "10,20", "--json", "-", "--server", server.address) == 0
    assert len(json.loads(capsys.readouterr().out)["frames"]) == 5
    assert run("track", clip, "--point", "10,20", "--json", "-", "--jsonl", "-", "--server", server.address) == 2


def test_folder_of_pictures(server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(3):
        Image.new("RGB", (WIDTH, HEIGHT)).save(folder / f"{i}.jpg")
    assert run("track", folder, "--point", "1,1", "--server", server.address, "--overlay", tmp_path / "o.mp4") == 0
    assert "3 frames" in capsys.readouterr().out
    with av.open(str(tmp_path / "o.mp4")) as container:
        assert len(list(container.decode(video=0))) == 3


def test_without_outputs_it_says_what_there_could_be(
    server: FakeServer, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("track", clip, "--point", "1,1", "--server", server.address) == 0
    assert "--overlay OUT.mp4, --masks DIR, --json FILE or --jsonl FILE" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("nonsense",),
        ("track",),
        ("track", "clip.mp4"),
        ("track", "clip.mp4", "--point", "1"),
        ("track", "clip.mp4", "--point", "0:1,1"),
        ("track", "clip.mp4", "--box", "5,5,1,1"),
        ("track", "clip.mp4", "--point", "1,1", "--overlay", "out.gif"),
        ("track", "clip.mp4", "--point", "1,1", "--nonsense"),
        ("track", "examples/bunny.mp4", "--point", "1,1", "--memory-policy", "best"),
        ("segment",),
        ("segment", "picture.png"),
        ("segment", "picture.png", "--point", "1,1@3"),
        ("info", "--server"),
    ],
)
def test_wrong_command_lines_exit_with_2(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 2
    out, err = capsys.readouterr()
    assert "Usage: masklet" in out + err or "Error" in err


def failed_with(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that says what went wrong."""
    (line,) = [
        line
        for line in capsys.readouterr().err.splitlines()
        if not line.startswith(("tracking", "starting", "waiting"))
    ]
    assert line.startswith("error: ")
    return line


def test_a_picture_is_not_a_video(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.jpg")
    assert run("track", tmp_path / "photo.jpg", "--point", "1,1") == 2
    assert "masklet segment" in capsys.readouterr().err


def test_failures_exit_with_1_and_one_line(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    failure = status(grpc.StatusCode.DATA_LOSS, "the video\ncannot be decoded")
    with FakeServer(Script(failure=failure, fail_at=2)) as server:
        outputs = ("--json", tmp_path / "x.json", "--overlay", tmp_path / "x.mp4")
        assert run("track", clip, "--point", "1,1", "--server", server.address, *outputs) == 1
        assert capsys.readouterr().err.splitlines()[-1] == "error: the video cannot be decoded"
    found = json.loads((tmp_path / "x.json").read_text())
    assert [frame["frame_index"] for frame in found["frames"]] == [0, 1]
    assert found["error"] == "the video\ncannot be decoded"
    with av.open(str(tmp_path / "x.mp4")) as container:
        assert len(list(container.decode(video=0))) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clip.mp4", "x.json", "x.mp4"]
    with FakeServer(Script(failure=failure, fail_at=0)) as server:
        outputs = ("--json", tmp_path / "y.json", "--overlay", tmp_path / "y.mp4")
        assert run("track", clip, "--point", "1,1", "--server", server.address, *outputs) == 1
        assert failed_with(capsys) == "error: the video cannot be decoded"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clip.mp4", "x.json", "x.mp4"], "nothing was tracked"
    monkeypatch.setattr("masklet.cli.server.CONNECT_SECONDS", 0.1)
    assert run("track", clip, "--point", "1,1", "--server", server.address) == 1
    assert "masklet serve" in failed_with(capsys)
    assert run("info", "--server", server.address) == 1
    assert "masklet serve" in failed_with(capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("track", "none.mp4", "--point", "1,1"), "none.mp4: No such file"),
        (("track", "gopher://user:hidden@example.org/x.mp4", "--point", "1,1"), "gopher://example.org/x.mp4 is a URL"),
        (("track", "clip.mp4", "--mask", "none.png"), "none.png: No such file"),
        (("segment", "none.png", "--point", "1,1"), "none.png: No such file"),
        (("track", "clip.mp4", "--point", "1,1", "--server", "host:port"), "address"),
        (("track", "clip.mp4", "--point", "1,1", "--server", "h", "--token-file", "none"), "none: No such file"),
        (("info", "--server", "127.0.0.1", "--insecure", "--ca", "clip.mp4"), "certificates are given"),
    ],
)
def test_what_is_wrong_is_named_before_a_server_is_asked(
    arguments: tuple[str, ...],
    message: str,
    clip: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(clip.parent)
    assert run(*arguments) == 1
    assert message in failed_with(capsys)


def test_token_file(server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "tokens"
    file.write_text("# for the robot\n\nrobot s3cret\nother t\n")
    assert run("info", "--server", server.address, "--token-file", file) == 0
    assert server.metadata["authorization"] == "Bearer s3cret"
    file.write_text("# nothing\n")
    assert run("info", "--server", server.address, "--token-file", file) == 1
    assert "holds no token" in failed_with(capsys)


def test_info(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("info", "--server", server.address) == 0
    out = capsys.readouterr().out
    for part in (
        "masklet 9.9.9",
        "Fake CPU",
        "torch 2.5.1",
        "nano",
        "default",
        "4.6 M",
        "sam2.1-tiny",
        "no limit",
        "h264",
    ):
        assert part in out


def test_info_shows_what_a_server_has_measured_on_its_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    with FakeServer(Script(tuning="float16, with CUDA graphs")) as server:
        assert run("info", "--server", server.address) == 0
    assert "nano: measured on this device: float16, with CUDA graphs" in capsys.readouterr().out.splitlines()


def test_info_shows_long_names_whole(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    name = "hub:an-owner/a-model-that-was-tuned-for-months"
    with FakeServer(Script(model=name)) as server:
        assert run("info", "--server", server.address) == 0
    column = [line.strip().split("  ")[0] for line in capsys.readouterr().out.splitlines()]
    assert name in "".join(column)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"masklet {masklet.__version__}\n"


def test_segment_writes_mask_cutout_and_overlay(
    server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "picture.png"
    Image.new("RGB", (WIDTH, HEIGHT), (90, 90, 90)).save(picture)
    mask, cutout, overlay = (tmp_path / f"{name}.png" for name in ("mask", "cutout", "overlay"))
    outputs = ("--mask", mask, "--cutout", cutout, "--overlay", overlay)
    assert run("segment", picture, "--point", "10,20", *outputs, "--server", server.address) == 0
    assert server.pictures[0].multimask_output
    assert server.pictures[0].picture.data == picture.read_bytes()
    np.testing.assert_array_equal(np.asarray(Image.open(mask)), square(0) * np.uint8(255))
    rgba = np.asarray(Image.open(cutout))
    np.testing.assert_array_equal(rgba[:, :, 3], square(0) * np.uint8(255))
    drawn = np.asarray(Image.open(overlay))
    assert drawn[20, 15, 2] > 120
    assert (drawn[45, 60] == 90).all()
    out = capsys.readouterr().out
    assert ["■", "1", "0.900", "400", "13.0%"] in [line.split() for line in out.splitlines()]


@pytest.mark.parametrize("option", ["--mask", "--cutout", "--overlay"])
def test_segment_does_not_write_over_the_picture(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "picture.png"
    Image.new("RGB", (WIDTH, HEIGHT)).save(picture)
    before = picture.read_bytes()
    assert run("segment", picture, "--point", "1,1", option, picture, "--server", "127.0.0.1:1") == 2
    assert "is the file that is read" in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert picture.read_bytes() == before


@pytest.mark.parametrize("width", [60, 80])
def test_help_fills_the_lines(width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert run("track", "--help") == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    begin = next(i for i, line in enumerate(lines) if line.startswith("OBJ is the number"))
    paragraph = lines[begin : lines.index("", begin)]
    assert len(paragraph) > 1
    for line, following in itertools.pairwise(paragraph):
        assert len(line) + 1 + len(following.split()[0]) > width - 3, "a line ends although a word would fit"


def test_segment_encodes_the_picture_once_for_several_objects(
    server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "picture.png"
    Image.new("RGB", (WIDTH, HEIGHT)).save(picture)
    prompts = ("--box", "2:1,2,30,40", "--point", "10,20", "--background", "3,3", "--point", "7:5,5")
    assert run("segment", picture, *prompts, "--mask", tmp_path / "m.png", "--server", server.address) == 0
    assert [r.HasField("picture") for r in server.pictures] == [True, False, False]
    assert [r.multimask_output for r in server.pictures] == [False, False, True]
    with Image.open(tmp_path / "m.png") as image:
        assert image.mode == "P"
        assert np.unique(np.asarray(image)).tolist() == [0, 7]
    assert run("segment", picture, "--point", "1,1", "--server", server.address) == 0
    assert "--cutout OUT.png" in capsys.readouterr().err


class Embedded:
    """Stands for the server's own class: the same arguments, the same protocol."""

    models: ClassVar[list[str | None]] = []

    def __init__(self, model: str | None = None, device: str = "auto") -> None:
        self.models.append(model)
        self._server = FakeServer()

    def __enter__(self) -> str:
        return self._server.__enter__().address

    def __exit__(self, *exc_info: object) -> None:
        self._server.stop()


def stand_in(monkeypatch: pytest.MonkeyPatch, **entries: str) -> None:
    def entry_points(group: str, **_: object) -> list[EntryPoint]:
        return [EntryPoint(name, value, group) for name, value in entries.items()]

    for module in (plugins, _embedded):
        monkeypatch.setattr(module, "entry_points", entry_points)


def test_without_server_one_is_started_inside(
    clip: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, default=f"{__name__}:Embedded")
    Embedded.models.clear()
    assert run("track", clip, "--point", "1,1", "--model", "sam2.1-tiny") == 0
    assert run("track", clip, "--point", "1,1") == 0
    assert Embedded.models == ["sam2.1-tiny", None]
    assert "starting a server in this process with sam2.1-tiny" in capsys.readouterr().err


@pytest.mark.parametrize("entries", [{}, {"default": "no_such_package.embedded:EmbeddedServer"}])
def test_without_the_servers_packages_the_fix_is_named(
    entries: dict[str, str], clip: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, **entries)
    assert run("track", clip, "--point", "1,1") == 1
    line = failed_with(capsys)
    assert "install the server: https://github.com/masklet/masklet/blob/main/docs/start/install.md#the-server" in line
    assert "--server HOST:PORT" in line


def serve(address: str = "nowhere", model: list[str] = []) -> None:  # noqa: B006 - typer takes defaults so
    """Stands for a function that is a command."""
    typer.echo(f"serving {address} {model}")


models = typer.Typer(help="Stands for a group of commands.")


@models.command("list")
def list_models() -> None:
    typer.echo("one, two")


@models.command("fail")
def fail_models() -> None:
    raise masklet.NotFound("no such model")


def plugin_app(monkeypatch: pytest.MonkeyPatch, **entries: str) -> typer.Typer:
    stand_in(monkeypatch, **entries)
    app = typer.Typer()
    app.callback()(lambda: None)
    plugins.add_commands(app)
    return app


def run_plugin(app: typer.Typer, *arguments: str) -> Any:
    with pytest.raises(SystemExit) as left:
        app(list(arguments))
    return left.value.code


def test_commands_of_other_packages(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    app = plugin_app(monkeypatch, serve=f"{__name__}:serve", models=f"{__name__}:models", extra="tests.x:y")
    assert run_plugin(app, "serve", "--model", "b", "--address", "here", "--model", "a") == 0
    assert capsys.readouterr().out == "serving here ['b', 'a']\n"
    assert run_plugin(app, "models", "list") == 0
    assert capsys.readouterr().out == "one, two\n"
    assert run_plugin(app, "models", "--help") == 0
    assert "Usage: masklet models" in capsys.readouterr().out
    assert run_plugin(app, "serve", "--nonsense") == 2
    with pytest.raises(masklet.NotFound):
        app(["models", "fail"])


def test_listing_commands_imports_none(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    app = plugin_app(monkeypatch, serve="no_such_package.cli:serve", extra="other_package.cli:extra")
    assert run_plugin(app, "--help") == 0
    out = capsys.readouterr().out
    assert "Start a server." in out
    assert "A command of other_package." in out
    with pytest.raises(
        masklet.Unavailable, match=r"`masklet serve` needs .*no_such_package.*docs/start/install\.md#the-server"
    ):
        app(["serve", "--address", "x"])


HELPED = [
    "track",
    "segment",
    "info",
    "bench",
    "batch",
    "export",
    "serve",
    "models",
    "models verify",
    "doctor",
    "studio",
]
CLUSTER = ["gateway", "cluster", "cluster up", "cluster status", "cluster scale", "cluster down"]


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("command", [*HELPED, *CLUSTER])
def test_help_is_about_what_can_be_given(
    command: str, flag: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run(*command.split(), flag) == 0
    shown = capsys.readouterr().out
    assert f"Usage: masklet {command}" in shown
    assert "…" not in shown  # nothing is cut, not even on a narrow terminal
    assert "<bool>" not in shown
    assert not re.search(r"Default:\s*\.", " ".join(shown.replace("│", " ").split()))
    if command == "segment":
        assert "FRAME" not in shown


@pytest.mark.parametrize("words", ["status", "scale 3", "down"])
def test_a_cluster_that_does_not_run_is_told_with_the_command_that_starts_it(
    words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("cluster", *words.split(), "--name", "never-started") == 1
    out, err = capsys.readouterr()
    assert not out
    assert err == (
        "no cluster 'never-started' of this user runs on this machine; "
        "start it with `masklet cluster up --name never-started`\n"
    )


@pytest.mark.parametrize("arguments", [["--help"], ["track", "--help"]])
def test_help_is_light(arguments: list[str]) -> None:
    script = (
        f"import sys\nsys.argv = ['masklet', *{arguments!r}]\nfrom masklet.cli import main\n"
        "try: main()\nfinally: print(*{m.partition('.')[0] for m in sys.modules}, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert "Usage: masklet" in done.stdout
    assert not set(done.stderr.split()) & {"torch", "cv2", "masklet_server", "grpc", "av"}


def test_tracking_on_a_server_imports_no_torch(server: FakeServer, clip: Path) -> None:
    script = (
        "import sys\nfrom masklet.cli import main\n"
        "try: main()\nfinally: print('torch' in sys.modules, 'masklet_server' in sys.modules)"
    )
    command = [sys.executable, "-c", script, "track", str(clip), "--point", "1,1", "--server", server.address]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "False False"


def test_it_waits_for_a_server_that_is_starting(capsys: pytest.CaptureFixture[str]) -> None:
    with starting() as address:
        assert run("info", "--server", address) == 0
    out, err = capsys.readouterr()
    assert "masklet 9.9.9" in out
    assert f"waiting for a server at {address}, at most 30 s ..." in err


@pytest.mark.parametrize(
    ("number", "status", "error"),
    [(signal.SIGINT, 130, "interrupted by Ctrl-C"), (signal.SIGTERM, 143, "ended by SIGTERM")],
)
def test_signals_free_the_server_and_keep_what_was_written(
    number: int, status: int, error: str, clip: Path, tmp_path: Path
) -> None:
    with FakeServer(Script(stall_at=2)) as server:
        command = [sys.executable, "-c", PROGRAM, "track", str(clip), "--point", "1,1", "--server", server.address]
        outputs = ["--json", str(tmp_path / "x.json"), "--overlay", str(tmp_path / "x.mp4")]
        with subprocess.Popen([*command, *outputs], stderr=subprocess.PIPE, text=True) as process:
            deadline = time.monotonic() + 30
            while not (server.sessions and server.sessions[0].acked >= 3):  # a prompt's result, and two frames
                assert time.monotonic() < deadline
                time.sleep(0.05)
            process.send_signal(number)
            _, err = process.communicate(timeout=30)
        assert process.returncode == status
        assert "Traceback" not in err
        assert server.sessions[0].ended.wait(10)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clip.mp4", "x.json", "x.mp4"]
    kept = json.loads((tmp_path / "x.json").read_text())
    assert [frame["frame_index"] for frame in kept["frames"]] == [0, 1]
    assert kept["error"] == error
    with av.open(str(tmp_path / "x.mp4")) as container:
        assert len(list(container.decode(video=0))) == 2
