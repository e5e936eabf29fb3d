"""How much memory there is, by the control groups of either version."""

from __future__ import annotations

from pathlib import Path

import pytest

from masklet_server.budgets.machine import memory_bytes

MIB = 1024**2


@pytest.mark.parametrize(
    ("groups", "limits", "expected"),
    [
        ("0::/a/b", {"a/b/memory.max": "max", "a/memory.max": str(64 * MIB)}, 64 * MIB),
        ("0::/a/b", {"memory.max": str(32 * MIB), "a/memory.max": str(64 * MIB)}, 32 * MIB),
        ("0::/", {"memory.max": str(32 * MIB)}, 32 * MIB),
        ("0::/of/the/host", {"memory.max": str(32 * MIB)}, 32 * MIB),
        ("4:cpu:/x\n3:memory:/a", {"memory/a/memory.limit_in_bytes": str(16 * MIB)}, 16 * MIB),
        ("3:memory:/a", {"memory/memory.limit_in_bytes": str(16 * MIB)}, 16 * MIB),
        ("3:cpu,memory:/a", {"memory/a/memory.limit_in_bytes": str(2**63 - 4096)}, None),
        ("0::/a", {}, None),
    ],
)
def test_memory_of_a_control_group(tmp_path: Path, groups: str, limits: dict[str, str], expected: int | None) -> None:
    own = tmp_path / "own"
    own.write_text(groups + "\n")
    for name, text in limits.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    physical = memory_bytes(tmp_path / "none", tmp_path / "none")
    assert physical > 64 * MIB
    assert memory_bytes(tmp_path / "groups", own) == (expected or physical)
