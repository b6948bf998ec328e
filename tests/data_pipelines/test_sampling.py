import collections

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
    with pytest.raises(ValueError, match="two frames, the clip has 1"):
        sampling.sample_pair(1, np.random.default_rng(0))
