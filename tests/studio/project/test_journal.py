"""Files that are only appended to, and what a machine that stops leaves of them."""

from __future__ import annotations

import resource
import signal
from pathlib import Path

import pytest

from masklet.errors import DataLoss, FailedPrecondition, InvalidArgument, NotFound
from masklet_studio.project.journal import Journal
from masklet_studio.project.mask_log import MaskLog
from masklet_studio.project.project import Project, videos_in
from masklet_studio.project.records import ABSENT, PROMPTED, VISIBLE, MaskRecord
from masklet_studio.project.video_project import VideoProject
from masklet_studio.uploads import Uploads


def _always(_number: int) -> bool:
    return True


def record(frame: int, revision: int, flags: int = VISIBLE, object_id: int = 1, counts: bytes = b"03") -> MaskRecord:
    """A mask of 3 pixels in a picture of 1x3 pixels."""
    return MaskRecord(object_id, frame, revision, flags, 0.5, 2.0, 3, (1, 3), counts)


def test_a_line_that_was_cut_off_is_gone_and_the_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.append({"n": 1, "do": "a"})
    journal.append({"n": 2, "do": "b"})
    journal.close()
    whole = path.read_bytes()
    for cut in range(1, len(whole) // 2):
        path.write_bytes(whole[:-cut])
        journal = Journal(path)
        assert [one["n"] for one in journal.take()] == [1]
        journal.append({"n": 2, "do": "b"})
        journal.close()
        assert path.read_bytes() == whole


def test_a_line_that_is_damaged_is_not_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b'{"n":1}\n{"n":#}\n{"n":3}\n')
    with pytest.raises(DataLoss, match="is damaged at byte 8"):
        Journal(path)


