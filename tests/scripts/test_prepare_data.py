"""scripts/prepare_data.py and inspect_data.py on a made-up tree: what they say, and what a kill does to them."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from data_pipelines import transforms, video
from data_pipelines.preparation.cut_options import CutOptions
from data_pipelines.preparation.layouts import find_items
from data_pipelines.preparation.plan import make_plan
from scripts.preparations.report import print_plan, print_report
from tests.data_pipelines.preparation import trees

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = (f"--image_size={trees.SIDE}", "--jpeg_quality=0", "--shard_mib=0.002")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return trees.make_tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="module")
def made(run_script, tree, tmp_path_factory):
    """The output folder of an undisturbed run, and what it printed."""
    output = tmp_path_factory.mktemp("made") / "output"
    done = run_script("prepare_data", "voxceleb", f"--input={tree}", f"--output={output}", "--workers=1", *OPTIONS)
    assert done.returncode == 0, done.stderr
    return output, done.stdout


def content(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_totals_and_what_deserves_a_look_are_printed(made):
    lines = made[1].splitlines()
    assert "test: 1 clips, 3 frames, 1 identities" in lines
    assert "train: 9 clips, 34 frames, 6 identities" in lines
    assert any(line.startswith("dropped: 5 (") for line in lines)
    assert any("1 clips are there more than once, as train/train/id1#7w0I" in line for line in lines)


def test_many_clips_that_are_the_same_are_not_all_printed(capsys):
    duplicates = [[f"train/{number}" for number in range(1000)]]
    report = {"splits": {}, "dropped": 0, "duplicates": duplicates, "identities_in_several_splits": []}
    print_report(report, Path("out"))
    assert "more than once, as train/0 = train/1 = … (1000 in all) (out/report.json)" in capsys.readouterr().out


def test_split_folders_that_count_for_nothing_are_told_with_the_plan(tmp_path, capsys):
    for name in ("vox/train/a.mp4", "more/b.mp4"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("a")
    plan = make_plan("voxceleb", *find_items(tmp_path), CutOptions())
    print_plan(plan)
    told = capsys.readouterr().out
    assert "warning: 1 items lie in folders with names of splits" in told and "as train in vox/train/a.mp4" in told
    print_plan(plan, split_file=True)
    assert "warning" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("names", "warning"),
    [
        (("mp4/a.mp4", "mp4/b.mp4"), "all 2 items have one identity, mp4, and thus lie in one split"),
        (("train/a.mp4", "test/b.mp4", "c.mp4"), "1 items lie in no split's folder, as c.mp4"),
        (("train/a.mp4", "test/b.mp4"), None),
        (("a.mp4", "b.mp4"), None),
    ],
)
def test_what_the_layout_may_not_mean_is_told_with_the_plan(tmp_path, capsys, names, warning):
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("a")
    print_plan(make_plan("voxceleb", *find_items(tmp_path), CutOptions()))
    told = capsys.readouterr().out
    assert f"warning: {warning}" in told if warning else "warning" not in told


def test_killed_again_and_again_it_ends_as_an_undisturbed_run(run_script, tree, tmp_path):
    # Ten kills: when a shard more is finished than at the last one, and a little later. There are shards enough.
    shutil.copytree(tree, tmp_path / "tree")
    for number in range(36):
        shutil.copytree(tree / "train/plain clip", tmp_path / f"tree/train/another {number}")
    command = ["voxceleb", f"--input={tmp_path / 'tree'}", "--workers=2", *OPTIONS]
    assert run_script("prepare_data", *command, f"--output={tmp_path / 'undisturbed'}").returncode == 0
    output = tmp_path / "output"
    command = [sys.executable, "scripts/prepare_data.py", *command, f"--output={output}"]
    generator, shards = random.Random(0), 0
    for _ in range(10):
        run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while run.poll() is None and finished_shards(output) <= shards:
            time.sleep(0.001)
        time.sleep(generator.uniform(0, 0.02))
        assert run.poll() is None, "it ended before it could be killed"
        workers = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        run.send_signal(signal.SIGKILL)
        run.wait()
        assert len(workers) > 1 and all_end(workers)
        shards = finished_shards(output)
    assert run_script("prepare_data", *command[2:]).returncode == 0
    assert content(output) == content(tmp_path / "undisturbed")


def all_end(processes):
    """Whether they are gone within ten seconds."""
    until = time.monotonic() + 10
    while any(Path(f"/proc/{process}").exists() for process in processes):
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def finished_shards(output):
    return len(list((output / "unfinished").glob("shard*.json")))


def test_inspection_counts_draws_and_checks(run_script, made, tmp_path):
    done = run_script("inspect_data", made[0], "--check", f"--sheets={tmp_path}/new/sheets", "--columns=3")
    assert done.returncode == 0, done.stderr
    assert "every record is whole" in done.stdout
    counts = json.loads(done.stdout[: done.stdout.index("\n}") + 2])["train"]
    assert (counts["clips"], counts["frames"], counts["identities"], counts["image_size"]) == (9, 34, 6, trees.SIDE)
    assert counts["frames_per_clip"] == {"min": 3, "median": 4, "max": 5}
    sheet = video.read_image(tmp_path / "new/sheets/contact_sheet_test.png")
    expected = [transforms.to_square(trees.frame(50 + n), 96) for n in range(3)]
    np.testing.assert_array_equal(sheet, np.concatenate(expected, axis=1))
    assert video.read_image(tmp_path / "new/sheets/contact_sheet_train.png").shape == (8 * 96, 3 * 96, 3)


def copied(data, target):
    for name, content_of_file in content(data).items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(content_of_file)
    return target


def test_inspection_finds_a_bit_that_no_record_has(run_script, made, tmp_path):
    copy = copied(made[0], tmp_path / "copy")
    shard = next(copy.rglob("voxceleb-test*"))
    data = bytearray(shard.read_bytes())
    data[-100] ^= 1  # ArrayRecord fills its last block, of 64 KiB, with zeros around a pointer to the index
    shard.write_bytes(data)
    done = run_script("inspect_data", copy, "--check", "--sheets=")
    assert done.returncode == 1
    told = done.stdout + done.stderr
    assert f"fault: {shard}: its bytes are not those that were written" in told
    assert "fault: frame" not in told and "1 faults" in told


def test_inspection_says_what_it_cannot_compare(run_script, made, tmp_path):
    """Of shards that an earlier version wrote."""
    file = next(copied(made[0], tmp_path / "copy").rglob("metadata.json"))
    metadata = json.loads(file.read_text())
    shards = metadata["shard_sha256"]["train"]
    shards[0] = None
    del metadata["shard_sha256"]["test"]
    file.write_text(json.dumps(metadata))
    done = run_script("inspect_data", tmp_path / "copy", "--check", "--sheets=")
    assert done.returncode == 0 and "every record is whole" in done.stdout
    assert "train: 1 shards have no recorded SHA-256" in done.stdout and len(shards) > 1
    assert "test: 1 shards have no recorded SHA-256" in done.stdout


def test_inspection_finds_what_has_changed(run_script, made, tmp_path):
    copy = copied(made[0], tmp_path / "copy")
    shard = next(copy.rglob("voxceleb-test*"))
    data = bytearray(shard.read_bytes())
    where = data.index(b"IDAT") + 20
    data[where : where + 4] = b"oops"
    shard.write_bytes(data)
    done = run_script("inspect_data", copy, "--check", "--sheets=")
    assert done.returncode == 1
    assert "fault: frame" in done.stderr + done.stdout and str(shard) in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["voxceleb"], "voxceleb needs --input=FOLDER"),
        (["cartoon", "--input=/none"], "/none: no such folder"),
        (["images", "--input={tree}", "--shard=8"], "--shard=8: write i/N"),
        (["images", "--input={tree}", "--split_file=/none.csv"], "/none.csv: the split file cannot be read"),
        (["voxceleb", "--input={tree}", "--image_size=0"], "image_size is 0"),
        (["voxceleb", "--input={tree}", "--shard_mib=inf"], "--shard_mib=inf: a shard needs a size"),
        (["puppets", "--shard=0/8"], "--shard is nothing for puppets"),
        (["cartoon", "--input=~/no such folder"], f"{Path.home()}/no such folder: no such folder"),
    ],
)
def test_mistakes_are_one_line(run_script, tree, tmp_path, arguments, message):
    arguments = [argument.format(tree=tree) for argument in arguments]
    done = run_script("prepare_data", *arguments, f"--output={tmp_path / 'out'}")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and message in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def change_table(metadata):
    """Faults that leave every record readable: a row's hash, the names of two clips."""
    rows = metadata["clips"]["train"]
    rows[0]["sha256"] = "0" * 64
    rows[1]["name"], rows[2]["name"] = rows[2]["name"], rows[1]["name"]
    return rows[0]["name"], rows[1]["name"]


def test_inspection_finds_records_that_are_not_what_the_table_says(run_script, made, tmp_path):
    shutil.copytree(made[0], tmp_path / "copy")
    file = next((tmp_path / "copy").rglob("metadata.json"))
    metadata = json.loads(file.read_text())
    hashed, swapped = change_table(metadata)
    file.write_text(json.dumps(metadata))
    done = run_script("inspect_data", tmp_path / "copy", "--check", "--sheets=")
    told = done.stdout + done.stderr
    assert done.returncode == 1
    assert f"fault: clip {hashed}: its pictures are not those that were written" in told
    assert f"fault: frame 0 of clip {swapped}: the record is frame" in told
