"""What the objects of one session take of the memory for banks."""

from __future__ import annotations

import pytest

from masklet.errors import ResourceExhausted
from masklet_server.budgets.bank_memory import BankMemory
from masklet_server.budgets.budget import Bounds, Budget, Share
from masklet_server.budgets.shares import BudgetLimits
from masklet_server.engine.memory.sizes import MemorySizes

SIZES = MemorySizes(stream=100, tracked_object=10, conditioning_frame=3)


def memory(total: int = 0, per_client: int = 0) -> tuple[BankMemory, Budget]:
    budget = Budget("max_bank_memory_bytes", "memories of objects", Bounds(total, per_client))
    return BankMemory(Share(budget, "a"), SIZES), budget


def test_an_object_is_counted_with_all_that_tracking_it_takes() -> None:
    banks, budget = memory()
    banks.admit({1: 1})
    assert budget.used_by("a") == 113
    banks.admit({1: 1, 2: 4})
    assert budget.used == banks.nbytes == 100 + 13 + 22


def test_an_object_without_a_conditioning_frame_will_have_one() -> None:
    banks, _ = memory()
    banks.admit({1: 0})
    assert banks.nbytes == 113


def test_without_objects_nothing_is_counted() -> None:
    banks, budget = memory()
    banks.admit({})
    assert budget.used == 0


def test_what_is_too_much_changes_nothing() -> None:
    banks, budget = memory(total=120, per_client=115)
    banks.admit({1: 1})
    with pytest.raises(ResourceExhausted, match=r"max_bank_memory_bytes_per_client.*try again"):
        banks.admit({1: 2})
    assert budget.used == banks.nbytes == 113
    budget.take("b", 6)
    budget.bounds = Bounds(total=120)
    with pytest.raises(ResourceExhausted, match=r"the 120 bytes there are \(max_bank_memory_bytes\)"):
        banks.admit({1: 1, 2: 1})


def test_what_is_not_needed_is_given_back() -> None:
    banks, budget = memory()
    banks.admit({1: 2, 2: 1})
    banks.settle({2: 1})
    assert budget.used == 113
    banks.settle({2: 1, 3: 1})  # only `admit` takes more
    assert budget.used == 113
    banks.close()
    banks.close()
    assert budget.used == 0
    banks.admit({1: 1})  # too late: the session has ended
    assert budget.used == 0


def test_the_default_is_a_part_of_the_device() -> None:
    assert BudgetLimits().resolved(device_bytes=8000).bank_memory == Bounds(1000, 500)
    machine = BudgetLimits().resolved()
    assert machine.bank_memory == machine.correction_memory
    assert BudgetLimits(bank_memory=Bounds(70, 900)).resolved(8000).bank_memory == Bounds(70, 70)
