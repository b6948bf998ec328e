"""The preparation as an Apache Beam pipeline, on Beam's own runner."""

import pytest

from data_pipelines.preparation import prepare
from data_pipelines.preparation.cut_options import CutOptions
from data_pipelines.preparation.layouts import find_items
from data_pipelines.preparation.plan import make_plan
from tests.data_pipelines.preparation import trees


def content(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.mark.filterwarnings("default")  # Beam's own affair.
def test_beam_writes_the_same_bytes(tmp_path):
    pytest.importorskip("apache_beam")
    tree = trees.make_tree(tmp_path / "tree")
    options = CutOptions(image_size=trees.SIDE, jpeg_quality=0)
    plan = make_plan("voxceleb", *find_items(tree), options, shard_bytes=4000)
    expected = prepare.prepare(plan, tree, tmp_path / "here")
    report = prepare.prepare(plan, tree, tmp_path / "beam", beam_options=["--runner=DirectRunner"])
    assert report == expected and expected["splits"]["train"]["clips"] == 9
    assert content(tmp_path / "beam") == content(tmp_path / "here")
