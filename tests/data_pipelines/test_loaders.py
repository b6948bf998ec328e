import collections
import itertools
import json

import numpy as np
import pytest
from absl import flags

from data_pipelines import loaders
from data_pipelines.loaders import Reading
from data_pipelines.sampling import Sampling
from tests.data_pipelines.numbered_clips import (
    SIZE,
    NumberedClips,
    RampClips,
    UnevenClips,
    assert_equal,
    levels,
    places,
)


def take(batches, count):
    return list(itertools.islice(batches, count))


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
@pytest.mark.parametrize(("rows", "count"), [(8, 2), (8, 8), (40, 2), (40, 8)])  # 40: read in groups of 16
def test_any_number_of_processes_makes_the_same_global_batches(kind, rows, count):
    expected = take(KINDS[kind](CLIPS, rows, SIZE, 3, start_step=1), 3)
    shares = [take(KINDS[kind](CLIPS, rows, SIZE, 3, start_step=1, reading=Reading(i, count)), 3) for i in range(count)]

    def joined(parts):
        if isinstance(parts[0], dict):
            return {key: joined([part[key] for part in parts]) for key in parts[0]}
        assert all(len(part) == rows // count for part in parts)
        return np.concatenate(parts)

    for step in range(3):
        assert_equal(joined([share[step] for share in shares]), expected[step])


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_the_number_of_threads_changes_nothing(threads):
    reading = Reading(num_threads=threads, prefetch=1)
    for batch, expected in zip(
        take(loaders.pair_batches(CLIPS, 4, SIZE, 0, reading=reading), 20),
        take(loaders.pair_batches(CLIPS, 4, SIZE, 0), 20),
        strict=True,
    ):
        assert_equal(batch, expected)


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
        (dict(batch_size=6, reading=Reading(0, 4)), "batch_size is 6: .* multiple of the 4 processes"),
        (dict(image_size=-4), "image_size is -4"),
        (dict(image_size=8), "is 4×4 .*image_size is 8"),
        (dict(seed=-1), "seed is -1"),
        (dict(start_step=-1), "start_step is -1"),
        (dict(clips=NumberedClips([])), "no clips"),
        (dict(clips=NumberedClips([5, 1])), r"clip clip1 has 1 frame\(s\), 2 needed"),
        (dict(clips=NumberedClips([5, 0])), r"clip clip1 has 0 frame\(s\)"),
        (dict(sampling=Sampling(min_distance=2)), r"clip clip2 has 2 frame\(s\), 3 needed: .* lower min_distance"),
        (dict(reading=Reading(num_workers=2)), "num_workers is 2, which needs parsed absl flags"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_errors_come_at_once(kind, change, message, monkeypatch):
    monkeypatch.setattr(flags, "FLAGS", flags.FlagValues())  # another test may have parsed the others
    settings = dict(clips=CLIPS, batch_size=4, image_size=SIZE, seed=0) | change
    with pytest.raises(ValueError, match=message):
        KINDS[kind](settings.pop("clips"), **settings)


def test_a_source_clip_may_have_one_frame_but_not_none():
    next(loaders.analogy_batches(CLIPS, NumberedClips([1]), 2, SIZE, 0))
    with pytest.raises(ValueError, match="clip0 has 0 frame"):
        loaders.analogy_batches(CLIPS, NumberedClips([0]), 2, SIZE, 0)


def test_a_later_frame_of_another_size_is_named():
    with pytest.raises(ValueError, match="of clip clip1 is 5×4"):
        take(loaders.pair_batches(UnevenClips([3, 3]), 2, SIZE, 0), 1)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("process_index", -1, "process_index is -1: use at least 0"),
        ("process_index", 1, "process_index is 1: of 1"),
        ("process_count", 0, "process_count is 0"),
        ("num_workers", -1, "num_workers is -1: use at least 0"),
        ("num_threads", -1, "num_threads is -1: use at least 0"),
        ("prefetch", 0, "prefetch is 0"),
        ("max_bad_records", -1, "max_bad_records is -1"),
    ],
)
def test_numbers_of_reading_are_checked(name, value, message):
    with pytest.raises(ValueError, match=message):
        Reading(**{name: value})


def test_the_rows_of_a_seed_stay_the_same_from_version_to_version():
    # A run of an earlier version goes on with the batches that it would have had.
    batch = next(loaders.analogy_batches(CLIPS, NumberedClips([4, 5]), 3, SIZE, 7, start_step=1_000))
    assert {key: [place[:2] for place in places(images)] for key, images in batch.items()} == {
        "reference": [(0, 6), (2, 0), (3, 2)],
        "driving": [(0, 0), (2, 1), (3, 3)],
        "source": [(0, 2), (1, 4), (1, 0)],
    }


@pytest.mark.parametrize("kind", KINDS)
def test_frames_of_a_clip_keep_the_distances_asked_for(kind):
    sampling = Sampling(min_distance=3, max_distance=5)
    for batch in take(KINDS[kind](NumberedClips([7, 30, 4]), 6, SIZE, 0, sampling=sampling), 20):
        for part in [batch] if "driving" in batch else batch.values():
            first = places(part.get("reference", part["source"]))
            distances = [abs(a[1] - b[1]) for a, b in zip(first, places(part["driving"]), strict=True)]
            assert set(distances) <= {3, 4, 5}


