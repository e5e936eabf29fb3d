from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from masklet.errors import DataLoss, FailedPrecondition, InvalidArgument, NotFound, Unavailable
from masklet_server.models import paths, transfer
from masklet_server.models.download import download, sources, verify
from masklet_server.models.registry import ModelSpec, Registry

CONTENT = bytes(range(256)) * 4096
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Behaviour:
    """What the server does, and which requests it got."""

    files: dict[str, bytes] = field(default_factory=lambda: {"/model.pt": CONTENT})
    ignores_range: bool = False
    cut_after: list[int] = field(default_factory=list)  # bytes sent before the connection is cut, one for each request
    statuses: list[int] = field(default_factory=list)  # answered to the first requests instead of the file
    commit: str = "0123456789012345678901234567890123456789"
    ranges: list[str | None] = field(default_factory=list)
    requests: Counter[str] = field(default_factory=Counter)


class Handler(BaseHTTPRequestHandler):
    behaviour: Behaviour

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, *, with_body: bool) -> None:
        asked = self.behaviour
        asked.requests[f"{self.command} {self.path}"] += 1
        content = asked.files.get(self.path)
        if asked.statuses or content is None:
            self.send_response(asked.statuses.pop(0) if asked.statuses else 404)
            if self.path.startswith("/api/models/"):
                self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        wanted = self.headers["Range"]
        if with_body:
            asked.ranges.append(wanted)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and not asked.ignores_range else 0
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", asked.commit)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if with_body:
            end = asked.cut_after.pop(0) if asked.cut_after else len(content)
            self.wfile.write(content[start : start + end])
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def behaviour() -> Behaviour:
    return Behaviour()


@pytest.fixture
def address(behaviour: Behaviour, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(transfer, "FIRST_PAUSE_SECONDS", 0.001)
    handler = type("BoundHandler", (Handler,), {"behaviour": behaviour})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("MASKLET_CACHE", str(folder))
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    return folder


@pytest.fixture
def spec(address: str) -> ModelSpec:
    return ModelSpec(
        "mine", "mine.yaml", "mine.pt", url=f"{address}/model.pt", bytes=len(CONTENT), sha256=SHA256, image_size=64
    )


def test_download_puts_the_verified_file_into_the_cache(spec: ModelSpec, cache: Path) -> None:
    seen: list[tuple[int, int]] = []
    path = download(spec, progress=lambda done, total: seen.append((done, total)))
    assert path == cache / "mine.pt"
    assert path.read_bytes() == CONTENT
    assert verify(spec) is True
    assert seen[0] == (0, len(CONTENT))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert seen == sorted(seen)
    assert not list(cache.glob("*.part"))


def test_download_fetches_nothing_that_is_here(spec: ModelSpec, behaviour: Behaviour) -> None:
    download(spec)
    download(spec)
    assert behaviour.requests.total() == 1


def test_download_replaces_a_file_of_the_wrong_size(spec: ModelSpec, cache: Path) -> None:
    cache.mkdir()
    (cache / "mine.pt").write_bytes(CONTENT[:1000])
    assert download(spec).read_bytes() == CONTENT


def test_a_cut_connection_is_resumed_within_the_call(spec: ModelSpec, behaviour: Behaviour) -> None:
    behaviour.cut_after = [300_000, 200_000]
    assert download(spec).read_bytes() == CONTENT
    assert behaviour.ranges == [None, "bytes=300000-", "bytes=500000-"]


def test_a_part_of_an_earlier_call_is_resumed(spec: ModelSpec, behaviour: Behaviour, cache: Path) -> None:
    cache.mkdir()
    (cache / "mine.pt.part").write_bytes(CONTENT[:700_000])
    assert download(spec).read_bytes() == CONTENT
    assert behaviour.ranges == ["bytes=700000-"]


def test_a_whole_part_needs_no_request(spec: ModelSpec, behaviour: Behaviour, cache: Path) -> None:
    cache.mkdir()
    (cache / "mine.pt.part").write_bytes(CONTENT)
    assert download(spec).read_bytes() == CONTENT
    assert behaviour.requests.total() == 0


def test_a_part_that_is_too_long_is_thrown_away(spec: ModelSpec, cache: Path) -> None:
    cache.mkdir()
    (cache / "mine.pt.part").write_bytes(CONTENT + b"more")
    assert download(spec).read_bytes() == CONTENT


def test_a_server_that_ignores_ranges_sends_it_all_again(spec: ModelSpec, behaviour: Behaviour) -> None:
    behaviour.ignores_range = True
    behaviour.cut_after = [300_000]
    assert download(spec).read_bytes() == CONTENT
    assert behaviour.ranges == [None, "bytes=300000-"]


def test_without_a_checksum_nothing_is_resumed_from_an_earlier_call(
    spec: ModelSpec, behaviour: Behaviour, cache: Path
) -> None:
    unknown = replace(spec, sha256="", bytes=0)
    cache.mkdir()
    (cache / "mine.pt.part").write_bytes(b"of another version")
    behaviour.cut_after = [300_000]
    assert download(unknown).read_bytes() == CONTENT
    assert behaviour.ranges == [None, "bytes=300000-"]
    assert verify(unknown) is False


def test_a_wrong_checksum_is_data_loss_and_leaves_nothing(spec: ModelSpec, behaviour: Behaviour, cache: Path) -> None:
    behaviour.files["/model.pt"] = CONTENT[:-1] + b"?"
    with pytest.raises(DataLoss, match=f"mine needs {SHA256}; it has been deleted; try again"):
        download(spec)
    assert [path.name for path in cache.iterdir()] == [".mine.pt.lock"]


def test_a_file_of_another_size_is_refused_before_it_is_fetched(spec: ModelSpec, behaviour: Behaviour) -> None:
    behaviour.files["/model.pt"] = b"<html>Please sign in</html>"
    with pytest.raises(DataLoss, match="has 27 bytes instead of 1,048,576"):
        download(spec)


def test_404_is_unavailable_at_once(spec: ModelSpec, behaviour: Behaviour) -> None:
    behaviour.files.clear()
    with pytest.raises(Unavailable, match=r"mine cannot be downloaded: http://\S+/model.pt: the server answers 404"):
        download(spec)
    assert behaviour.requests.total() == 1


def test_a_busy_server_is_asked_again(spec: ModelSpec, behaviour: Behaviour) -> None:
    behaviour.statuses = [503, 500]
    assert download(spec).read_bytes() == CONTENT
    assert behaviour.requests.total() == 3


def test_a_server_that_stays_broken_is_given_up(spec: ModelSpec, behaviour: Behaviour) -> None:
    behaviour.statuses = [500] * 100
    with pytest.raises(Unavailable, match="the server answers 500"):
        download(spec)
    assert behaviour.requests.total() == transfer.ATTEMPTS


def test_no_server_is_unavailable(spec: ModelSpec) -> None:
    with pytest.raises(Unavailable, match="refused"):
        download(replace(spec, url="http://127.0.0.1:9/model.pt"))


def test_the_hub_is_asked_where_the_first_address_fails(
    spec: ModelSpec, behaviour: Behaviour, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", address)
    behaviour.files = {"/us/ours/resolve/main/mine.pt": CONTENT}
    both = replace(spec, hub="us/ours")
    assert sources(both) == (f"{address}/model.pt", f"{address}/us/ours/resolve/main/mine.pt")
    assert download(both).read_bytes() == CONTENT


def test_concurrent_downloads_fetch_once(spec: ModelSpec, behaviour: Behaviour) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: download(spec).read_bytes() == CONTENT, range(4)))
    assert found == [True] * 4
    assert behaviour.requests.total() == 1


