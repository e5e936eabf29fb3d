from __future__ import annotations

import os
import queue
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import masklet
from masklet.v1 import server_info_pb2, tracking_pb2, tracking_pb2_grpc
from masklet_server.settings import Settings, flag_of
from tests.support.clips import make_clip

SECONDS_TO_START = 120
CLIP_FRAMES = 100  # more than fit into the queues, so that the decoder still runs when the signal comes
PROGRAM = "import typer\nfrom masklet_server.cli import serve\napp = typer.Typer()\napp.command()(serve)\napp()"


class Process:
    """A real ``masklet serve``.

    Attributes:
        address: Where it listens.
        banner: The line it printed.
    """

    def __init__(self, *arguments: str) -> None:
        self.process = start("--address", "127.0.0.1:0", *arguments)
        self.banner = self._read_banner()
        match = re.search(r"listening on (\S+)", self.banner)
        assert match is not None, f"no banner but {self.banner!r}\n{self.process.communicate()[1]}"
        self.address = match[1]

    def _read_banner(self) -> str:
        stdout = self.process.stdout
        assert stdout is not None
        ready, _, _ = select.select([stdout], [], [], SECONDS_TO_START)
        assert ready, "the server did not start"
        return stdout.readline()

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Send the signal and wait for the end; returns exit code and what was logged."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> tuple[int, str]:
        _, errors = self.process.communicate(timeout=60)
        return self.process.returncode, errors


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MASKLET_")}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**clean, "OMP_NUM_THREADS": "1", **environment},
        start_new_session=True,
    )


def run(*arguments: str, **environment: str) -> tuple[int, str, str]:
    process = start(*arguments, **environment)
    output, errors = process.communicate(timeout=SECONDS_TO_START)
    return process.returncode, output, errors


@pytest.fixture
def server() -> Iterator[Process]:
    one = Process("--model", "nano", "--device", "cpu", "--grace", "30")
    yield one
    one.process.kill()
    one.process.communicate()


def test_help_shows_every_setting_and_needs_no_torch() -> None:
    program = (
        "import sys, typer\nfrom typer.testing import CliRunner\nfrom masklet_server.cli import serve\n"
        "app = typer.Typer()\napp.command()(serve)\n"
        "print(CliRunner().invoke(app, ['--help'], env={'COLUMNS': '200'}).output)\nprint('torch' in sys.modules)"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert output.rstrip().endswith("False")
    for name in Settings.model_fields:
        assert flag_of(name) in output
    for panel in ("Listening", "Models", "Security", "Limits for clients", "Limits for a video", "Logging"):
        assert f" {panel} " in output


def test_print_config() -> None:
    code, output, _ = run(
        *("--print-config", "--model", "nano", "--model", "sam2.1-tiny", "--max-upload-bytes", "1GiB", "--log-json"),
        MASKLET_MAX_SESSIONS="7",
    )
    assert code == 0
    lines = output.splitlines()
    assert 'models = ["nano", "sam2.1-tiny"]  # --model' in lines
    assert "max_upload_bytes = 1073741824  # --max-upload-bytes" in lines
    assert "log_json = true  # --log-json" in lines
    assert "max_sessions = 7  # MASKLET_MAX_SESSIONS" in lines


@pytest.mark.parametrize(("gpus", "device"), [("all", "all"), ("0,2", "cuda:0,cuda:2")])
def test_gpus_are_another_word_for_the_device(gpus: str, device: str) -> None:
    code, output, _ = run("--print-config", "--gpus", gpus)
    assert code == 0
    assert f'device = "{device}"  # --device' in output.splitlines()


@pytest.mark.slow
def test_gpus_that_are_not_there() -> None:
    code, _, errors = run("--address", "127.0.0.1:0", "--gpus", "all", CUDA_VISIBLE_DEVICES="")
    assert code == 1
    assert re.fullmatch(
        r"masklet serve: device is all, but torch \S+ finds no CUDA device .*; or use --device cpu\n", errors
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--window", "0"], "masklet serve: window: Input should be greater than or equal to 1 (from --window)"),
        (["--address", "0.0.0.0:50051"], "masklet serve: other machines can reach 0.0.0.0:50051"),
        (["--config", "/no/such/file.toml"], "masklet serve: config: there is no file /no/such/file.toml"),
        (["--no-such-flag"], "No such option"),
        (["--gpus", "two"], "masklet serve: gpus: is 'two', must be all, or numbers of GPUs from 0 on, such as 0,1"),
        (["--gpus", "all", "--device", "cpu"], "masklet serve: gpus: and device say the same thing; give one of them"),
    ],
)
def test_usage_errors(arguments: list[str], message: str) -> None:
    code, output, errors = run(*arguments)
    assert (code, output) == (2, "")
    assert message in errors
    assert "Traceback" not in errors


def test_unknown_model() -> None:
    code, _, errors = run("--address", "127.0.0.1:0", "--model", "nanoo")
    assert code == 1
    assert errors.startswith("masklet serve: there is no model 'nanoo'; did you mean nano?")
    assert errors.count("\n") == 1


@pytest.mark.slow
def test_missing_checkpoint_names_the_command_that_fetches_it(tmp_path: Path) -> None:
    code, _, errors = run("--address", "127.0.0.1:0", "--model", "sam2.1-tiny", MASKLET_CACHE=str(tmp_path))
    assert code == 1
    assert "masklet models download sam2.1-tiny" in errors
    assert errors.count("\n") == 1


@pytest.mark.slow
def test_taken_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, errors = run("--address", f"127.0.0.1:{port}")
    assert code == 1
    assert errors.startswith(f"masklet serve: cannot listen on 127.0.0.1:{port}: Address already in use")
    assert errors.count("\n") == 1


