from __future__ import annotations

from benchmarks import sizes


def test_smaller_costs_less() -> None:
    names = ["nano@256", "nano@64"]
    large, small = sizes.measure(names, device="cpu", dtype="float32", objects=1, frames=2, rounds=2)
    assert [large.model, small.model] == names
    assert small.processor_milliseconds < large.processor_milliseconds
    assert small.encoder_milliseconds < large.encoder_milliseconds
    assert small.bank_bytes * 4 < large.bank_bytes < small.bank_bytes * 17
    columns = [column.header for column in sizes.table_of([large, small]).columns]
    assert columns[0] == "model"
    assert sizes.table_of([large, small]).row_count == 2
