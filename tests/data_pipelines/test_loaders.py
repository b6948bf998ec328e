import collections
import itertools

import numpy as np
import pytest

from data_pipelines import loaders

SIZE = 4


class NumberedClips:
    """Flat frames that say where they come from: red is the clip, green the frame, blue the source."""

    def __init__(self, lengths, mark=0, size=SIZE):
        self.lengths = lengths
        self._mark = mark
        self._size = size

    def __len__(self):
        return len(self.lengths)

    def name(self, clip):
        return f"clip{clip}"

    def frame(self, clip, index):
        return np.full((self._size, self._size, 3), (clip, index, self._mark), np.uint8)


def places(images):
    """(clip, frame, mark) of each row of a float batch, after a check that it is flat."""
    assert images.dtype == np.float32 and images.shape[1:] == (SIZE, SIZE, 3)
    levels = (images + 1) * 127.5
    np.testing.assert_allclose(levels, levels[:, :1, :1].repeat(SIZE, 1).repeat(SIZE, 2), atol=1e-4)
    return [tuple(row) for row in np.round(levels[:, 0, 0]).astype(int).tolist()]


def take(batches, count):
    return list(itertools.islice(batches, count))


def assert_equal(left, right):
    assert left.keys() == right.keys()
    for key in left:
        (assert_equal if isinstance(left[key], dict) else np.testing.assert_array_equal)(left[key], right[key])


def test_a_pair_is_two_distinct_frames_of_one_clip():
    for batch in take(loaders.pair_batches(NumberedClips([2, 9, 5]), 6, SIZE, 0), 20):
        assert set(batch) == {"source", "driving"}
        for source, driving in zip(places(batch["source"]), places(batch["driving"]), strict=True):
            assert source[0] == driving[0] and source[1] != driving[1]


def test_every_clip_serves_once_an_epoch_in_changing_order():
    # A batch of more rows than there are clips spans epochs.
    rows = sum((places(b["source"]) for b in take(loaders.pair_batches(NumberedClips([3] * 5), 8, SIZE, 0), 10)), [])
    epochs = [tuple(clip for clip, _, _ in rows[start : start + 5]) for start in range(0, 80, 5)]
    assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in epochs)
    assert len(set(epochs)) > 8  # 16 draws out of 120 orders


def test_all_ordered_pairs_of_a_clip_come_up():
    drawn = collections.Counter()
    for batch in take(loaders.pair_batches(NumberedClips([3]), 16, SIZE, 0), 10):
        drawn.update((s[1], d[1]) for s, d in zip(places(batch["source"]), places(batch["driving"]), strict=True))
    assert set(drawn) == {(a, b) for a in range(3) for b in range(3) if a != b}
    assert min(drawn.values()) > 10  # of 27 expected


def test_an_analogy_tuple_has_two_frames_of_a_driver_clip_and_one_of_a_source_clip():
    drivers, sources = NumberedClips([4] * 6, mark=1), NumberedClips([1, 5, 3], mark=2)
    served = []
    for batch in take(loaders.analogy_batches(drivers, sources, 6, SIZE, 0), 10):
        assert set(batch) == {"reference", "driving", "source"}
        reference, driving, source = (places(batch[key]) for key in ("reference", "driving", "source"))
        for a, b, c in zip(reference, driving, source, strict=True):
            assert a[0] == b[0] and a[1] != b[1] and (a[2], b[2], c[2]) == (1, 1, 2)
        assert sorted(clip for clip, _, _ in reference) == [0, 1, 2, 3, 4, 5]
        assert sorted(clip for clip, _, _ in source) == [0, 0, 1, 1, 2, 2]
        served.append(tuple((a[0], c[0]) for a, c in zip(reference, source, strict=True)))
    assert len(set(served)) > 5  # which driver meets which source changes


def test_drivers_and_sources_of_equal_number_are_shuffled_apart():
    clips = NumberedClips([2] * 20)
    batch = next(loaders.analogy_batches(clips, clips, 20, SIZE, 0))
    assert [p[0] for p in places(batch["reference"])] != [p[0] for p in places(batch["source"])]


def test_stage2_has_real_drivers_in_r2c_and_cartoon_drivers_in_c2r():
    real, cartoon = NumberedClips([4] * 6, mark=1), NumberedClips([4] * 6, mark=2)
    batch = next(loaders.stage2_batches(real, cartoon, 6, SIZE, 0))
    marks = {(kind, key): {p[2] for p in places(batch[kind][key])} for kind in batch for key in batch[kind]}
    real_ones, cartoon_ones = {1}, {2}
    assert marks == {
        ("r2c", "reference"): real_ones,
        ("r2c", "driving"): real_ones,
        ("r2c", "source"): cartoon_ones,
        ("c2r", "reference"): cartoon_ones,
        ("c2r", "driving"): cartoon_ones,
        ("c2r", "source"): real_ones,
    }
    # The two directions draw apart.
    r2c, c2r = (places(batch[kind]["reference"]) for kind in ("r2c", "c2r"))
    assert [p[:2] for p in r2c] != [p[:2] for p in c2r]