@pytest.mark.slow
def test_missing_token_file(tmp_path: Path) -> None:
    code, _, errors = run("--address", "127.0.0.1:0", "--token-file", str(tmp_path / "none"))
    assert code == 1
    assert errors.startswith("masklet serve: token_file:")


@pytest.mark.slow
def test_sigterm_ends_an_idle_server(server: Process) -> None:
    assert re.fullmatch(r"masklet \S+ listening on 127\.0\.0\.1:\d+ \(models: nano; cpu, \S+\)\n", server.banner)
    with grpc.insecure_channel(server.address) as channel:
        info = tracking_pb2_grpc.TrackingServiceStub(channel).GetServerInfo(server_info_pb2.GetServerInfoRequest())
    assert [model.name for model in info.models if model.loaded] == ["nano"]
    code, errors = server.stop()
    assert code == 0
    assert "GetServerInfo" in errors
    assert "Traceback" not in errors


@pytest.mark.slow
def test_sigint_ends_it_as_well(server: Process) -> None:
    code, errors = server.stop(signal.SIGINT)
    assert code == 0
    assert "Traceback" not in errors


@pytest.mark.slow
@pytest.mark.parametrize(
    "whole_group",
    [
        pytest.param(False, id="SIGTERM"),
        pytest.param(True, id="Ctrl-C"),
    ],
)
def test_a_running_stream_may_end_within_the_grace(server: Process, whole_group: bool) -> None:
    """Ctrl-C reaches every process of the terminal, the decoders too, who must not heed it."""
    acknowledged: queue.Queue[int] = queue.Queue()
    with grpc.insecure_channel(server.address) as channel:
        call = tracking_pb2_grpc.TrackingServiceStub(channel).Track(slow_clip(acknowledged))
        kinds: list[str | None] = [next(call).WhichOneof("response")]
        while "frame_result" not in kinds:
            kinds.append(next(call).WhichOneof("response"))
        if whole_group:
            os.killpg(server.process.pid, signal.SIGINT)
        else:
            server.process.send_signal(signal.SIGTERM)
        time.sleep(1)
        assert server.process.poll() is None, "it must wait for the stream"
        acknowledged.put(CLIP_FRAMES)
        kinds += [response.WhichOneof("response") for response in call]
    assert kinds.count("frame_result") == CLIP_FRAMES
    assert kinds[-1] == "done"
    code, errors = server.wait()
    assert code == 0
    assert "Traceback" not in errors


@pytest.mark.slow
def test_second_signal_ends_the_grace_for_a_running_stream(server: Process) -> None:
    with grpc.insecure_channel(server.address) as channel:
        call = tracking_pb2_grpc.TrackingServiceStub(channel).Track(never_ending())
        assert next(call).WhichOneof("response") == "session"
        server.process.send_signal(signal.SIGTERM)
        time.sleep(1)
        assert server.process.poll() is None, "it must wait for the stream"
        code, errors = server.stop()
        assert code == 0
        with pytest.raises(grpc.RpcError) as caught:
            next(call)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "Traceback" not in errors


BROKEN = """
from masklet_server.metrics import Metrics
def fail(self, seconds):
    raise RuntimeError("no job's fault")
Metrics.on_queue = fail
from masklet.cli import main
main()
"""


@pytest.mark.slow
def test_a_server_whose_engine_has_failed_ends_with_an_error() -> None:
    arguments = ["serve", "--address", "127.0.0.1:0", "--device", "cpu"]
    with subprocess.Popen(
        [sys.executable, "-c", BROKEN, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        address = re.search(r"listening on (\S+)", process.stdout.readline())
        assert address is not None
        with grpc.insecure_channel(address[1]) as channel:
            health = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=60)
            assert next(health).status == health_pb2.HealthCheckResponse.SERVING
            with (
                masklet.Client(address[1]) as client,
                pytest.raises(masklet.Unavailable, match="must be started again"),
            ):
                client.segment(np.zeros((64, 64, 3), np.uint8), point_coords=[[32, 32]], point_labels=[1])
            assert next(health).status == health_pb2.HealthCheckResponse.NOT_SERVING
        _, log = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "the engine has failed" in log
        assert "no job's fault" in log


@pytest.mark.slow
def test_json_log() -> None:
    server = Process("--log-json", "--device", "cpu")
    with grpc.insecure_channel(server.address) as channel:
        tracking_pb2_grpc.TrackingServiceStub(channel).GetServerInfo(server_info_pb2.GetServerInfoRequest())
    _, errors = server.stop()
    assert '"message": "rpc"' in errors
    assert '"method": "masklet.v1.TrackingService/GetServerInfo"' in errors


def slow_clip(acknowledged: queue.Queue[int]) -> Iterator[tracking_pb2.TrackRequest]:
    """A clip whose client takes one result and the others only when told to."""
    yield tracking_pb2.TrackRequest(config=tracking_pb2.TrackConfig(window=1))
    yield tracking_pb2.TrackRequest(video_chunk=make_clip(frames=CLIP_FRAMES))
    yield tracking_pb2.TrackRequest(end_of_video=tracking_pb2.EndOfVideo())
    acknowledged.get()
    for sequence in range(1, CLIP_FRAMES + 1):
        yield tracking_pb2.TrackRequest(ack=tracking_pb2.Ack(sequence=sequence))
        time.sleep(0.05)


def never_ending() -> Iterator[tracking_pb2.TrackRequest]:
    yield tracking_pb2.TrackRequest(config=tracking_pb2.TrackConfig())
    time.sleep(20)  # the call is over long before
