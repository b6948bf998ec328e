import collections
import concurrent.futures

import numpy as np
import pytest

from data_pipelines import sampling


def test_every_clip_comes_once_an_epoch_in_changing_order():
    rows = [sampling.clip_of_row(row, 5, seed=0) for row in range(500)]
    epochs = [tuple(rows[start : start + 5]) for start in range(0, 500, 5)]
    assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in epochs)
    assert len(set(epochs)) > 50  # 100 draws out of 120 orders give 68
    assert rows != [sampling.clip_of_row(row, 5, seed=1) for row in range(500)]
    assert [sampling.clip_of_row(row, 1, seed=0) for row in range(3)] == [0, 0, 0]


def test_a_pair_is_two_distinct_frames_and_every_ordered_pair_is_equally_likely():
    rng = np.random.default_rng(0)
    draws = collections.Counter(sampling.sample_pair(4, rng) for _ in range(12_000))
    assert set(draws) == {(a, b) for a in range(4) for b in range(4) if a != b}
    # 1000 expected of each, standard deviation 30.
    assert min(draws.values()) > 850 and max(draws.values()) < 1150


def test_an_analogy_tuple_has_two_distinct_driver_frames_and_any_source_frame():
    rng = np.random.default_rng(0)
    draws = {sampling.sample_analogy(2, 3, rng) for _ in range(200)}
    assert draws == {(a, 1 - a, c) for a in range(2) for c in range(3)}


def test_the_generator_alone_decides():
    draws = [[sampling.sample_pair(1000, np.random.default_rng(seed)) for _ in range(3)] for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_a_single_frame_is_no_pair():
    with pytest.raises(ValueError, match="a pair 1 apart needs 2 frames, the clip has 1"):
        sampling.sample_pair(1, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("length", "low", "high"), [(5, 1, 1), (6, 2, None), (6, 2, 3), (6, 4, 9), (7, 4, 5), (6, 5, None), (9, 1, 8)]
)
def test_frames_of_a_pair_keep_their_distance(length, low, high):
    rng = np.random.default_rng(0)
    draws = collections.Counter(sampling.sample_pair(length, rng, low, high) for _ in range(4_000))
    allowed = {(a, b) for a in range(length) for b in range(length) if low <= abs(a - b) <= (high or length)}
    assert set(draws) == allowed
    # The first is any frame that has a partner, and the second any of its partners.
    partners = collections.Counter(a for a, _ in allowed)
    for (first, _), count in draws.items():
        expected = 4_000 / len(partners) / partners[first]
        assert abs(count - expected) < 5 * expected**0.5


@pytest.mark.parametrize(("length", "low"), [(4, 4), (4, 9), (4, 0)])
def test_frames_too_far_apart_are_told(length, low):
    with pytest.raises(ValueError, match=f"a pair {low} apart needs {low + 1} frames, the clip has 4"):
        sampling.sample_pair(length, np.random.default_rng(0), low)


def test_an_analogy_keeps_the_distance_in_the_driver():
    rng = np.random.default_rng(0)
    draws = {sampling.sample_analogy(4, 2, rng, 2, 2) for _ in range(200)}
    assert draws == {(a, b, c) for a, b in ((0, 2), (1, 3), (2, 0), (3, 1)) for c in (0, 1)}


def test_a_clip_order_by_identity_takes_each_identity_once_an_epoch_and_any_of_its_clips():
    order = sampling.ClipOrder(["a", "b", "a", "c", "a"], balanced=True, seed=0)
    drawn = [order(row, 0, sampling.row_generator(0, row)) for row in range(300)]
    epochs = [tuple("abaca"[clip] for clip in drawn[start : start + 3]) for start in range(0, 300, 3)]
    assert all(sorted(epoch) == ["a", "b", "c"] for epoch in epochs) and len(set(epochs)) == 6
    assert min(drawn.count(clip) for clip in (0, 2, 4)) > 15  # 33 expected
    assert drawn == [order(row, 0, sampling.row_generator(0, row)) for row in range(300)]


@pytest.mark.parametrize(
    ("balanced", "expected"), [(False, (1 / 4, 1 / 4, 1 / 4, 1 / 4)), (True, (1 / 6,) * 3 + (1 / 2,))]
)
def test_later_attempts_take_any_clip_or_identity(balanced, expected):
    order = sampling.ClipOrder(["a", "a", "a", "b"], balanced, seed=0)
    drawn = collections.Counter(order(3, attempt, sampling.row_generator(0, 3, attempt)) for attempt in range(1, 2001))
    for clip, share in enumerate(expected):
        assert abs(drawn[clip] / 2000 - share) < 0.05


def test_generators_of_rows_attempts_and_purposes_differ():
    keys = [(seed, row, attempt, use) for seed in (0, 1) for row in (0, 1) for attempt in (0, 1) for use in (0, 1)]
    draws = {tuple(sampling.row_generator(*key).integers(1 << 32, size=4).tolist()) for key in keys}
    assert len(draws) == len(keys)


def test_a_generator_leaves_nothing_to_the_next_row():
    def numbers(rng):
        return rng.integers(9, size=3, dtype=np.uint32).tolist(), rng.random(3).tolist()

    for row in (6, 7, 6):
        fresh = np.random.Generator(np.random.Philox(5, counter=[0, 1, 4, row]))
        assert numbers(sampling.row_generator(5, row, 4, 1)) == numbers(fresh)


def test_threads_do_not_share_generators():
    ours = sampling.row_generator(5, 6)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert pool.submit(sampling.row_generator, 5, 6).result() is not ours


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(min_distance=0), "min_distance is 0: use at least 1"),
        (dict(min_distance=5, max_distance=4), "max_distance is 4: use at least min_distance, 5"),
        (dict(max_distance=0), "max_distance is 0"),
        (dict(colour_jitter=-0.1), "colour_jitter is -0.1: use a number from 0"),
        (dict(colour_jitter=1), "colour_jitter is 1"),
        (dict(colour_jitter=float("nan")), "colour_jitter is nan"),
    ],
)
def test_options_out_of_range_are_told(options, message):
    with pytest.raises(ValueError, match=message):
        sampling.Sampling(**options)
