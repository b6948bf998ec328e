"""Frames that cannot be read: skipped, replaced, counted, named, and too many of them."""

import itertools

import numpy as np
import pytest

from data_pipelines import loaders
from data_pipelines.clip_source import BadRecord
from data_pipelines.loaders import Reading
from tests.data_pipelines.numbered_clips import SIZE, NumberedClips, assert_equal, places

LENGTHS = [4] * 10
BAD = {(2, 1), (7, 0), (7, 3)}
DAMAGED = NumberedClips(LENGTHS, bad=BAD)


def pairs(clips=DAMAGED, start_step=0, batch_size=10, **reading):
    return loaders.pair_batches(clips, batch_size, SIZE, 0, start_step, reading=Reading(**reading))


def take(batches, count=12):
    return list(itertools.islice(batches, count))


def rows(batches):
    return [row for b in batches for row in zip(places(b["source"]), places(b["driving"]), strict=True)]


def test_only_the_rows_that_met_a_bad_record_are_replaced():
    replaced = 0
    for (source, driving), (s, d) in zip(rows(take(pairs())), rows(take(pairs(NumberedClips(LENGTHS)))), strict=True):
        assert source[0] == driving[0] and source[1] != driving[1]
        assert source[:2] not in BAD and driving[:2] not in BAD
        if {s[:2], d[:2]} & BAD:
            replaced += 1
        else:
            assert (source, driving) == (s, d)
    assert replaced > 5


def test_replacements_are_the_same_for_any_threads_processes_and_after_a_resume():
    expected = take(pairs())
    for batch, same in zip(take(pairs(num_threads=0)), expected, strict=True):
        assert_equal(batch, same)
    for batch, same in zip(take(pairs(start_step=5), 7), expected[5:], strict=True):
        assert_equal(batch, same)
    halves = [take(pairs(process_index=process, process_count=2)) for process in range(2)]
    for first, second, same in zip(*halves, expected, strict=True):
        assert_equal({key: np.concatenate([first[key], second[key]]) for key in same}, same)


def test_each_bad_record_is_counted_once_and_named_once_in_the_log(caplog):
    batches = pairs()
    take(batches, 40)
    expected = {f"frame {frame} of clip clip{clip} in shard{clip}: damaged" for clip, frame in BAD}
    assert len(batches.bad_records) == 3 and set(batches.bad_records) == expected
    said = [record.getMessage() for record in caplog.records if "bad record" in record.getMessage()]
    assert said == [
        f"bad record {number}, replaced by another draw: {message}"
        for number, message in enumerate(batches.bad_records, 1)
    ]


def test_both_directions_of_stage2_count_together():
    batches = loaders.stage2_batches(DAMAGED, NumberedClips([3] * 4, mark=1, bad={(0, 0)}), 10, SIZE, 0)
    take(batches, 40)
    assert len(batches.bad_records) == 4


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("batch_size", [1, 10, 200])  # together over batches, or within the first
def test_more_bad_records_than_allowed_stop_the_run(threads, batch_size):
    def run(limit):
        return take(pairs(batch_size=batch_size, max_bad_records=limit, num_threads=threads), 400 // batch_size)

    with pytest.raises(BadRecord, match=r"^3 bad record\(s\), more than max_bad_records = 2: .*last: frame . of clip"):
        run(2)
    run(3)


def test_none_allowed_means_none():
    with pytest.raises(BadRecord, match="1 bad record.*more than max_bad_records = 0"):
        take(pairs(max_bad_records=0), 40)


def test_many_in_one_batch_stop_it_before_the_rest_is_tried():
    everything = {(clip, frame) for clip in range(10) for frame in range(4)} - {(0, 0)}
    with pytest.raises(BadRecord, match="21 bad record"):
        take(pairs(NumberedClips(LENGTHS, bad=everything), max_bad_records=20), 1)


def test_a_row_without_any_readable_draw_gives_up():
    # No pair can be made of one readable frame, and three bad ones are fewer than are allowed.
    with pytest.raises(BadRecord, match="100 draws for row 0 .* clip clip0 in shard0"):
        take(pairs(NumberedClips([4], bad={(0, 1), (0, 2), (0, 3)})), 1)


def test_a_first_frame_that_is_bad_does_not_end_the_run_before_it_began():
    take(pairs(NumberedClips(LENGTHS, bad={(0, 0), (1, 0)})), 2)
    with pytest.raises(ValueError, match="image_size is 4"):
        pairs(NumberedClips(LENGTHS, bad={(0, 0), (1, 0)}, size=5))


@pytest.mark.parametrize(("limit", "message"), [(100, "first frame of no clip.* clip9 "), (4, "5 bad record")])
def test_clips_of_which_none_can_be_read_are_told_at_once(limit, message):
    with pytest.raises(BadRecord, match=message):
        pairs(NumberedClips(LENGTHS, bad={(clip, 0) for clip in range(10)}), max_bad_records=limit)
