"""How fast this version of masklet is against another one, end to end: from a video file to masks in the client.

    git worktree add ../before COMMIT && ../before/scripts/install
    python -m benchmarks.versions --before ../before [--rounds 5] [--json FILE]

Each version has a server with nano and a client, in processes of their own. The versions take turns,
so that a machine that gets busy or quiet does so for both. In a round each stream tracks the example clip (720p H.264,
132 frames) once. Figures are medians over rounds; the first round of each case warms up and does not count.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parents[1]
CLIP = HERE / "examples" / "bunny.mp4"
# Objects and streams of each case.
CASES = ((1, 1), (4, 1), (1, 8))

# Runs in each version's own Python: only what both versions of the client have.
_CLIENT = """
import json, sys, time
from concurrent.futures import ThreadPoolExecutor
import masklet

address, clip, objects, streams = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
clicks = [(345, 400), (130, 450), (640, 300), (900, 500)]

def track(client):
    prompts = [masklet.Prompt(i + 1, 0, point_coords=[clicks[i]], point_labels=[1]) for i in range(objects)]
    count = 0
    for frame in client.track(clip, prompts):
        assert all(found.mask.shape == (720, 1280) for found in frame.objects.values())
        count += 1
    return count

with masklet.Client(address) as client, ThreadPoolExecutor(streams) as pool:
    start = time.perf_counter()
    frames = sum(pool.map(track, [client] * streams))
    print(json.dumps(frames / (time.perf_counter() - start)))
"""


class BenchmarkError(Exception):
    """A version cannot be measured."""


@dataclass(frozen=True)
class Version:
    """A checkout of masklet with its own `.venv`.

    Attributes:
        root: Its folder.
    """

    root: Path

    @property
    def commit(self) -> str:
        """What is checked out, short."""
        done = subprocess.run(
            ["git", "-C", self.root, "describe", "--always", "--dirty"], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    @property
    def environment(self) -> dict[str, str]:
        """What its programs are started with: they import this checkout, wherever its `.venv` has another one."""
        folders = (self.root, self.root / "client", self.root / "server")
        return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))}

    def program(self, name: str) -> str:
        """A program of its environment.

        Raises:
            BenchmarkError: It is not installed.
        """
        program = self.root / ".venv" / "bin" / name
        if not program.exists():
            raise BenchmarkError(f"{program} is missing; run {self.root / 'scripts' / 'install'} first")
        return str(program)

    @contextlib.contextmanager
    def serving(self, folder: Path) -> Iterator[str]:
        """A server of this version in a process of its own; its address.

        Raises:
            BenchmarkError: It does not start.
        """
        address = f"unix:{folder}/server.sock"
        command = [self.program("masklet"), "serve", "--address", address, "--model", "nano", "--device", "cpu"]
        with (
            (folder / "log").open("w") as log,
            subprocess.Popen(command, cwd=self.root, env=self.environment, stdout=log, stderr=log) as server,
        ):
            try:
                probe = [self.program("python"), "-m", "masklet_server.healthcheck", address]
                for _ in range(120):
                    if (
                        subprocess.run(
                            probe, cwd=self.root, env=self.environment, capture_output=True, check=False
                        ).returncode
                        == 0
                    ):
                        break
                    if server.poll() is not None:
                        raise BenchmarkError(f"{self.root}: the server ended: {(folder / 'log').read_text()}")
                else:
                    raise BenchmarkError(f"{self.root}: the server does not answer")
                yield address
            finally:
                server.terminate()

    def frames_per_second(self, address: str, objects: int, streams: int) -> float:
        """One round of a case, by this version's client: frames of all streams together.

        Raises:
            BenchmarkError: The client fails.
        """
        command = [self.program("python"), "-c", _CLIENT, address, str(CLIP), str(objects), str(streams)]
        done = subprocess.run(command, cwd=self.root, env=self.environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchmarkError(f"{self.root}: {done.stderr}")
        return float(json.loads(done.stdout))


def measure(versions: tuple[Version, Version], rounds: int) -> list[dict[str, Any]]:
    """Frames per second of both versions in each case, and the ratio of the second to the first."""
    with contextlib.ExitStack() as stack:
        folders = [Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in versions]
        addresses = [
            stack.enter_context(version.serving(folder)) for version, folder in zip(versions, folders, strict=True)
        ]
        rows = []
        for objects, streams in CASES:
            taken: tuple[list[float], list[float]] = ([], [])
            for number in range(rounds + 1):
                print(f"{objects} objects, {streams} streams, round {number} of {rounds} ...", file=sys.stderr)
                for version, address, figures in zip(versions, addresses, taken, strict=True):
                    figures.append(version.frames_per_second(address, objects, streams))
            before, after = (statistics.median(figures[1:]) for figures in taken)
            ratios = [b / a for a, b in zip(taken[0][1:], taken[1][1:], strict=True)]
            rows.append(
                {
                    "objects": objects,
                    "streams": streams,
                    "before": before,
                    "after": after,
                    "ratio": after / before,
                    "least": min(ratios),
                    "greatest": max(ratios),
                }
            )
    return rows


def main(
    before: Annotated[Path, typer.Option(metavar="DIR", help="A checkout of the other version, with its .venv.")],
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each case that count.")] = 5,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the figures here.")] = None,
) -> None:
    """Measure this version of masklet against another one."""
    versions = (Version(before.resolve()), Version(HERE))
    try:
        rows = measure(versions, rounds)
    except BenchmarkError as error:
        print(f"benchmarks.versions: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    names = [version.commit for version in versions]
    table = Table(title=f"frames/s end to end, nano: {names[0]} against {names[1]}", box=None)
    for heading in ("objects", "streams", "before", "after", "ratio", "ratios of rounds"):
        table.add_column(heading, justify="right")
    for row in rows:
        figures = [f"{row[key]:.1f}" for key in ("before", "after")]
        table.add_row(
            str(row["objects"]),
            str(row["streams"]),
            *figures,
            f"{row['ratio']:.2f}",
            f"{row['least']:.2f} to {row['greatest']:.2f}",
        )
    Console().print(table)
    if json_file is not None:
        json_file.write_text(json.dumps({"versions": names, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
