"""A history remembers everything and holds little in memory; parity/test_on_request.py compares its masks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from masklet.errors import FailedPrecondition, InvalidArgument, ResourceExhausted
from masklet.prompts import Prompt
from masklet_server.engine.memory.history import History
from masklet_server.engine.memory.object_memory import MAX_CONDITIONING_FRAMES
from masklet_server.engine.memory.tensor_file import StoredTensors, TensorFile
from masklet_server.engine.network.network import Network
from masklet_server.engine.network.tensors import Features
from masklet_server.engine.serving.batch import run_jobs
from masklet_server.engine.serving.jobs import ClearPrompts, ConsolidatePrompts, FrameJob, FrameOutput
from masklet_server.engine.serving.recent_features import RecentFeatures
from masklet_server.engine.serving.step import Step, track
from tests.support.engine import (
    HEIGHT,
    WIDTH,
    backward,
    click,
    features,
    frame,
    job,
    new_bank,
    new_history,
    prompted,
    small_network,
    stream,
)


def history(max_bytes: int = 10**9) -> History:
    return new_history(TensorFile(max_bytes))


def on_request(
    memory: History,
    frame_index: int,
    *prompts: Prompt,
    track: bool = True,
    reverse: bool = False,
    network: Network | None = None,
) -> FrameOutput:
    """Run one job on one frame."""
    one: FrameJob = job(memory, frame_index, prompts)
    if reverse:
        one = backward(memory, frame_index)
    elif not track:
        (prompt,) = prompts
        one = prompted(memory, frame_index, prompt)
    return run_jobs(network or small_network(), [one])[0]


def seen(stop: int) -> History:
    """A history that was prompted on frame 0 and tracked up to `stop`."""
    memory = history()
    on_request(memory, 0, click())
    for index in range(1, stop):
        on_request(memory, index)
    return memory


def state(memory: History) -> dict[str, object]:
    """Everything that a history knows, with the bytes of every tensor."""
    kinds = {"conditioning": memory.conditioning, "recent": memory.recent}
    known: dict[str, object] = {
        f"{kind} {index} {name}": tensor.reshape(-1).view(torch.uint8).tolist()
        for kind, entries in kinds.items()
        for index, entry in entries.items()
        for name, tensor in entry.memory.tensors
    }
    for index in memory.prompted:
        prompted = memory.prompted_frame(index)
        known[f"prompted {index}"] = (prompted.is_conditioning, prompted.top.sum().item())
    known["clicks"] = {index: coords.tolist() for index, (coords, _) in memory.clicks.items()}
    known["tracked"] = dict(memory.tracked)
    return known


def test_in_memory_is_what_the_next_step_reads_in_either_direction() -> None:
    memory = seen(22)
    side, width = small_network().grid_size, small_network().model.mem_dim
    pointer = small_network().model.hidden_dim * 4 + 4 + 4
    features = width * side * side * 2
    clicks = 2 * 4 + 4
    assert memory.nbytes == 4 * features + 16 * pointer + clicks, "as much as a memory bank"
    on_request(memory, 21, reverse=True)
    assert memory.nbytes == 2 * features + 2 * pointer + clicks, "nothing was seen after it"
    on_request(memory, 10)
    assert memory.nbytes == 4 * features + 11 * pointer + clicks
    assert len(memory.recent) == 21


def test_holding_little_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare with a history that never moves anything to its file."""

    def play() -> list[np.ndarray]:
        memory, shown = seen(12), []
        for index in (4, 5, 6):
            shown.append(on_request(memory, index, reverse=False).objects[0].mask)
        shown.append(on_request(memory, 9, click(0, 9), track=False).prompts[0][0].mask)
        for index in (8, 7, 6, 5):
            shown.append(on_request(memory, index, reverse=True).objects[0].mask)
        return shown

    ours = play()
    monkeypatch.setattr(StoredTensors, "move_to_file", lambda self: None)
    for one, other in zip(ours, play(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_job_that_fails_leaves_it_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = seen(9)
    on_request(memory, 4, click(0, 4), track=False)
    before = state(memory)
    speck = np.zeros((10 * HEIGHT, 10 * WIDTH), np.bool_)
    speck[5, 5] = True
    bad = job(memory, 6, [click(0, 6), Prompt(1, 6, mask=speck)])
    large = replace(bad.frame, height=10 * HEIGHT, width=10 * WIDTH)
    with pytest.raises(InvalidArgument, match="too small"):
        run_jobs(small_network(), [replace(bad, frame=large)])
    assert state(memory) == before
    monkeypatch.setattr("masklet_server.engine.memory.history.History.advance", _fail)
    with pytest.raises(RuntimeError, match="half-way"):
        on_request(memory, 5)
    assert state(memory) == before
    monkeypatch.undo()
    on_request(memory, 5)
    assert memory.nbytes < 12 * memory.conditioning[0].memory.features.nbytes  # type: ignore[union-attr]


def _fail(self: History, frame_index: int, *, reverse: bool) -> None:
    raise RuntimeError("half-way")


def test_a_full_file_fails_the_step_and_nothing_else() -> None:
    memory = history(max_bytes=300_000)
    on_request(memory, 0, click())
    index = 0
    with pytest.raises(ResourceExhausted, match="max_history_bytes"):  # noqa: PT012 - which frame it is does not matter
        for index in range(1, 100):
            on_request(memory, index)
    assert 3 < index < 60
    assert not memory.was_tracked(index)
    assert memory.was_tracked(index - 1)
    del memory.recent[2], memory.recent[3]
    on_request(memory, index)


def test_clearing_makes_a_prompted_frame_a_tracked_one() -> None:
    memory = seen(5)
    output = run_jobs(small_network(), [_clearing(memory, 0)])[0]
    assert output.objects == []
    assert output.prompts[0][0].mask.any()
    assert memory.conditioning_frames == set()
    assert not memory.was_tracked(0)
    assert memory.was_tracked(1)
    with pytest.raises(FailedPrecondition, match="the object has no prompt"):
        on_request(memory, 5)
    with pytest.raises(FailedPrecondition, match=r"frame 3 was tracked.*are cleared"):
        on_request(memory, 3, click(0, 3), track=False)
    on_request(memory, 0, click())
    assert memory.conditioning_frames == {0}


def test_clearing_where_nothing_is_left() -> None:
    memory = history()
    on_request(memory, 3, click(0, 3), track=False)
    assert memory.conditioning_frames == {3}
    shown = run_jobs(small_network(), [_clearing(memory, 3)])[0].prompts[0][0]
    assert not shown.mask.any()
    assert (shown.object_score, shown.predicted_iou) == (-1024.0, 0.0)
    assert memory.prompted == {}


def _clearing(memory: History, frame_index: int) -> ClearPrompts:
    return ClearPrompts(stream(), frame(frame_index), memory)


def test_memories_of_prompts_can_be_made_without_tracking() -> None:
    memory = history()
    on_request(memory, 3, click(0, 3), track=False)
    assert list(memory.prompted) == [3]
    run_jobs(small_network(), [ConsolidatePrompts(stream(), [memory])])
    assert (memory.prompted, list(memory.conditioning)) == ({}, [3])


def test_conditioning_frames_have_a_bound() -> None:
    memory = history()
    for index in range(MAX_CONDITIONING_FRAMES):
        on_request(memory, index, click(0, 0), track=False)
    on_request(memory, 5, click(0, 0), track=False)
    with pytest.raises(ResourceExhausted, match="prompts on 32 frames"):
        on_request(memory, 60, click(0, 0), track=False)
    assert memory.conditioning_frames == set(range(MAX_CONDITIONING_FRAMES))
    one = memory.prompted[0].memory.small.get()["pointer"].nbytes
    assert memory.nbytes < 2000 + one, "frames that are not consolidated move to the file too"


def test_only_a_history_goes_backward_and_takes_prompts_back() -> None:
    bank = new_bank()
    run_jobs(small_network(), [job(bank, 0, [click()])])
    with pytest.raises(FailedPrecondition, match="forward in time only"):
        track(small_network(), [Step(bank, features(1), 1, reverse=True)])
    with pytest.raises(FailedPrecondition, match="takes no prompt back"):
        run_jobs(small_network(), [ClearPrompts(stream(), frame(0), bank)])  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_prompt_that_lies_ahead_has_no_pointer_to_give(dtype: torch.dtype) -> None:
    memory, network = history(), small_network(dtype)
    on_request(memory, 9, click(0, 9), track=False, network=network)
    output = on_request(memory, 2, network=network)
    assert memory.pointers_before(2) == []
    assert len(memory.memories_before(2)) == 1
    assert np.isfinite(output.objects[0].predicted_iou)


def test_histories_and_banks_share_a_batch() -> None:
    """A job's masks do not depend on its batch, even if time runs backward in one of the jobs."""

    def forward_and_back(together: bool) -> list[FrameOutput]:
        bank, memory = new_bank(), history()
        run_jobs(small_network(), [job(bank, 0, [click()])])
        on_request(memory, 8, click(0, 8))
        outputs: list[FrameOutput] = []
        for step in range(1, 8):
            jobs = [job(bank, step, name="a"), backward(memory, 8 - step, name="b")]
            if together:
                outputs += run_jobs(small_network(), jobs)
            else:
                outputs += [run_jobs(small_network(), [one])[0] for one in jobs]
        return outputs

    for one, other in zip(forward_and_back(True), forward_and_back(False), strict=True):
        assert (one.objects[0].mask == other.objects[0].mask).mean() > 0.999


def test_clicks_on_the_frame_looked_at_last_cost_no_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = []
    encode = Network.encode_pixels

    def counted(self: Network, pictures: torch.Tensor) -> list[Features]:
        encoded.append(len(pictures))
        return encode(self, pictures)

    monkeypatch.setattr(Network, "encode_pixels", counted)
    last, memory = RecentFeatures(), history()
    clicked = replace(prompted(memory, 3, click(0, 3)), stream=stream(recent=last))
    run_jobs(small_network(), [clicked])
    run_jobs(small_network(), [clicked, job(new_bank(), 0, [click()])])
    assert encoded == [1, 1], "the second time that of the other stream"
    known = last.get(3)
    assert known is not None
    assert torch.equal(known.features.top, features(3).top)
    next_frame = replace(clicked, frame=frame(4))
    run_jobs(small_network(), [next_frame, job(new_bank(), 0, [click()])])
    assert encoded[-1] == 2
    assert last.get(3) is None
    beside = last.get(4)
    assert beside is not None
    assert beside.features.top.untyped_storage().nbytes() == beside.features.top.nbytes, (
        "features of the other stream stay in memory"
    )