def test_by_identity_every_identity_serves_once_an_epoch():
    clips = NumberedClips([3] * 6, identities=["a", "a", "a", "a", "b", "c"])
    batches = take(loaders.pair_batches(clips, 3, SIZE, 0, sampling=Sampling(identity_balanced=True)), 60)
    drawn = [sorted(clip for clip, _, _ in places(batch["source"])) for batch in batches]
    assert all(a in (0, 1, 2, 3) and rest == [4, 5] for a, *rest in drawn)
    assert min(collections.Counter(a for a, *_ in drawn).values()) > 5  # of 15 expected


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(("weights", "rows"), [((1, 1), (8, 8)), ((3, 1), (12, 4)), ((0.1, 0.7), (2, 14))])
def test_driver_weights_share_out_the_rows_of_a_step(weights, rows, count):
    def batches(process, processes):
        reading = Reading(process, processes)
        return loaders.stage2_batches(CLIPS, CLIPS, 8, SIZE, 0, 5, reading=reading, driver_weights=weights)

    whole = next(batches(0, 1))
    parts = [next(batches(process, count)) for process in range(count)]
    for kind, expected in zip(("r2c", "c2r"), rows, strict=True):
        for key, images in whole[kind].items():
            assert len(images) == expected
            np.testing.assert_array_equal(np.concatenate([part[kind][key] for part in parts]), images)


@pytest.mark.parametrize(
    ("weights", "processes", "message"),
    [
        ((1, 2), 1, "give 5.33333 and 10.6667 of the 16 rows .* as with 5 and 11"),
        ((5, 3), 4, "give 10 and 6 of .* multiple of the 4 process.* as with 8 and 8"),
        ((1, 1000), 2, "as with 2 and 14"),
        ((1000, 1), 2, "as with 14 and 2"),
        ((0, 1), 1, "driver_weights are 0 and 1: use two numbers above 0"),
        ((1, float("nan")), 1, "driver_weights are 1 and nan"),
    ],
)
def test_driver_weights_that_do_not_fit_are_told(weights, processes, message):
    with pytest.raises(ValueError, match=message):
        loaders.stage2_batches(CLIPS, CLIPS, 8, SIZE, 0, reading=Reading(0, processes), driver_weights=weights)


def test_frames_of_a_clip_are_mirrored_together_and_the_other_clip_by_itself():
    clips = RampClips([3, 4])
    seen = collections.Counter()
    for batch in take(loaders.analogy_batches(clips, clips, 8, SIZE, 0, sampling=Sampling(flip=True)), 10):
        slopes = [levels(batch[key])[:, 0, 1, 0] - levels(batch[key])[:, 0, 0, 0] for key in batch]
        seen.update(zip(*(slope.tolist() for slope in slopes), strict=True))
    # (reference, driving, source): 20 of each expected.
    assert set(seen) == {(5, 5, 5), (5, 5, -5), (-5, -5, 5), (-5, -5, -5)} and min(seen.values()) > 8


def test_frames_of_a_clip_change_colour_alike_and_the_other_clip_by_itself():
    clips = RampClips([3, 4])
    changes = set()
    for batch in take(loaders.analogy_batches(clips, clips, 8, SIZE, 0, sampling=Sampling(colour_jitter=0.3)), 4):
        np.testing.assert_array_equal(batch["reference"], batch["driving"])
        changes.update(tuple(row) for key in ("driving", "source") for row in levels(batch[key])[:, 0, 0].tolist())
    assert len(changes) > 60  # of 64 clips


def test_augmentation_draws_no_other_frames():
    plain, flat = (
        take(loaders.pair_batches(CLIPS, 4, SIZE, 0, sampling=sampling), 5)
        for sampling in (Sampling(), Sampling(flip=True))
    )
    for batch, expected in zip(flat, plain, strict=True):
        assert_equal(batch, expected)  # pictures that are the same when mirrored


def test_the_state_tells_whatever_changes_the_batches_and_nothing_else():
    def state(clips=CLIPS, batch_size=4, seed=0, **options):
        return loaders.stage2_batches(clips, NumberedClips([4]), batch_size, SIZE, seed, **options).state

    assert json.loads(json.dumps(state())) == state(start_step=3, reading=Reading(1, 2, num_threads=1)) == state()
    others = [
        state(clips=NumberedClips([7, 30, 2, 12, 101])),
        state(clips=NumberedClips([7, 30, 2, 12, 100], identities=list("aabcd"))),
        state(batch_size=8),
        state(seed=1),
        state(driver_weights=(3, 1)),
        *(state(sampling=Sampling(**{name: value})) for name, value in CHANGES.items()),
    ]
    assert all(other != state() for other in others)
    assert state()["real"].startswith("5 clips of 151 frames, SHA-256 ")


CHANGES = {"max_distance": 9, "identity_balanced": True, "flip": True, "colour_jitter": 0.1}
