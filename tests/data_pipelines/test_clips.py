import pickle

import cv2
import numpy as np
import pytest

from data_pipelines import clips, puppets, transforms, video, video_writer
from data_pipelines.builders import puppets as builder


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "prepared"
    builder.prepare(path, builder.PuppetsConfig(real_clips=2, cartoon_clips=1, test_clips=1, frames=5))
    return path


def frame_of(clip, index, height=6, width=8):
    return np.random.default_rng([clip, index]).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write(path, count, clip=0, height=6, width=8):
    with video_writer.open_writer(path, 10) as writer:
        for index in range(count):
            writer.write(frame_of(clip, index, height, width))
    return path


def test_prepared_clips_give_the_rendered_frames_and_motions(prepared):
    source = clips.open_clips(prepared, "real_train", image_size=64)
    assert isinstance(source, clips.PreparedClips)
    assert (len(source), list(source.lengths), source.name(1)) == (2, [5, 5], "real_train_00001")
    motion = puppets.sample_motion("real", "train", 0, 1, 5)
    expected = puppets.render(puppets.sample_identity("real", "train", 0, 1), motion[3], 64)
    np.testing.assert_array_equal(source.frame(1, 3), expected)
    np.testing.assert_array_equal(source.motion(1, 3), motion[3])


def test_prepared_clips_open_from_the_folder_of_the_version_too(prepared):
    inner = clips.PreparedClips(prepared / "puppets" / "1.0.0", "cartoon_test")
    np.testing.assert_array_equal(inner.frame(0, 0), clips.PreparedClips(prepared, "cartoon_test").frame(0, 0))


def test_prepared_clips_travel_to_worker_processes(prepared):
    source = clips.PreparedClips(prepared, "real_train")
    source.frame(0, 0)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source)).frame(1, 2), source.frame(1, 2))


def test_prepared_clips_can_be_cut(prepared):
    whole, cut = (clips.open_clips(prepared, "real_train", first=f, last=x) for f, x in ((None, None), (2, 4)))
    assert list(cut.lengths) == [2, 2]
    np.testing.assert_array_equal(cut.frame(1, 1), whole.frame(1, 3))
    with pytest.raises(ValueError, match=r"real_train_00000: frames \[2, 6\) asked for, but it has 5"):
        clips.open_clips(prepared, "real_train", first=2, last=6)


def test_a_frame_beyond_the_end_is_no_frame_of_the_next_clip(prepared, tmp_path):
    sources = [
        clips.PreparedClips(prepared, "real_train"),
        clips.FolderClips([write(tmp_path / "a", 5)]),
        clips.VideoClips([write(tmp_path / "a.gif", 5)]),
    ]
    for source in sources:
        for index in (-1, 5):
            with pytest.raises(IndexError, match=f"no frame {index}: it has 5"):
                source.frame(0, index)


@pytest.mark.parametrize("split", ["train", None])
def test_a_wrong_split_of_prepared_clips_is_told(prepared, split):
    with pytest.raises(ValueError, match="no split 'train': choose .*real_train"):
        clips.open_clips(prepared, split)


def test_prepared_clips_of_an_empty_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="no prepared data set"):
        clips.PreparedClips(tmp_path, "real_train")


def test_folders_of_frames(tmp_path):
    for clip, name in enumerate(("clip10", "clip2")):
        write(tmp_path / "train" / name, 3 + clip, clip)
    source = clips.open_clips(tmp_path, "train")
    assert isinstance(source, clips.FolderClips)
    assert [source.name(clip) for clip in range(len(source))] == ["clip2", "clip10"]
    assert list(source.lengths) == [4, 3]
    np.testing.assert_array_equal(source.frame(0, 3), frame_of(1, 3))
    cut = clips.open_clips(tmp_path / "train", first=1, last=3, image_size=3)
    np.testing.assert_array_equal(cut.frame(1, 0), transforms.to_square(frame_of(0, 1), 3))
    assert list(cut.lengths) == [2, 2]


def test_one_folder_of_images_is_one_clip(tmp_path):
    source = clips.open_clips(write(tmp_path / "frames", 3))
    assert (len(source), list(source.lengths), source.name(0)) == (1, [3], "frames")
    np.testing.assert_array_equal(source.frame(0, 2), frame_of(0, 2))


def test_a_video_is_one_clip_of_its_own_frames(tmp_path):
    path = write(tmp_path / "clip.mp4", 7)
    frames = list(video.read_frames(path))
    source = clips.open_clips(path)
    assert isinstance(source, clips.VideoClips) and list(source.lengths) == [7] and source.name(0) == "clip.mp4"
    np.testing.assert_array_equal([source.frame(0, i) for i in range(7)], frames)
    cut = clips.open_clips(path, "", image_size=4, first=2, last=5)
    assert list(cut.lengths) == [3]
    np.testing.assert_array_equal(cut.frame(0, 2), transforms.to_square(frames[4], 4))
    assert list(clips.open_clips(path, first=5).lengths) == [2]


def test_a_folder_of_videos_is_a_clip_each(tmp_path):
    for clip, name in enumerate(("b10.mp4", "b9.gif")):
        write(tmp_path / name, 2 + clip, clip)
    (tmp_path / "notes.txt").write_text("no clip")
    source = clips.open_clips(tmp_path)
    assert [source.name(clip) for clip in range(len(source))] == ["b9.gif", "b10.mp4"] and list(source.lengths) == [
        3,
        2,
    ]


@pytest.mark.parametrize(
    ("first", "last", "message"),
    [
        (0, 8, r"frames \[0, 8\) asked for, but it has 7"),
        (7, None, r"frames \[7, 7\) asked for, but it has 7"),
        (9, None, "it has 7"),
        (-2, None, r"\[-2, "),
        (3, 3, r"\[3, 3\)"),
    ],
)
def test_a_range_outside_the_clip_is_told(tmp_path, first, last, message):
    for path in (write(tmp_path / "clip.gif", 7), write(tmp_path / "frames", 7)):
        with pytest.raises(ValueError, match=f"{path.name}.*{message}"):
            clips.open_clips(path, first=first, last=last)


def test_nothing_to_open_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="none: no such"):
        clips.open_clips(tmp_path / "none")
    with pytest.raises(ValueError, match="no prepared data set, images, videos"):
        clips.open_clips(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: the folder holds no images"):
        clips.open_clips(tmp_path)
    with pytest.raises(ValueError, match="no folder 'train': leave split empty"):
        clips.open_clips(tmp_path, "train")
    (tmp_path / "text.mp4").write_text("text")
    with pytest.raises(video.VideoError, match="text.mp4"):
        clips.open_clips(tmp_path)
    cv2.imwrite(str(tmp_path / "empty" / "0.png"), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match=r"both videos \(text.mp4, …\) and folders of images \(empty, …\)"):
        clips.open_clips(tmp_path)


@pytest.mark.parametrize("beside", ["film.mp4", "clip/0.png"])
def test_pictures_beside_clips_are_not_taken_for_all_there_is(tmp_path, beside):
    for name in ("preview.png", beside):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(transforms.encode_png(np.zeros((8, 8, 3), np.uint8)))
    with pytest.raises(ValueError, match=r"has both .* and images \(preview.png, …\): name a folder with one kind"):
        clips.open_clips(tmp_path)


def test_the_users_folder_may_be_called_by_its_sign(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "frames", 3)
    assert list(clips.open_clips("~/frames").lengths) == [3]
