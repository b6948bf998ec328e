"""scripts/demo.py without its trainings and its network, which have tests of their own."""

import importlib
import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from absl import flags

from configs import puppets
from data_pipelines import video
from toontalker_jax.reenactment.transfer import KINDS


@pytest.fixture
def demo(monkeypatch):
    """The script without its flags, some of which other scripts define, too."""
    for kind in ("string", "integer", "list"):
        monkeypatch.setattr(flags, f"DEFINE_{kind}", lambda name, default, *_, **__: SimpleNamespace(value=default))
    return importlib.import_module("scripts.demo")


@pytest.fixture
def trainings(demo, monkeypatch):
    """The flags of each training that the demo starts; it leaves a loss that falls from 20 to 1."""
    started = []

    def script(name, *arguments):
        options = dict(argument.lstrip("-").split("=", 1) for argument in arguments if argument.startswith("--"))
        if name == "train.py":
            started.append(options)
            workdir = demo.Path(options["workdir"])
            workdir.mkdir()
            (workdir / "metrics.jsonl").write_text("".join(json.dumps({"loss": 20 - i}) + "\n" for i in range(20)))

    monkeypatch.setattr(demo, "script", script)
    return started


def still_picture(source, reference, driving):
    return np.stack([source] * len(driving))


def test_the_demo_trains_reenacts_and_reports(demo, trainings, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "load_model", lambda path: SimpleNamespace(config=SimpleNamespace(image_size=64)))
    monkeypatch.setattr(demo, "Reenactor", lambda *_, **__: SimpleNamespace(transfer=still_picture))
    output = tmp_path / "demo"
    options = {"_OUTPUT": output, "_CHECKPOINT": "a network", "_CASES": 1, "_STEPS": ["4", "2"]}
    for name, value in options.items():
        monkeypatch.setattr(demo, name, SimpleNamespace(value=value))
    monkeypatch.setattr(demo, "VIDEO_FRAMES", 6)
    demo.main(["demo"])

    for stage, training in enumerate(trainings, start=1):
        assert training.pop("config") == f"configs/puppets.py:stage={stage}"
        assert training.get("config.init") == (None if stage == 1 else str(output / "stage1"))
        known = dict(puppets.get_config(f"stage={stage}").to_dict())
        for key in (key.split(".")[1:] for key in training if key.startswith("config.")):
            assert key[0] in known and (len(key) == 1 or key[1] in known[key[0]])
    assert len(trainings) == 2
    report = json.loads((output / "report.json").read_text())
    assert set(report) == {"recovery", "cases", "train", "seconds"} and report["cases"] == 1
    assert report["recovery"] == dict.fromkeys(KINDS, 0.0)
    # Means of the first and the last four of 20.
    assert report["train"] == {"stage1_loss": [18.5, 2.5], "stage2_loss": [18.5, 2.5]}
    for kind in KINDS:
        frames = np.stack(list(video.read_frames(output / f"{kind}.mp4")))
        assert frames.shape == (6, 256, 4 * 256, 3)  # source | driver | result | truth
    assert cv2.imread(str(output / "grid.png")) is not None
    assert f"Look at {output}/: " in capsys.readouterr().out