def test_a_cache_that_cannot_be_made_says_what_to_set(spec: ModelSpec, cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    with pytest.raises(FailedPrecondition, match=r"cannot write to the cache folder .* set MASKLET_CACHE"):
        download(spec)


def test_what_ships_or_is_the_users_own_is_never_fetched(tmp_path: Path) -> None:
    assert download(Registry.load().get("nano")).is_file()
    own = ModelSpec("own", "own.yaml", str(tmp_path / "own.pt"))
    assert download(own) == tmp_path / "own.pt"


def test_nano_is_the_file_that_the_registry_describes() -> None:
    assert verify(Registry.load().get("nano")) is True


def test_verify_notices_a_flipped_bit_and_keeps_the_file(spec: ModelSpec) -> None:
    path = download(spec)
    path.write_bytes(b"?" + CONTENT[1:])
    with pytest.raises(DataLoss, match="delete it and run: masklet models download mine"):
        verify(spec)
    assert path.exists()


def test_verify_of_what_is_not_here_names_the_command(spec: ModelSpec) -> None:
    with pytest.raises(FailedPrecondition, match="masklet models download mine"):
        verify(spec)


@pytest.fixture
def hub(behaviour: Behaviour, address: str, monkeypatch: pytest.MonkeyPatch) -> Behaviour:
    """A Hugging Face hub with one repository, us/ours."""
    files = {"model.yaml": b"model: {}\n", "weights.pt": CONTENT, "README.md": b"# not wanted\n"}
    listing = {"id": "us/ours", "sha": behaviour.commit, "siblings": [{"rfilename": name} for name in files]}
    tree = [
        {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
        for name, data in files.items()
    ]
    behaviour.files = {
        "/api/models/us/ours/revision/main": json.dumps(listing).encode(),
        f"/api/models/us/ours/tree/{behaviour.commit}?recursive=true&expand=false": json.dumps(tree).encode(),
        **{f"/us/ours/resolve/{behaviour.commit}/{name}": data for name, data in files.items()},
    }
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    return behaviour


@pytest.mark.usefixtures("hub")
def test_a_repository_of_the_hub_is_fetched_whole(cache: Path) -> None:
    spec = Registry.load().resolve("hub:us/ours")
    with pytest.raises(FailedPrecondition, match="masklet models download hub:us/ours"):
        spec.checkpoint_path()
    assert download(spec) == cache / "hub" / "us--ours" / "weights.pt"
    assert spec.checkpoint_path().read_bytes() == CONTENT
    assert spec.config_path().read_bytes() == b"model: {}\n"
    assert not (paths.repository_folder("us/ours") / "README.md").exists()


def test_a_repository_with_two_checkpoints_asks_for_names(hub: Behaviour, cache: Path) -> None:
    folder = cache / "hub" / "us--ours"
    folder.mkdir(parents=True)
    for name in ("a.pt", "b.pt"):
        (folder / name).touch()
    with pytest.raises(InvalidArgument, match=r"exactly one file .* found: a\.pt, b\.pt"):
        download(Registry.load().resolve("hub:us/ours"))
    assert hub.requests.total() == 0


@pytest.mark.usefixtures("hub")
def test_a_repository_that_does_not_exist_is_not_found() -> None:
    with pytest.raises(NotFound, match="Hugging Face has no repository us/nothing, or it needs a token"):
        download(Registry.load().resolve("hub:us/nothing"))
