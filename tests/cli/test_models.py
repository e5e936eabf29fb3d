from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest import mock

import pytest
import torch
import typer
from typer.testing import CliRunner, Result

from masklet_server.cli import doctor as doctor_command
from masklet_server.cli import models as models_app
from masklet_server.cli.doctor import check_grpc, check_models, check_torch
from masklet_server.engine.network import device
from masklet_server.engine.network.tuning.choice import Choice, Circumstances, StoredChoices
from masklet_server.models import paths, transfer
from masklet_server.models.registry import ModelSpec, Registry

CONTENT = b"weights" * 1000

program = typer.Typer()
program.add_typer(models_app, name="models")
program.command("doctor")(doctor_command)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(program, arguments)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MASKLET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The registry also knows `ours`, which a server has, and `lost`, which it has not."""
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "ours.pt").write_bytes(CONTENT)
    monkeypatch.setattr(transfer, "FIRST_PAUSE_SECONDS", 0.001)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        digest = hashlib.sha256(CONTENT).hexdigest()
        registry = Registry.load().extended(
            ModelSpec("ours", "nano", "ours.pt", url=f"{url}/ours.pt", bytes=len(CONTENT), sha256=digest),
            ModelSpec("unsure", "nano", "unsure.pt", url=f"{url}/ours.pt"),
            ModelSpec("lost", "nano", "lost.pt", url=f"{url}/lost.pt"),
        )
        monkeypatch.setattr(Registry, "load", lambda: registry)
        yield
        server.shutdown()
        thread.join()


def row(result: Result, name: str) -> str:
    return next(line for line in result.stdout.splitlines() if line.startswith(f"{name} "))


@pytest.mark.usefixtures("ours")
def test_list_shows_size_state_and_where(cache: Path) -> None:
    result = run("models", "list")
    assert result.exit_code == 0
    assert row(result, "nano").split()[:7] == ["nano", "9.3", "MB", "ready", "ships", "with", "masklet"]
    assert row(result, "sam2.1-tiny").split()[1:6] == ["156.0", "MB", "not", "downloaded", "dl.fbaipublicfiles.com"]
    assert row(result, "sam2.0-tiny").split()[1:4] == ["unknown", "not", "downloaded"]
    assert f"Downloads are kept in {cache}" in result.stdout
    assert "No checksum is known for sam2.0-tiny" in result.stdout
    assert run("models", "download", "ours").exit_code == 0
    assert row(run("models", "list"), "ours").split()[1:5] == ["7.0", "kB", "ready", "downloaded"]


@pytest.mark.usefixtures("ours")
def test_download_then_verify(cache: Path) -> None:
    result = run("models", "download", "ours", "unsure", "nano")
    assert result.exit_code == 0
    assert (cache / "ours.pt").read_bytes() == CONTENT
    assert f"ours: downloaded and verified: {cache / 'ours.pt'}" in result.stdout
    assert "unsure: downloaded" in result.stdout
    assert "no checksum is known for it" in result.stdout
    assert "nano: ships with masklet, nothing to download" in result.stdout
    assert "ours: is here already" in run("models", "download", "ours").stdout
    verified = run("models", "verify")
    assert verified.exit_code == 0
    assert verified.stdout.splitlines() == [
        "nano: ok",
        "ours: ok",
        "unsure: is here, but cannot be verified: no checksum is known for it",
    ]


@pytest.mark.usefixtures("ours")
def test_a_failing_download_exits_1_and_says_why() -> None:
    result = run("models", "download", "lost")
    assert result.exit_code == 1
    assert "lost cannot be downloaded" in result.stderr
    assert "the server answers 404" in result.stderr


@pytest.mark.usefixtures("ours")
def test_verify_exits_1_and_still_looks_at_the_rest(cache: Path) -> None:
    run("models", "download", "ours")
    (cache / "ours.pt").write_bytes(CONTENT.replace(b"w", b"W"))
    result = run("models", "verify", "ours", "nano")
    assert result.exit_code == 1
    assert "delete it and run: masklet models download ours" in result.stderr
    assert "nano: ok" in result.stdout
    missing = run("models", "verify", "lost")
    assert missing.exit_code == 1
    assert "masklet models download lost" in missing.stderr


@pytest.mark.parametrize("arguments", [("download", "nono"), ("verify", "nono"), ("download", "hub:nothing")])
def test_an_unknown_model_is_a_usage_error(arguments: tuple[str, ...]) -> None:
    result = run("models", *arguments)
    assert result.exit_code == 2
    assert "masklet models: " in result.stderr


def test_no_model_is_a_usage_error() -> None:
    assert run("models", "download").exit_code == 2


def test_doctor_finds_a_machine_that_runs_the_tests_able_to_serve() -> None:
    result = run("doctor")
    assert result.exit_code == 0, result.stdout
    for name in ("python", "torch", "device", "sam2", "av", "grpc", "nano", "downloads", "shared memory"):
        assert f"  {name}: " in result.stdout
    assert "A server can run here" in result.stdout


def test_doctor_exits_1_when_a_server_would_not_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "checkpoints"
    broken.mkdir()
    for file in paths.checkpoints_folder().iterdir():
        (broken / file.name).write_bytes(file.read_bytes()[:-1] + b"\n")
    monkeypatch.setattr(paths, "checkpoints_folder", lambda: broken)
    result = run("doctor")
    assert result.exit_code == 1
    assert "fail  nano: " in result.stdout
    assert "-> install masklet again" in result.stdout
    assert "a server cannot run here yet" in result.stdout


def test_doctor_warns_of_a_folder_for_downloads_that_cannot_be_written_to(cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    finding = next(finding for finding in check_models() if finding.name == "downloads")
    assert (finding.state, finding.fix) == ("warn", "set MASKLET_CACHE to a folder that can be written to")


def test_doctor_tells_what_was_measured_on_this_gpu(cache: Path) -> None:
    def tuning() -> str:
        with (
            mock.patch.object(device, "pick_device", return_value=torch.device("cuda:0")),
            mock.patch.object(device, "device_name", return_value="Card 1"),
            mock.patch.object(device, "has_fast_bfloat16", return_value=True),
        ):
            return next(finding.detail for finding in check_torch() if finding.name == "tuning")

    assert tuning() == "not measured yet; the first start of a server does"
    stored = StoredChoices(cache / "tuning")
    here = Circumstances(device="Card 1", driver="", torch="2", masklet="1", model="a", dtype="auto")
    stored.put(here.model_copy(update={"device": "Card 2"}), Choice("float16"))
    stored.put(here, Choice(graphs=True))
    assert tuning() == f"measured: {Choice(graphs=True)}"


def test_doctor_warns_of_a_busy_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        findings = {finding.name: finding for finding in check_grpc(other.getsockname()[1])}
    assert findings["grpc"].state == "ok"
    assert findings["port"].state == "warn"
    assert "masklet serve --address" in findings["port"].fix
