"""How good the masks are: J, F and J&F on DAVIS, IoU on pictures, through a real server over gRPC.

    python -m benchmarks.quality --davis DIR[:a,b]... [--sequences a,b] [--prompt mask|point] [--model NAME]...
        [--memory-policy sam2|distractor_aware|motion_aware]... [--json FILE]
    python -m benchmarks.quality --pictures DIR [--listed FILE] [--model NAME]... [--json FILE]

DIR holds ``JPEGImages/SEQUENCE/*.jpg`` and ``Annotations/SEQUENCE/*.png``, or ``SEQUENCE/frames/*.jpg`` and
``SEQUENCE/masks/*.png``; it may be repeated, and after a colon come the sequences that are taken of it. As in DAVIS's
semi-supervised task the objects are those of the first frame, its annotation is the prompt, the first and the last
frame do not count, where masks overlap the object of the lower number gets the pixel, a figure of an object is its mean
over frames, one of a sequence the mean over its objects, and the mean at the end is over all objects of all sequences.
Milliseconds a frame are those of the whole way, all objects together. Models and memory policies take turns sequence by
sequence, so that a machine that gets busy or quiet does so for all of them.

Of pictures, DIR holds ``images/*.jpg`` and label maps ``masks/*.png``. Each object of at least three thousandths of its
picture is segmented from one click at its most interior point and from its box; the mean is over objects.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

import masklet
from benchmarks._davis import (
    BoolArray,
    DavisError,
    LabelArray,
    Sequence,
    boundary_f,
    interior_point,
    jaccard,
    load_sequences,
    read_labels,
)
from benchmarks._pictures import PictureScore, listed, load_pictures, score_picture
from masklet_server.embedded import EmbeddedServer


class PolicyName(str, Enum):
    """What an object's memory keeps."""

    sam2 = "sam2"
    distractor_aware = "distractor_aware"
    motion_aware = "motion_aware"


class PromptKind(str, Enum):
    """What is said of each object on the first frame."""

    mask = "mask"
    point = "point"


@dataclass(frozen=True)
class ObjectScore:
    """One object's means over the frames that count."""

    object_id: int
    j: float
    f: float

    @property
    def jf(self) -> float:
        """The mean of J and F."""
        return (self.j + self.f) / 2


@dataclass(frozen=True)
class SequenceScore:
    """One sequence's objects, and how long it took."""

    name: str
    objects: tuple[ObjectScore, ...]
    frame_count: int
    seconds: float


def score_sequence(
    client: masklet.Client, sequence: Sequence, kind: PromptKind, policy: PolicyName = PolicyName.sam2
) -> SequenceScore:
    """Track the objects of the first frame through a sequence and compare each frame with its annotation.

    Raises:
        MaskletError: The server reports a fault.
        DavisError: The server sends another number of frames than there are annotations.
    """
    first = read_labels(sequence.annotations[0])
    ids = sequence.object_ids
    prompts = [prompt_for(object_id, first == object_id, kind) for object_id in ids]
    per_frame: dict[int, list[tuple[float, float]]] = {object_id: [] for object_id in ids}
    last = len(sequence.annotations) - 1
    count, waited = 0, 0.0
    start = time.perf_counter()
    for result in client.track(sequence.pictures, prompts, memory_policy=policy.value):
        count += 1
        if 0 < result.frame_index < last:
            scoring = time.perf_counter()
            truth = read_labels(sequence.annotations[result.frame_index])
            labels = label_map({i: result.objects[i].mask for i in ids}, truth.shape)
            for object_id in ids:
                per_frame[object_id].append(score_mask(truth == object_id, labels == object_id))
            waited += time.perf_counter() - scoring
    if count != last + 1:
        raise DavisError(f"{sequence.name}: {count} frames came back for {last + 1} pictures")
    objects = tuple(ObjectScore(i, *(float(value) for value in np.mean(per_frame[i], axis=0))) for i in ids)
    return SequenceScore(sequence.name, objects, count, time.perf_counter() - start - waited)


