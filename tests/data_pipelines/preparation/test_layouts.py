"""Every layout that people have, made up of empty files: names decide, pictures only where a strip is possible."""

import numpy as np
import pytest

from data_pipelines import transforms
from data_pipelines.preparation.layouts import Item, find_items, passed_over_split


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"1234")


def picture(path, height=4, width=4):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(transforms.encode_png(np.zeros((height, width, 3), np.uint8)))
    return path


def found(root, **options):
    items, others = find_items(root, **options)
    return {item.name: (item.kind, item.identity, item.split) for item in items}, others


def test_voxceleb_files_and_folders_of_one_name_are_told_apart(tmp_path):
    touch(tmp_path, "train/id1#7w0I#000001#000219.mp4", "test/id2#abc#000010#000099.mp4")
    picture(tmp_path / "train/id3#xyz#000001#000050.mp4/0000000.png")
    picture(tmp_path / "train/id3#xyz#000001#000050.mp4/0000001.png")
    assert found(tmp_path) == (
        {
            "test/id2#abc#000010#000099.mp4": ("video", "id2", "test"),
            "train/id1#7w0I#000001#000219.mp4": ("video", "id1", "train"),
            "train/id3#xyz#000001#000050.mp4": ("frames", "id3", "train"),
        },
        [],
    )


def test_the_utterance_variant(tmp_path):
    touch(tmp_path, "id9#q#00012.txt#003.mp4", "id9#q#00012.txt#004.mp4", "id8#q#00012.txt#003.mp4/0000000.jpg")
    assert found(tmp_path)[0] == {
        "id8#q#00012.txt#003.mp4": ("frames", "id8", None),
        "id9#q#00012.txt#003.mp4": ("video", "id9", None),
        "id9#q#00012.txt#004.mp4": ("video", "id9", None),
    }


def test_plain_folders_of_frames_and_loose_videos_have_identities_of_their_own(tmp_path):
    picture(tmp_path / "train/clip.one/1.png")
    picture(tmp_path / "train/clip.two/1.png")
    touch(tmp_path, "valid/a.mov", "valid/b.webm", "valid/c.gif", "valid/d.MP4")
    assert found(tmp_path)[0] == {
        "train/clip.one": ("frames", "clip.one", "train"),
        "train/clip.two": ("frames", "clip.two", "train"),
        "valid/a.mov": ("video", "a", "val"),
        "valid/b.webm": ("video", "b", "val"),
        "valid/c.gif": ("video", "c", "val"),
        "valid/d.MP4": ("video", "d", "val"),
    }


def test_a_folder_above_the_clips_is_the_identity(tmp_path):
    touch(tmp_path, "id7/clip.mp4", "id7/other/clip.mp4")
    picture(tmp_path / "train/anna/walk/1.png")
    names = found(tmp_path)[0]
    assert names["train/anna/walk"][1:] == ("anna", "train")
    assert names["id7/clip.mp4"][1:] == names["id7/other/clip.mp4"][1:] == ("id7", None)


def test_folders_that_all_clips_share_are_no_identity(tmp_path):
    touch(tmp_path, "dev/mp4/anna/21Ux/1.mp4", "dev/mp4/anna/21Uy/1.mp4", "dev/mp4/ben/21Ux/1.mp4", "dev/intro.mp4")
    touch(tmp_path, "test/mp4/anna/1/1.mp4", "test/mp4/anna/2/1.mp4")
    identities = {name: identity for name, (_, identity, _) in found(tmp_path)[0].items()}
    # One depth for all splits: that test has one person only does not hide that she is in train, too.
    assert identities == {
        "dev/intro.mp4": "intro",
        "dev/mp4/anna/21Ux/1.mp4": "anna",
        "dev/mp4/anna/21Uy/1.mp4": "anna",
        "dev/mp4/ben/21Ux/1.mp4": "ben",
        "test/mp4/anna/1/1.mp4": "anna",
        "test/mp4/anna/2/1.mp4": "anna",
    }


