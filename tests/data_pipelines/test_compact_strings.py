"""Strings kept in few bytes are what they were."""

import pickle

import pytest

from data_pipelines.compact_strings import CompactStrings


def test_they_come_out_as_they_went_in():
    strings = ["id10001#a#000.mp4", "", "Zoë/目", "last"]
    kept = CompactStrings(iter(strings))
    assert list(kept) == strings and len(kept) == 4 and "Zoë/目" in kept
    assert list(pickle.loads(pickle.dumps(kept))) == strings
    assert list(CompactStrings([])) == []


@pytest.mark.parametrize("index", [2, -1])
def test_there_is_none_beyond_the_ends(index):
    with pytest.raises(IndexError, match=f"no string {index} of 2"):
        CompactStrings(["a", "b"])[index]