def prompt_for(object_id: int, mask: BoolArray, kind: PromptKind) -> masklet.Prompt:
    """The mask itself, or one click at its most interior point."""
    if kind is PromptKind.mask:
        return masklet.Prompt(object_id=object_id, mask=mask)
    return masklet.Prompt(object_id=object_id, point_coords=[interior_point(mask)])


def label_map(masks: dict[int, BoolArray], shape: tuple[int, ...]) -> LabelArray:
    """``uint8[H, W]`` of objects' numbers, the lower one where masks overlap, as SAM 2's own DAVIS script has it."""
    labels = np.zeros(shape, np.uint8)
    for object_id in sorted(masks, reverse=True):
        labels[masks[object_id]] = object_id
    return labels


def score_mask(truth: BoolArray, mask: BoolArray) -> tuple[float, float]:
    """J and F of one mask."""
    return jaccard(truth, mask), boundary_f(truth, mask)


def report(
    scores: list[SequenceScore],
    *,
    model: str,
    kind: PromptKind,
    policy: PolicyName = PolicyName.sam2,
    device: str = "",
    dtype: str = "",
) -> dict[str, Any]:
    """Everything that was measured, and how, ready for JSON."""
    return {
        "model": model,
        "prompt": kind.value,
        "memory_policy": policy.value,
        "device": device,
        "dtype": dtype,
        "protocol": "DAVIS semi-supervised: first and last frame excluded, mean over objects",
        "sequences": {
            score.name: {
                **_means(score.objects),
                "frames": score.frame_count,
                "seconds": round(score.seconds, 3),
                "objects": {str(item.object_id): _means((item,)) for item in score.objects},
            }
            for score in scores
        },
        "mean": _means(tuple(item for score in scores for item in score.objects)),
        "milliseconds_per_frame": 1e3 * sum(s.seconds for s in scores) / sum(s.frame_count for s in scores),
    }


def _means(objects: tuple[ObjectScore, ...]) -> dict[str, float]:
    return {
        "J": float(np.mean([item.j for item in objects])),
        "F": float(np.mean([item.f for item in objects])),
        "J&F": float(np.mean([item.jf for item in objects])),
    }


def picture_report(scores: list[PictureScore], *, model: str, device: str = "", dtype: str = "") -> dict[str, Any]:
    """Everything that was measured on pictures, and how, ready for JSON."""
    return {
        "model": model,
        "device": device,
        "dtype": dtype,
        "pictures": len({score.name for score in scores}),
        "objects": len(scores),
        "mean": {key: float(np.mean([getattr(s, key) for s in scores])) for key in ("click", "best", "box")},
    }


def find_sequences(davis: list[str], names: list[str] | None) -> list[Sequence]:
    """The sequences of several folders.

    Args:
        davis: ``DIR`` or ``DIR:a,b``.
        names: Which ones of a folder that says nothing of it; all of them if None.

    Raises:
        DavisError: A folder is not laid out as it should be, or two sequences have the same name.
    """
    found: list[Sequence] = []
    for entry in davis:
        folder, _, chosen = entry.partition(":")
        found += load_sequences(Path(folder), chosen.split(",") if chosen else names)
    twice = [name for name, count in Counter(sequence.name for sequence in found).items() if count > 1]
    if twice:
        raise DavisError(f"two sequences are called {twice[0]}")
    return found


def _print(results: dict[str, Any]) -> None:
    table = Table(
        title=f"{results['model']} in {results['dtype']} on {results['device']}, first-frame {results['prompt']}, "
        f"memory {results['memory_policy']}",
        box=None,
    )
    for column in ("sequence", "J", "F", "J&F", "frames", "ms/frame"):
        table.add_column(column, justify="left" if column == "sequence" else "right")
    for name, row in results["sequences"].items():
        cost = 1e3 * row["seconds"] / row["frames"]
        table.add_row(name, *(f"{row[key]:.3f}" for key in ("J", "F", "J&F")), str(row["frames"]), f"{cost:.0f}")
    mean, cost = results["mean"], results["milliseconds_per_frame"]
    table.add_row("mean", *(f"{mean[key]:.3f}" for key in ("J", "F", "J&F")), "", f"{cost:.0f}", style="bold")
    Console().print(table)