def test_voxcelebs_folders_of_people_are_identities_even_of_one_person(tmp_path):
    touch(tmp_path, "mp4/id00012/21Ux/1.mp4", "mp4/id00012/21Uy/1.mp4")
    assert [identity for _, identity, _ in found(tmp_path)[0].values()] == ["id00012"] * 2


def test_frames_side_by_side_are_clips_and_other_wide_pictures_frames(tmp_path):
    picture(tmp_path / "strips/a.png", 4, 12)
    picture(tmp_path / "strips/b.png", 4, 8)
    picture(tmp_path / "wide/a.png", 4, 9)
    picture(tmp_path / "film/0001.png", 4, 8)  # Numbers are names of frames.
    touch(tmp_path, "strips/0 broken.png")

    def kinds(**options):
        return {name: kind for name, (kind, _, _) in found(tmp_path, **options)[0].items()}

    strips = {f"strips/{name}.png": "strip" for name in ("0 broken", "a", "b")}
    assert kinds() == strips | {"wide": "frames", "film": "frames"}
    assert kinds(strips="no") == {"strips": "frames", "wide": "frames", "film": "frames"}
    assert kinds(strips="yes") == strips | {"wide/a.png": "strip", "film/0001.png": "strip"}


def test_a_wide_films_numbered_frames_are_no_strips_and_numbered_strips_are(tmp_path):
    for number in range(1, 7):
        picture(tmp_path / f"film/frame_{number:04d}.png", 4, 8)
        picture(tmp_path / f"long/clip{number}.png", 4, 16)
        picture(tmp_path / f"bare/{number:05d}.png", 4, 20)
        picture(tmp_path / f"named/{'abcdefg'[number]}{number}.png", 4, 8)
        picture(tmp_path / f"two numbers/id{number}#{number % 3}.png", 4, 8)
    for number in range(4):
        picture(tmp_path / f"few/clip{number}.png", 4, 12)
    kinds: dict[str, set] = {}
    for name, (kind, _, _) in found(tmp_path)[0].items():
        kinds.setdefault(name.split("/")[0], set()).add(kind)
    strips = ("long", "bare", "named", "two numbers", "few")
    assert kinds == {"film": {"frames"}} | {name: {"strip"} for name in strips}


def test_split_folders_lie_below_the_folders_that_all_items_share(tmp_path):
    touch(tmp_path, "vox/png/train/id1#a#1#2.mp4", "vox/png/train/anna/1.mp4", "vox/png/Test/anna/2.mp4", "loose.mp4")
    items = found(tmp_path)[0]
    assert items == {
        "loose.mp4": ("video", "loose", None),
        "vox/png/Test/anna/2.mp4": ("video", "anna", "test"),
        "vox/png/train/anna/1.mp4": ("video", "anna", "train"),
        "vox/png/train/id1#a#1#2.mp4": ("video", "id1", "train"),
    }
    assert not any(map(passed_over_split, find_items(tmp_path)[0]))
    touch(tmp_path / "one", "vox/train/a.mp4", "vox/train/b.mp4")
    assert {split for *_, split in found(tmp_path / "one")[0].values()} == {"train"}
    touch(tmp_path / "person", "id00012/train/a.mp4", "id00012/test/b.mp4")
    assert set(found(tmp_path / "person")[0].values()) == {("video", "id00012", "train"), ("video", "id00012", "test")}


def test_split_folders_elsewhere_count_for_nothing_and_are_told(tmp_path):
    touch(tmp_path, "vox/train/a.mp4", "more/test/b.mp4", "more/c.mp4")
    items = find_items(tmp_path)[0]
    assert {item.name: (item.split, passed_over_split(item)) for item in items} == {
        "more/c.mp4": (None, None),
        "more/test/b.mp4": (None, "test"),
        "vox/train/a.mp4": (None, "train"),
    }


def test_the_input_itself_may_be_the_clip(tmp_path):
    picture(tmp_path / "1.png")
    assert found(tmp_path)[0] == {".": ("frames", tmp_path.name, None)}


def test_single_images(tmp_path):
    picture(tmp_path / "test/x.png")
    touch(tmp_path, "y.jpg", "anna/1.jpg", "z.mp4")
    assert found(tmp_path, single_images=True) == (
        {"anna/1.jpg": ("image", "anna", None), "test/x.png": ("image", "x", "test"), "y.jpg": ("image", "y", None)},
        [("z.mp4", "not an image")],
    )


