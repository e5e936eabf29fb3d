"""Processes that train together: what they share, and that together they do what one does alone."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from training.errors import TrainingError
from training.learning.team import Team

ROOT = Path(__file__).parents[3]
_MEMBER = """
import sys, torch
from torch import nn
from training.learning.team import Team
team = Team.join()
layer, unused = nn.Linear(2, 1), nn.Parameter(torch.zeros(1))
with torch.no_grad():
    layer.weight.fill_(1)
layer(torch.full((1, 2), float(team.rank))).sum().backward()
if team.leads:
    unused.sum().backward()
team.average_gradients([*layer.parameters(), unused])
print(team.size, team.share(8), layer.weight.grad.tolist(), unused.grad.tolist())
print(team.agree(team.leads), team.agree(False))
team.leave()
"""


def test_one_process_alone_is_a_team() -> None:
    team = Team()
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.sum().backward()  # type: ignore[no-untyped-call]
    team.average_gradients([parameter])
    assert parameter.grad is not None
    assert parameter.grad.tolist() == [1, 1]
    assert team.leads
    assert (team.agree(True), team.agree(False)) == (True, False)


def test_batches_that_cannot_be_shared_are_refused() -> None:
    assert Team(1, 3).share(6) == 2
    with pytest.raises(TrainingError, match="a batch of 7 cannot be shared by 3"):
        Team(1, 3).share(7)


@pytest.mark.slow
def test_two_processes_average_their_gradients_and_agree() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    environment = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    members = [
        subprocess.Popen(
            [sys.executable, "-c", _MEMBER],
            cwd=ROOT,
            env={**environment, "RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for member in members:
        output, _ = member.communicate(timeout=120)
        assert member.returncode == 0
        # Inputs were 0 and 1; only the first process had a gradient of the other parameter, and only it wished to stop.
        assert output.splitlines()[-2:] == ["2 4 [[0.5, 0.5]] [0.5]", "True False"]