def main(
    davis: Annotated[
        list[str] | None, typer.Option(metavar="DIR[:A,B,...]", help="Sequences with annotations; may be repeated.")
    ] = None,
    pictures: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder with images and masks, instead of sequences.")
    ] = None,
    listed_in: Annotated[
        Path | None, typer.Option("--listed", metavar="FILE", help="Only the pictures that this file names.")
    ] = None,
    sequences: Annotated[str, typer.Option(metavar="A,B,...", help="Only these sequences.")] = "",
    prompt: Annotated[PromptKind, typer.Option(help="What is said of each object.")] = PromptKind.mask,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="A name from `masklet models list`, or NAME=CHECKPOINT:CONFIG; may be repeated. By default nano."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    dtype: Annotated[str, typer.Option(help="float32 for equal figures each time, bfloat16 or auto.")] = "float32",
    memory_policy: Annotated[
        list[PolicyName] | None, typer.Option(help="What memories keep; may be repeated. By default sam2.")
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json", metavar="FILE", help="Write the figures here; a list, if of several models or policies."
        ),
    ] = None,
) -> None:
    """Measure J, F and J&F on DAVIS, or IoU on pictures, through a real server."""
    if (davis is None) == (pictures is None):
        raise typer.BadParameter("give either --davis or --pictures")
    models = list(dict.fromkeys(model or ["nano"]))
    try:
        with _serving(models, device, dtype) as served:
            if pictures is not None:
                results = _measure_pictures(served, pictures, listed_in)
            else:
                names = [name.strip() for name in sequences.split(",") if name.strip()] or None
                policies = list(dict.fromkeys(memory_policy or [PolicyName.sam2]))
                results = _measure_sequences(served, find_sequences(davis or [], names), prompt, policies)
    except (DavisError, masklet.MaskletError) as error:
        print(f"benchmarks.quality: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    if json_file is not None:
        json_file.write_text(json.dumps(results if len(results) > 1 else results[0], indent=2) + "\n")


@contextmanager
def _serving(models: list[str], device: str, dtype: str) -> Iterator[dict[str, masklet.Client]]:
    """A server for each model, and its client."""
    with ExitStack() as stack:
        clients = {}
        for model in models:
            address = stack.enter_context(EmbeddedServer(model=model, device=device, dtype=dtype))
            clients[model] = stack.enter_context(masklet.Client(address))
        yield clients


def _measure_sequences(
    served: dict[str, masklet.Client], found: list[Sequence], kind: PromptKind, policies: list[PolicyName]
) -> list[dict[str, Any]]:
    scores: dict[tuple[str, PolicyName], list[SequenceScore]] = defaultdict(list)
    for sequence in found:
        for model, client in served.items():
            for policy in policies:
                print(f"{sequence.name}, {model}, {policy.value} ...", file=sys.stderr)
                scores[model, policy].append(score_sequence(client, sequence, kind, policy))
    results = []
    for (model, policy), of_sequences in scores.items():
        info = served[model].info()
        how = {"device": info.device, "dtype": info.models[0].dtype}
        results.append(report(of_sequences, model=model, kind=kind, policy=policy, **how))
        _print(results[-1])
    return results


def _measure_pictures(served: dict[str, masklet.Client], root: Path, listed_in: Path | None) -> list[dict[str, Any]]:
    chosen = load_pictures(root, None if listed_in is None else listed(listed_in, root))
    results = []
    for model, client in served.items():
        info = client.info()
        scores = [score for picture in chosen for score in score_picture(client, picture)]
        if not scores:
            raise DavisError(f"no picture of {root} has an object that is large enough")
        one = picture_report(scores, model=model, device=info.device, dtype=info.models[0].dtype)
        print(
            f"{model} in {one['dtype']} on {one['device']}: {one['objects']} objects of {one['pictures']} pictures, "
            "IoU " + ", ".join(f"{key} {value:.3f}" for key, value in one["mean"].items())
        )
        results.append(one)
    return results


if __name__ == "__main__":
    typer.run(main)