KINDS = {
    "pair": lambda clips, *args, **kwargs: loaders.pair_batches(clips, *args, **kwargs),
    "analogy": lambda clips, *args, **kwargs: loaders.analogy_batches(clips, clips, *args, **kwargs),
    "stage2": lambda clips, *args, **kwargs: loaders.stage2_batches(clips, clips, *args, **kwargs),
}
CLIPS = NumberedClips([7, 30, 2, 12, 100])


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_resumes_gets_what_it_would_have_got(kind):
    uninterrupted = take(KINDS[kind](CLIPS, 4, SIZE, 3), 12)
    for batch, expected in zip(take(KINDS[kind](CLIPS, 4, SIZE, 3, start_step=5), 7), uninterrupted[5:], strict=True):
        assert_equal(batch, expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [2, 8])
def test_any_number_of_processes_makes_the_same_global_batches(kind, count):
    expected = take(KINDS[kind](CLIPS, 8, SIZE, 3, start_step=1), 3)
    shares = [
        take(KINDS[kind](CLIPS, 8, SIZE, 3, start_step=1, process_index=i, process_count=count), 3)
        for i in range(count)
    ]

    def joined(parts):
        if isinstance(parts[0], dict):
            return {key: joined([part[key] for part in parts]) for key in parts[0]}
        assert all(len(part) == 8 // count for part in parts)
        return np.concatenate(parts)

    for step in range(3):
        assert_equal(joined([share[step] for share in shares]), expected[step])


def test_the_number_of_threads_changes_nothing():
    for one, many in zip(
        take(loaders.pair_batches(CLIPS, 4, SIZE, 0, num_threads=1, prefetch=1), 20),
        take(loaders.pair_batches(CLIPS, 4, SIZE, 0, num_threads=4, prefetch=8), 20),
        strict=True,
    ):
        assert_equal(one, many)


@pytest.mark.parametrize("kind", KINDS)
def test_seeds_differ_also_over_epochs(kind):
    # Orders by seed + epoch would make one seed repeat the next one's an epoch later.
    def orders(seed):
        batches = take(KINDS[kind](NumberedClips([100] * 8), 8, SIZE, seed), 4)
        return {tuple(p[0] for p in places(batch.get("r2c", batch)["driving"])) for batch in batches}

    assert not orders(0) & orders(1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(batch_size=0), "batch_size is 0"),
        (dict(batch_size=6, process_count=4), "batch_size is 6: .* multiple of the 4 processes"),
        (dict(image_size=-4), "image_size is -4"),
        (dict(image_size=8), "is 4×4 .*image_size is 8"),
        (dict(seed=-1), "seed is -1"),
        (dict(start_step=-1), "start_step is -1"),
        (dict(process_index=-1), "process_index is -1"),
        (dict(process_index=2, process_count=2), "process_index is 2: of 2"),
        (dict(process_count=0), "process_count is 0"),
        (dict(num_threads=0), "num_threads is 0"),
        (dict(prefetch=0), "prefetch is 0"),
        (dict(clips=NumberedClips([])), "no clips"),
        (dict(clips=NumberedClips([5, 1])), r"clip clip1 has 1 frame\(s\), 2 needed"),
        (dict(clips=NumberedClips([5, 0])), r"clip clip1 has 0 frame\(s\)"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_errors_come_at_once(kind, change, message):
    settings = dict(clips=CLIPS, batch_size=4, image_size=SIZE, seed=0) | change
    with pytest.raises(ValueError, match=message):
        KINDS[kind](settings.pop("clips"), **settings)


def test_a_source_clip_may_have_one_frame_but_not_none():
    next(loaders.analogy_batches(CLIPS, NumberedClips([1]), 2, SIZE, 0))
    with pytest.raises(ValueError, match="clip0 has 0 frame"):
        loaders.analogy_batches(CLIPS, NumberedClips([0]), 2, SIZE, 0)


def test_a_later_frame_of_another_size_is_named():
    class Uneven(NumberedClips):
        def frame(self, clip, index):
            return np.zeros((SIZE, SIZE + clip, 3), np.uint8)

    with pytest.raises(ValueError, match="of clip clip1 is 5×4"):
        take(loaders.pair_batches(Uneven([3, 3]), 2, SIZE, 0), 1)