def test_what_is_no_clip_is_named_and_hidden_files_are_not(tmp_path):
    touch(tmp_path, "a.mp4", "notes/read me.txt", ".DS_Store", ".cache/b.mp4", "frames/.hidden.png", "frames/list.csv")
    # A clip without frames is not lost in silence.
    (tmp_path / "id1#none#000001#000009.mp4" / ".cache").mkdir(parents=True)
    assert found(tmp_path) == (
        {"a.mp4": ("video", "a", None)},
        [
            ("frames/list.csv", "neither a video nor an image"),
            ("id1#none#000001#000009.mp4", "an empty folder"),
            ("notes/read me.txt", "neither a video nor an image"),
        ],
    )


def test_sizes_of_files_and_folders(tmp_path):
    touch(tmp_path, "a.mp4", "b/1.png", "b/2.png", "b/3.png")
    (tmp_path / "b/2.png").write_bytes(b"")
    (tmp_path / "b/3.png").write_bytes(b"12345678")
    assert [item.size for item in find_items(tmp_path)[0]] == [4, 12]
    assert find_items(tmp_path)[0][0] == Item("a.mp4", "video", "a", None, 4)


def test_links_are_followed_but_not_in_circles(tmp_path):
    touch(tmp_path, "z/a.mp4")
    (tmp_path / "z" / "up").symlink_to(tmp_path)
    (tmp_path / "b").symlink_to(tmp_path / "z")
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    items, left_out = found(tmp_path)
    assert list(items) == ["b/a.mp4", "z/a.mp4"]
    assert left_out == [("gone.mp4", "not a file, or a link to nothing")]


def test_a_name_that_is_no_unicode_is_left_out(tmp_path):
    touch(tmp_path, "a.mp4")
    (tmp_path / b"caf\xe9.mp4".decode(errors="surrogateescape")).write_bytes(b"1")
    assert found(tmp_path)[1] == [("caf\\udce9.mp4", "its name is not UTF-8: rename it")]


def test_nothing_to_prepare_is_told(tmp_path):
    with pytest.raises(ValueError, match="none: no such folder"):
        find_items(tmp_path / "none")
    touch(tmp_path, "notes.txt")
    with pytest.raises(ValueError, match="no videos or folders of frames in it .1 other"):
        find_items(tmp_path)
    touch(tmp_path, "a.mp4")
    with pytest.raises(ValueError, match="no images in it .2 other"):
        find_items(tmp_path, single_images=True)


def test_pictures_beside_videos_are_no_clip(tmp_path):
    touch(tmp_path, "a.mp4", "a.jpg", "b.mp4", "b.jpg", "frames/0.png")
    items, left_out = found(tmp_path)
    assert list(items) == ["a.mp4", "b.mp4", "frames"]
    assert left_out == [(name, "a picture beside videos") for name in ("a.jpg", "b.jpg")]


def test_one_folder_in_every_split_is_nobodys(tmp_path):
    touch(tmp_path, "training/videos/a.mp4", "training/videos/b.mp4", "testing/videos/c.mp4")
    told = {"a": "train", "b": "train", "c": "test"}
    assert sorted(found(tmp_path)[0].values()) == [("video", name, split) for name, split in told.items()]


def test_a_name_that_begins_with_a_hash_tells_no_identity(tmp_path):
    touch(tmp_path, "#fun dog.mp4", "#love.mp4")
    assert [identity for _, identity, _ in found(tmp_path)[0].values()] == ["#fun dog", "#love"]


def test_a_frame_that_is_a_link_to_nothing_stops_nobody_and_a_folder_is_no_frame(tmp_path):
    touch(tmp_path, "a/1.png", "b/0.png", "a/thumbs.png/notes.txt")
    (tmp_path / "a" / "0.png").symlink_to(tmp_path / "nowhere.png")
    items, left_out = found(tmp_path)
    assert list(items) == ["a", "b"] and ("a/0.png", "not a file, or a link to nothing") in left_out
