"""Several processes that train one model together: each takes a part of every batch, and gradients are averaged.

    torchrun --nproc-per-node 2 -m training.train --config FILE

On cores that others use as well this can be much quicker than as many threads of one process: threads wait for each
other after every operation, processes once a step.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import distributed, nn

from training.errors import TrainingError


@dataclass(frozen=True)
class Team:
    """The processes of one run.

    Attributes:
        rank: The number of this one; 0 writes log and checkpoints.
        size: How many there are.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls) -> Team:
        """The team that torchrun started, or this process alone."""
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1:
            return cls()
        distributed.init_process_group("gloo")
        return cls(distributed.get_rank(), size)

    def leave(self) -> None:
        """Part from the others, at the end."""
        if self.size > 1:
            distributed.destroy_process_group()

    @property
    def leads(self) -> bool:
        """Whether this process writes what is written once."""
        return self.rank == 0

    def share(self, batch: int) -> int:
        """How many clips of a batch are one process's.

        Raises:
            TrainingError: They cannot be shared evenly.
        """
        if batch % self.size:
            raise TrainingError(f"a batch of {batch} cannot be shared by {self.size} processes")
        return batch // self.size

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Put the mean over all processes in place of each one's gradients; one that has none counts as 0."""
        if self.size == 1:
            return
        learning = [parameter for parameter in parameters if parameter.requires_grad]
        parts = [torch.zeros_like(one) if one.grad is None else one.grad for one in learning]
        every = torch.cat([part.reshape(-1) for part in parts])
        distributed.all_reduce(every)
        every /= self.size
        means = torch.split(every, [part.numel() for part in parts])
        for one, mean in zip(learning, means, strict=True):
            one.grad = mean.view_as(one)

    def agree(self, wish: bool) -> bool:
        """Whether any of the processes wishes so."""
        if self.size == 1:
            return wish
        wishes = torch.tensor([int(wish)])
        distributed.all_reduce(wishes, distributed.ReduceOp.MAX)
        return bool(wishes.item())
