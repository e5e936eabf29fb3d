"""How clips are found and called, manifests, a detector's boxes, and shards."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from masklet.batch import Clip, Fingerprint, Shard, find_clips, read_manifest, with_detections
from masklet.errors import InvalidArgument


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".png"):
            Image.new("RGB", (4, 4)).save(folder / name)
        else:
            (folder / name).write_bytes(b"x")


def named(*inputs: object) -> list[str]:
    return [clip.name for clip in find_clips([str(word) for word in inputs])]


def test_files_folders_and_patterns(tmp_path: Path) -> None:
    touch(tmp_path, "in/b.MP4", "in/a/c.mkv", "in/a/notes.txt", "in/a/c.prompts.json", "in/.hidden/d.mp4")
    touch(tmp_path, "in/shots/1.png", "in/shots/2.png", "one.weird")
    assert named(tmp_path / "in") == ["a/c.mkv", "b.MP4", "shots"]
    assert named(tmp_path / "one.weird") == ["one.weird"]
    assert named(tmp_path / "in" / "shots") == ["shots"]
    assert named(f"{tmp_path}/in/**/*.mkv", tmp_path / "one.weird") == ["a/c.mkv", "one.weird"]


def test_results_are_no_clips(tmp_path: Path) -> None:
    """Where a batch writes into the folder that it reads, the next run finds the same clips."""
    touch(tmp_path, "a.mp4", "out/a.mp4/clip.json", "out/a.mp4/matte.mov", "out/a.mp4/masks/1.png")
    assert named(tmp_path) == ["a.mp4"]
    assert named(f"{tmp_path}/**/*") == ["a.mp4"]


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidArgument, match="holds neither videos nor folders of pictures"):
        find_clips([tmp_path / "empty"])
    with pytest.raises(InvalidArgument, match="no video matches"):
        find_clips([f"{tmp_path}/*.mp4"])
    with pytest.raises(FileNotFoundError):
        find_clips([tmp_path / "a.mp4"])


def test_clips_that_would_share_a_folder_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.mp4", "b/x.mp4")
    with pytest.raises(InvalidArgument, match=r"are both called x\.mp4; give the folder above both"):
        find_clips([tmp_path / "a" / "x.mp4", tmp_path / "b" / "x.mp4"])
    assert named(tmp_path) == ["a/x.mp4", "b/x.mp4"]
    (tmp_path / "m.jsonl").write_text('{"clip": "a/x.mp4", "name": "x"}\n{"clip": "b/x.mp4", "name": "x/y"}\n')
    with pytest.raises(InvalidArgument, match="the results of x/y would lie among those of x"):
        read_manifest(tmp_path / "m.jsonl")


@pytest.mark.parametrize("name", ["", "/a", "a/../b", ".a", "a//b", "a\nb", "a/.partial", "a\\b", "x" * 201])
def test_names_that_cannot_be_folders_are_refused(name: str) -> None:
    with pytest.raises(InvalidArgument, match=r"name: is .* must be a relative path"):
        Clip(name, Path("a.mp4"))


@pytest.mark.parametrize("name", ["a\udcff.mp4", "\ud800"])
def test_names_that_are_no_text_are_refused(name: str) -> None:
    with pytest.raises(InvalidArgument, match=r"name: is .* bytes that are not UTF-8"):
        Clip(name, Path("a.mp4"))


def test_paths_that_cannot_be_are_refused() -> None:
    for path in (Path("a\0.mp4"), Path("\ud800.mp4")):
        with pytest.raises(InvalidArgument, match=r"clip: is .* cannot be the path of a file"):
            Clip("a", path)
        with pytest.raises(InvalidArgument, match=r"prompts: is .* cannot be the path of a file"):
            Clip("a", Path("a.mp4"), path)


def test_a_file_whose_name_cannot_be_a_clips_is_told_by_its_path(tmp_path: Path) -> None:
    for raw, told in ((b"a\nb.mp4", r"a\\nb\.mp4"), (b"\xff.mp4", r"\\udcff\.mp4")):
        folder = tmp_path / raw.hex()
        folder.mkdir()
        (folder / os.fsdecode(raw)).write_bytes(b"x")
        with pytest.raises(InvalidArgument, match=f"inputs: the name of '{folder}/{told}' is .*; rename the file"):
            find_clips([folder])


def test_links_that_lead_back_are_not_followed(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.mp4", "in/sub/b.mp4", "elsewhere/c.mp4")
    (tmp_path / "in/sub/back").symlink_to("..")
    (tmp_path / "in/sub/self").symlink_to(".")
    (tmp_path / "in/there").symlink_to("../elsewhere")
    assert named(tmp_path / "in") == ["a.mp4", "sub/b.mp4", "there/c.mp4"]
    assert named(f"{tmp_path}/in/**/*.mp4") == named(f"{tmp_path}/in/**") == ["a.mp4", "sub/b.mp4"]


def test_pipes_are_no_videos(tmp_path: Path) -> None:
    """Who reads one may wait for ever, and a batch with it."""
    touch(tmp_path, "in/a.mp4")
    os.mkfifo(tmp_path / "in/pipe.mp4")
    assert named(tmp_path / "in") == named(f"{tmp_path}/in/*.mp4") == ["a.mp4"]
    with pytest.raises(InvalidArgument, match=r"pipe\.mp4 is neither a file nor a folder"):
        find_clips([tmp_path / "in/pipe.mp4"])
    with pytest.raises(InvalidArgument, match=r"clip: .*pipe\.mp4 is neither a file nor a folder"):
        Fingerprint.of(tmp_path / "in/pipe.mp4")


def test_prompts_beside_a_clip(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "a.prompts.json").write_text('[{"object": 2, "name": "dog", "points": [[1, 2]]}]')
    with_prompts, without = find_clips([tmp_path])
    found = with_prompts.read_prompts()
    assert [prompt.object_id for prompt in found.prompts] == [2]
    assert found.objects[2].name == "dog"
    with pytest.raises(InvalidArgument, match=r"b\.prompts\.json does not exist; write it, or give --prompts"):
        without.read_prompts()


MANIFEST = {
    "csv": "clip,name,prompts,start,end,direction,names\n"
    "v/a.mp4,,p.json,2,4.5s,backward,1=dog:animal;2=cat\n"
    '"../b, c.mp4",second,,,,,\n',
    "jsonl": json.dumps(
        {
            "clip": "v/a.mp4",
            "prompts": [{"object": 1, "points": [[1, 2]]}, {"object": 2, "box": [1, 2, 3, 4]}],
            "start": 2,
            "end": "4.5s",
            "direction": "backward",
            "names": {"1": "dog:animal", "2": "cat"},
        }
    )
    + '\n\n{"clip": "../b, c.mp4", "name": "second", "end": null}\n',
}


@pytest.mark.parametrize("form", MANIFEST)
def test_manifests(tmp_path: Path, form: str) -> None:
    (tmp_path / "p.json").write_text('[{"object": 1, "points": [[1, 2]]}, {"object": 2, "box": [1, 2, 3, 4]}]')
    path = tmp_path / f"m.{form}"
    path.write_text(MANIFEST[form])
    first, second = read_manifest(path)
    assert (first.name, first.video) == ("v/a.mp4", tmp_path / "v/a.mp4")
    assert (first.start, first.end, first.direction) == ("2", "4.5s", "backward")
    found = first.read_prompts()
    assert [prompt.object_id for prompt in found.prompts] == [1, 2]
    assert [(one.name, one.class_name) for one in found.objects.values()] == [("dog", "animal"), ("cat", "")]
    assert (second.name, second.prompts, second.direction) == ("second", None, "forward")
    assert second.video == tmp_path / "../b, c.mp4"


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("clip,colour\na.mp4,red\n", "line 2 has the unknown key 'colour'"),
        ("clip,name\na.mp4\n", "line 2 has not as many values"),
        ("clip,start\na.mp4,later\n", "line 2: start: 'later' is neither a frame"),
        ("clip,direction\na.mp4,up\n", "line 2: direction: is up, must be one of"),
        ("clip,names\na.mp4,dog\n", "line 2: names: dog= is not OBJ=NAME"),
        ("name\na\n", "line 2: clip: is missing"),
        ("clip\n", "holds no clip"),
        ("clip\na.mp4\na.mp4\n", r"manifest: .*line 3: this clip and that of line 2 are both called a\.mp4"),
        ("clip,name\na.mp4,x\nb.mp4,x/y\n", "manifest: .*the results of x/y would lie among those of x"),
        ("clip,clip\na.mp4,b.mp4\n", "line 1 has the heading 'clip' twice"),
    ],
)
def test_wrong_manifests_are_told_by_line(tmp_path: Path, text: str, match: str) -> None:
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(InvalidArgument, match=match):
        read_manifest(tmp_path / "m.csv")


def test_manifests_in_another_encoding_are_told(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_bytes("clip\nü.mp4\n".encode("latin1"))
    with pytest.raises(InvalidArgument, match="not text in UTF-8"):
        read_manifest(tmp_path / "m.csv")


def test_a_picture_of_a_mask_that_is_not_there_is_told_by_line(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"clip": "a.mp4", "prompts": [{"mask": "no.png"}]}')
    with pytest.raises(InvalidArgument, match=r"line 1: .*no\.png cannot be read: No such file"):
        read_manifest(tmp_path / "m.jsonl")


def test_a_name_of_an_object_without_prompt_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"clip": "a", "prompts": [{"points": [[1, 2]]}], "names": {"3": "x"}}')
    with pytest.raises(InvalidArgument, match="object 3 has no prompt; the objects are 1"):
        read_manifest(tmp_path / "m.jsonl")[0].read_prompts()


BOX = {"bbox": [1, 2, 10, 20], "score": 0.9}


@pytest.mark.parametrize(
    "boxes",
    [
        [{"clip": "v/a.mp4", **BOX}, {"clip": "b", **BOX, "score": 0.2}, {"clip": "b", **BOX}],
        [{"image_id": "a_000007", **BOX}, {"image_id": "b_3", **BOX}, {"image_id": "b_3", **BOX, "score": 0.2}],
        {"a": [BOX], "b.mp4": [BOX, {**BOX, "score": 0.1}]},
    ],
)
def test_a_detectors_boxes(tmp_path: Path, boxes: object) -> None:
    clips = [Clip("v/a.mp4", Path("v/a.mp4")), Clip("b.mp4", Path("b.mp4")), Clip("c.mp4", Path("c.mp4"))]
    (tmp_path / "d.json").write_text(json.dumps(boxes))
    found = with_detections(clips, tmp_path / "d.json", min_score=0.5)
    assert [len(clip.read_prompts().prompts) for clip in found] == [1, 1, 0]
    box = found[0].read_prompts().prompts[0].box
    assert box is not None
    assert box.tolist() == [1, 2, 11, 22]
    if isinstance(boxes, list):
        (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, boxes)))
        lines = with_detections(clips, tmp_path / "d.jsonl", min_score=0.5)
        assert [len(clip.read_prompts().prompts) for clip in lines] == [1, 1, 0]


def test_one_box_in_json_lines(tmp_path: Path) -> None:
    clips = [Clip("a.mp4", Path("a.mp4")), Clip("b.mp4", Path("b.mp4"))]
    (tmp_path / "d.jsonl").write_text(json.dumps({"clip": "a", **BOX}) + "\n")
    found = with_detections(clips, tmp_path / "d.jsonl")
    assert [len(clip.read_prompts().prompts) for clip in found] == [1, 0]


def test_detections_that_are_no_text_are_told(tmp_path: Path) -> None:
    (tmp_path / "d.json").write_bytes(b"\xff\xfe\0")
    with pytest.raises(InvalidArgument, match=r"detections: .* is not text in UTF-8"):
        with_detections([Clip("a.mp4", Path("a.mp4"))], tmp_path / "d.json")


def test_boxes_of_no_clip_are_told(tmp_path: Path) -> None:
    clips = [Clip("a.mp4", Path("a.mp4")), Clip("x/a.mp4", Path("x/a.mp4"))]
    for boxes, match in (
        ([{"clip": "z", **BOX}], "'z' is none of the clips"),
        ([{"clip": "a", **BOX}], "'a' is the name of 2 clips"),
        ([BOX], "a box that does not say of which clip it is"),
        ("text", "neither a list of boxes"),
        ([{"clip": "x/a.mp4", "bbox": [1]}], "is not a detector's list of boxes"),
    ):
        (tmp_path / "d.json").write_text(json.dumps(boxes))
        with pytest.raises(InvalidArgument, match=f"detections: .*{match}"):
            with_detections(clips, tmp_path / "d.json")


def test_every_clip_is_in_one_shard_whatever_others_there_are() -> None:
    names = [f"clip{number}.mp4" for number in range(1000)]
    shards = [Shard(number, 4) for number in range(1, 5)]
    parts = [[name for name in names if shard.holds(name)] for shard in shards]
    assert sorted(name for part in parts for name in part) == sorted(names)
    assert all(200 < len(part) < 300 for part in parts)
    assert Shard.parse("2/4").holds("clip0.mp4") is Shard(2, 4).holds("clip0.mp4")
    # The same on every machine and in every version.
    assert [Shard(number, 4).holds("clip.mp4") for number in range(1, 5)].index(True) == 1
    for word in ("0/4", "5/4", "a/b", "3", "1/0"):
        with pytest.raises(InvalidArgument, match="shard: is"):
            Shard.parse(word)