def test_a_mask_that_was_cut_off_is_gone_and_the_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "masks.bin"
    log = MaskLog(path)
    log.append([record(0, 1), record(1, 1)])
    log.close()
    whole = path.read_bytes()
    for cut in range(1, len(whole) // 2):
        path.write_bytes(whole[:-cut])
        log = MaskLog(path)
        assert [frame for frame, _ in log.current(1, _always)] == [0]
        log.append([record(1, 1)])
        log.close()
        assert path.read_bytes() == whole
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert MaskLog(path).find(1, 1, _always) is None


def test_an_operation_that_is_undone_gives_the_masks_before_it_back(tmp_path: Path) -> None:
    project = VideoProject(tmp_path)
    add = {"object": 1, "name": "", "class": "", "colour": "#000000"}
    assert project.do("add_object", add) == 1
    project.do("track", {}, [record(5, 2), record(6, 2)])
    said = {"object": 1, "frame": 5, "points": [[0, 0, 1]], "box": None, "mask": None, "corrects": True}
    project.do("prompt", said, [record(5, 3, VISIBLE | PROMPTED)])
    project.do("delete_masks", {"object": 1, "from": 5, "to": 6}, [record(5, 4, ABSENT), record(6, 4, ABSENT)])
    assert project.masks(1) == {}
    assert project.state.prompts == {}
    for _ in range(2):  # the second time as another studio finds it
        assert project.undo() is not None
        assert {frame: stored.revision for frame, stored in project.masks(1).items()} == {5: 3, 6: 2}
        assert project.tracked_record(1, 5) == record(5, 2)
        assert project.undo() is not None
        assert {frame: stored.revision for frame, stored in project.masks(1).items()} == {5: 2, 6: 2}
        assert project.made_by(2) == {1: (5, 6)}
        project.redo()
        project.redo()
        assert (project.masks(1), project.can_redo) == ({}, False)
        project.close()
        project = VideoProject(tmp_path)
    project.undo()
    project.do("marks", {"in": 3, "out": None})
    assert not project.can_redo
    assert project.redo() is None
    assert project.record(1, 6) == record(6, 2)
    project.close()


def test_masks_of_an_operation_that_was_never_written_do_not_count(tmp_path: Path) -> None:
    """As the machine may leave them that stops before the journal is on the disk."""
    project = VideoProject(tmp_path)
    project.do("track", {}, [record(0, 1)])
    project.close()
    (tmp_path / "journal.jsonl").write_bytes(b"")
    assert VideoProject(tmp_path).masks(1) == {}


def test_a_project_knows_its_videos(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"1234")
    project = Project(tmp_path / "work")
    first = project.add(clip)
    assert project.add(clip) == first
    with pytest.raises(FailedPrecondition, match="another studio has the project"):
        Project(tmp_path / "work")
    part = tmp_path / "work" / "uploads" / "x.part"
    part.write_bytes(b"56789")
    second = project.adopt(part, "ü/../x.MP4")
    assert not part.exists()
    assert second.path == tmp_path / "work" / "videos" / second.video_id / "video.mp4"
    project.close()
    (tmp_path / "work").rename(tmp_path / "moved")
    project = Project(tmp_path / "moved")
    assert [one.name for one in project.videos] == ["clip.mp4", "ü/../x.MP4"]
    assert project.videos[1].path.read_bytes() == b"56789"
    clip.write_bytes(b"other")
    assert "another size" in project.videos[0].check()
    project.remove(second.video_id)
    assert not project.videos[0].path.samefile(tmp_path)
    assert [one.name for one in project.videos] == ["clip.mp4"]
    project.close()
    with pytest.raises(InvalidArgument, match="is no project: it holds clip"):
        Project(tmp_path)
    assert list(videos_in(tmp_path)) == [clip]


def test_an_operation_without_room_for_its_masks_has_not_happened(tmp_path: Path) -> None:
    project = VideoProject(tmp_path)
    project.do("add_object", {"object": 1, "name": "", "class": "", "colour": "#ffffff"})
    journal = (tmp_path / "journal.jsonl").read_bytes()
    least, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, most))
    try:
        with pytest.raises(OSError, match="File too large"):
            project.do("marks", {"in": 3, "out": None}, [record(0, project.next_number, counts=b"0" * 2000)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (least, most))
        signal.signal(signal.SIGXFSZ, before)
    assert project.state.marks.first is None
    assert (tmp_path / "journal.jsonl").read_bytes() == journal
    assert project.do("marks", {"in": 4, "out": None}, [record(0, 2)]) == 2
    project.close()
    again = VideoProject(tmp_path)
    assert again.state.marks.first == 4
    assert again.masks(1)[0].revision == 2
    again.close()


def test_masks_of_a_lost_operation_never_become_those_of_another_one(tmp_path: Path) -> None:
    """The machine stopped when the masks were on the disk, and the operation was not."""
    project = VideoProject(tmp_path)
    project.do("add_object", {"object": 1, "name": "", "class": "", "colour": "#ffffff"})
    journal = (tmp_path / "journal.jsonl").read_bytes()
    project.do("track", {"objects": [1]}, [record(5, 2)])
    project.close()
    (tmp_path / "journal.jsonl").write_bytes(journal)
    again = VideoProject(tmp_path)
    assert again.masks(1) == {}
    again.do("track", {"objects": [1]}, [record(7, again.next_number)])
    assert list(again.masks(1)) == [7]
    again.close()


def test_masks_behind_a_damaged_one_are_kept_aside(tmp_path: Path) -> None:
    path = tmp_path / "masks.bin"
    log = MaskLog(path)
    log.append([record(0, 1)])
    whole = log.size
    log.append([record(1, 1), record(2, 1)])
    log.close()
    content = bytearray(path.read_bytes())
    content[whole + 33] ^= 1
    path.write_bytes(content)
    log = MaskLog(path)
    assert [frame for frame, _ in log.current(1, _always)] == [0]
    assert (tmp_path / "masks.cut").read_bytes() == content[whole:]
    log.close()


def test_a_project_may_hold_files_of_a_file_browser(tmp_path: Path) -> None:
    Project(tmp_path / "work").close()
    (tmp_path / "work" / ".DS_Store").touch()
    Project(tmp_path / "work").close()


def test_what_a_killed_process_left_of_a_video_is_swept_up(tmp_path: Path) -> None:
    project = Project(tmp_path)
    kept, gone = (project.adopt(uploaded(tmp_path, name), name) for name in ("kept.mp4", "gone.mp4"))
    for entry in (kept, gone):
        Journal(project.folder_of(entry.video_id) / "journal.jsonl").close()
    left = {path.name: path.read_bytes() for path in gone.path.parent.iterdir()}
    project.remove(gone.video_id)
    project.close()
    gone.path.parent.mkdir()  # as if it had been killed before the files were deleted
    for name, data in left.items():
        (gone.path.parent / name).write_bytes(data)
    taken = tmp_path / "videos" / "0123456789ab"  # as if it had been killed before the video was entered
    taken.mkdir()
    (taken / "video.mp4").hardlink_to(uploaded(tmp_path, "part.mp4"))
    strange = tmp_path / "videos" / "somebodys"
    strange.mkdir()
    (strange / "journal.jsonl").write_text("")
    project = Project(tmp_path)
    assert {one.name for one in (tmp_path / "videos").iterdir()} == {kept.video_id, "somebodys"}
    assert [entry.check() for entry in project.videos] == [""]
    project.close()


def test_an_upload_that_has_become_a_video_does_so_once(tmp_path: Path) -> None:
    project = Project(tmp_path)
    begun = Uploads(project, 1000).begin("clip.mp4", 5)
    begun.part.write_bytes(b"video")
    told = begun.part.with_suffix(".json").read_text()
    entry = project.adopt(begun.part, "clip.mp4")
    begun.part.hardlink_to(entry.path)  # as if it had been killed before the part was deleted
    begun.part.with_suffix(".json").write_text(told)
    project.close()
    project = Project(tmp_path)
    with pytest.raises(NotFound):
        Uploads(project, 1000).find(begun.upload_id)
    assert list((tmp_path / "uploads").iterdir()) == []
    assert entry.path.read_bytes() == b"video"
    project.close()


def uploaded(folder: Path, name: str) -> Path:
    """A file that was uploaded."""
    path = folder / "uploads" / name
    path.write_bytes(b"video")
    return path
