"""What clients take of a shared amount."""

from __future__ import annotations

import threading

import pytest

from masklet.errors import ResourceExhausted
from masklet_server.budgets.budget import Bounds, Budget


def budget(total: int = 0, per_client: int = 0) -> tuple[Budget, list[str]]:
    refused: list[str] = []
    return Budget("max_things", "things", Bounds(total, per_client), refused.append), refused


def test_a_client_has_its_part() -> None:
    shared, refused = budget(100, 60)
    shared.take("a", 60)
    with pytest.raises(ResourceExhausted, match="max_things_per_client") as caught:
        shared.take("a", 1)
    assert caught.value.violations[0].field == "max_things_per_client"
    assert caught.value.retry_after_seconds == 5.0
    assert "of a would take more than the 60 bytes" in caught.value.message
    assert refused == ["max_things_per_client"]
    shared.take("b", 40)
    assert (shared.used, shared.used_by("a"), shared.used_by("b"), shared.clients) == (100, 60, 40, ["a", "b"])


def test_all_together_have_no_more_than_there_is() -> None:
    shared, refused = budget(100, 60)
    shared.take("a", 60)
    with pytest.raises(ResourceExhausted, match=r"the 100 bytes there are \(max_things\)"):
        shared.take("b", 41)
    assert refused == ["max_things"]
    shared.give_back("a", 30)
    shared.take("b", 41)
    assert shared.used == 71


def test_without_bounds_everything_is_counted_and_nothing_refused() -> None:
    shared, refused = budget()
    shared.take("a", 10**15)
    assert (shared.used, refused) == (10**15, [])


def test_a_client_that_has_given_everything_back_is_forgotten() -> None:
    shared, _ = budget()
    shared.take("a", 5)
    shared.give_back("a", 5)
    assert (shared.used, shared.clients) == (0, [])


def test_threads_take_and_give_back_at_once() -> None:
    shared, _ = budget(10**9)

    def work(client: str) -> None:
        for _ in range(2000):
            shared.take(client, 3)
            shared.give_back(client, 3)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert shared.used == 0
