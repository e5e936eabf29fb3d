"""The control group of decoders: in folders that look like the kernel's, and where possible in a real one."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from masklet_server.video.sandbox import control_group, fork_server
from masklet_server.video.sandbox.control_group import DecoderGroup, GroupBounds, delegated_group, make_group

MIB = 1024**2


def group(folder: Path, *processes: int, controllers: str = "cpu memory pids") -> Path:
    """A folder like that of a control group with these processes in it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cgroup.controllers").write_text(controllers + "\n")
    (folder / "cgroup.procs").write_text("".join(f"{process}\n" for process in processes))
    (folder / "cgroup.subtree_control").write_text("")
    return folder


def found(root: Path, own: str = "0::/a\n") -> Path | None:
    (root / "own").write_text(own)
    return delegated_group((root / "none", root), root / "own")


def test_a_group_with_this_process_alone_is_delegated(tmp_path: Path) -> None:
    folder = group(tmp_path / "a", os.getpid())
    assert found(tmp_path) == folder
    assert found(tmp_path, "4:memory:/other\n0::/a\n") == folder  # both versions at once


def test_children_of_this_process_may_be_in_it(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        folder = group(tmp_path / "a", os.getpid(), child.pid)
        assert found(tmp_path) == folder
        child.kill()


@pytest.mark.parametrize("own", ["4:memory:/a\n", ""])
def test_version_1_alone_does_not_do(own: str, tmp_path: Path) -> None:
    group(tmp_path / "a", os.getpid())
    assert found(tmp_path, own) is None


def test_a_group_of_others_is_not_touched(tmp_path: Path) -> None:
    group(tmp_path / "a", os.getpid(), os.getppid())
    assert found(tmp_path) is None


def test_without_the_controllers_there_is_none(tmp_path: Path) -> None:
    group(tmp_path / "a", os.getpid(), controllers="cpu pids")
    assert found(tmp_path) is None


def test_the_server_and_the_decoders_go_to_leaves(tmp_path: Path) -> None:
    folder = group(tmp_path / "a", os.getpid())
    made = make_group(GroupBounds(100 * MIB, 70), folder)
    assert made is not None
    assert made.folder.parent == folder
    assert (made.folder / "memory.max").read_text() == str(100 * MIB)
    assert (made.folder / "pids.max").read_text() == "70"
    assert (folder / "cgroup.subtree_control").read_text() == "+memory +pids"
    moved = [file for file in folder.glob("*/cgroup.procs") if file.read_text() == str(os.getpid())]
    assert [file.parent for file in moved] == [folder / "masklet-server"]
    made.add(4711)
    assert (made.folder / "cgroup.procs").read_text() == "4711"


def test_no_bound_is_the_kernels_word_for_it(tmp_path: Path) -> None:
    made = make_group(GroupBounds(), group(tmp_path / "a", os.getpid()))
    assert made is not None
    assert (made.folder / "memory.max").read_text() == (made.folder / "pids.max").read_text() == "max"


def test_a_refusal_is_logged_and_harms_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = group(tmp_path / "a", os.getpid())
    (folder / "cgroup.subtree_control").unlink()
    (folder / "cgroup.subtree_control").mkdir()
    assert make_group(GroupBounds(), folder) is None
    assert "no control group for decoding processes could be made" in caplog.text


def test_the_bounds_follow_from_the_settings() -> None:
    assert GroupBounds.of(0, 0) == GroupBounds(0, 0)
    some = GroupBounds.of(1000 * MIB, 64)
    assert some.memory_bytes == 1756 * MIB
    assert some.processes >= 64 * 2 * 9


def test_fork_servers_enter_the_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, entered = DecoderGroup(tmp_path), list[int]()
    monkeypatch.setattr(made, "add", entered.append)
    first = fork_server.start()
    fork_server.put_into(made)
    try:
        fork_server.replace(first)
        second = fork_server.start()
        assert entered == [first, second]
        assert first != second
    finally:
        fork_server.put_into(None)


def test_a_real_group(tmp_path: Path) -> None:
    folder = control_group.delegated_group()
    if folder is None:
        pytest.skip("this process was given no control group of version 2 with memory and pids")
    made = make_group(GroupBounds(64 * MIB, 16))
    assert made is not None
    with subprocess.Popen(["python3", "-c", "input(); x = bytearray(2**28)"], stdin=subprocess.PIPE) as child:
        made.add(child.pid)
        child.communicate(b"\n")
        assert child.returncode == -9
