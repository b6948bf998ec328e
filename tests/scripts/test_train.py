"""scripts/train.py from end to end on folders of frames: both stages, devices, what it says of mistakes."""

import dataclasses
import json
import re
import shutil

import jax
import numpy as np
import pytest

from configs import puppets, video
from configs import stage1 as papers_stage1
from scripts import recipe_data, recipe_networks
from scripts.torture_kills import final_state
from tests.conftest import LEAN
from tests.scripts.trainings import TINY_SETTINGS, metrics, params
from toontalker_jax.checkpoints import TrainCheckpoints, load_model, save_model
from toontalker_jax.training import setup
from toontalker_jax.training.setup import set_up
from toontalker_jax.training.sharding import Layout, abstract, make_mesh


def test_a_run_leaves_what_it_promises(stage1):
    names = {path.name for path in stage1.iterdir()}
    assert names == {"config.json", "parameters.txt", "checkpoints", "metrics.jsonl", "pace.jsonl", "tensorboard"}
    assert json.loads((stage1 / "config.json").read_text())["model"]["width"] == 16
    assert [line["step"] for line in metrics(stage1)] == [1, 2, 3, 4]
    terms = {"l1/real", "image_gradient/real", "change/real"}
    assert set(metrics(stage1)[0]) == terms | {"step", "loss", "gradient_norm", "still/real"}
    overview = (stage1 / "parameters.txt").read_text()
    assert overview.startswith("generator\n") and overview.count("Total:") == 1  # there is no discriminator


def test_two_processes_of_four_devices_train_as_one_device_does_which_goes_on(train, stage1, tmp_path):
    """The two by the launcher for one machine, with the state in slices over pairs of devices."""
    launcher = ("scripts/launch/local.py", "--processes=2", "--devices=4", "--")
    done = train(tmp_path, devices=4, launcher=launcher, steps=2, **{"mesh.fsdp": 2})
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1  # of process 0 alone
    done = train(tmp_path, steps=4)
    assert done.returncode == 0, done.stderr
    for one, eight in zip(metrics(stage1), metrics(tmp_path), strict=True):
        assert eight.pop("gradient_norm") == pytest.approx(one.pop("gradient_norm"), rel=1e-3)
        assert eight == pytest.approx(one, rel=1e-4)  # sums in another order
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), params(tmp_path), params(stage1))
    # At so low a rate parameters tell little of their gradients. Adam's means remember all four.
    ours, wanted = ({k: v for k, v in final_state(run).items() if "/mu/" in k} for run in (tmp_path, stage1))
    noise = 1e-5 * np.sqrt(sum(np.sum(mean**2) for mean in wanted.values()))
    apart = {k: np.linalg.norm(ours[k] - mean) / (np.linalg.norm(mean) + noise) for k, mean in wanted.items()}
    assert len(apart) > 100 and max(apart.values()) < 1e-4, apart


def test_a_misspelled_key_is_one_line(train, tmp_path):
    done = train(tmp_path / "run", batchsize=3)
    assert done.returncode == 1 and not (tmp_path / "run").exists()
    assert done.stderr.startswith("error: the recipe has no key 'batchsize'. Did you mean \"batch_size\"")
    assert done.stderr.count("\n") == 1


def test_what_is_wrong_with_a_recipe_is_told_without_a_network():
    config = video.get_config()
    config.r1.every = 0
    with pytest.raises(ValueError, match="r1.every = 0"):
        setup.check_recipe(config)
    config.r1.every, config.optimizer.decay = 1, "linear"
    with pytest.raises(ValueError, match="optimizer: decay = 'linear'"):
        setup.check_recipe(config)


@pytest.fixture(scope="module")
def prepared(run_script, clips, tmp_path_factory):
    """The clips as prepare_data.py writes them: 4 frames of an identity each."""
    path = tmp_path_factory.mktemp("prepared") / "data"
    options = ("--image_size=64", "--test_share=0", f"--output={path}")
    done = run_script("prepare_data", "cartoon", f"--input={clips}", *options)
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture(scope="module")
def damaged(prepared):
    """A copy with three pictures that cannot be read, and its shard's name."""
    copy = prepared.parent / "damaged"
    shutil.copytree(prepared, copy)
    shard = next(copy.rglob("*.array_record*"))
    data = bytearray(shard.read_bytes())
    pictures = [match.start() for match in re.finditer(b"\xff\xd8\xff", data)]
    for record in (1, 2, 5):
        data[pictures[record] + 100] ^= 255
    shard.write_bytes(data)
    return copy, shard.name


def test_the_papers_stage1_takes_prepared_data(prepared):
    config = papers_stage1.get_config()
    config.update_from_flattened_dict({"data.real": str(prepared), "batch_size": 2})
    batch = next(recipe_data.open_batches(config, 64)(reading=recipe_data.reading_options(config.data)))
    assert {key: images.shape for key, images in batch.items()} == dict.fromkeys(("source", "driving"), (2, 64, 64, 3))


SMALL = TINY_SETTINGS | {"model.image_size": 64, "model.align_corners": True}


def test_the_papers_stage2_keeps_what_it_was_told_of_the_data_and_tells_bad_records(
    train, stage1, prepared, damaged, tmp_path
):
    options = {"min_distance": 2, "max_distance": 3, "identity_balanced": True, "flip": True, "colour_jitter": 0.2}
    options |= {"driver_weights.real": 3, "driver_weights.cartoon": 1, "first": 1}
    sources = {f"data.{name}": value for name, value in (options | {"real": prepared, "cartoon": damaged[0]}).items()}
    sources |= {"data.workers": 2, "data.threads": 0} | SMALL
    # tests/training/test_stages.py has the losses by networks: their gradients take minutes to compile.
    alone = {f"weights.{name}": 0.0 for name in ("perceptual", "adversarial", "analogy")} | {"model.dropout": 0.0}
    done = train(tmp_path, "stage2.py", steps=3, init=stage1, batch_size=2, **alone, **sources)
    assert done.returncode == 0, done.stderr
    assert "bad record 1, replaced by another draw: frame " in done.stderr and damaged[1] in done.stderr
    assert set(load_model(tmp_path).domains) == {"real", "cartoon"}
    domains = {f"{name}/{d}" for name in ("l1", "still") for d in ("real", "cartoon")}
    assert set(metrics(tmp_path)[0]) == {"step", "loss", "gradient_norm"} | domains
    with TrainCheckpoints(tmp_path, read_only=True) as saved:
        data = saved.describe_step()[1]["metadata"]["data"]
    assert data.pop("real").startswith("2 clips of 6 frames") and data.pop("cartoon").startswith("2 clips of 8 frames")
    told = {name: value for name, value in options.items() if "." not in name and name != "first"}
    rows = {"rows of r2c": 3, "rows of c2r": 1}
    assert data == told | rows | {"seed": 0, "batch_size": 2, "image_size": 64, "first frame": 1}


@pytest.mark.parametrize(
    ("recipe", "overrides", "message"),
    [
        ("video.py", {"model.widht": 1}, "widht"),
        ("video.py", {"steps": 9, "data.real": "nowhere.mp4"}, "nowhere.mp4"),
        ("puppets.py:stage=2", {"steps": 9}, "--config.init"),
        ("puppets.py:stages=2", {"steps": 9}, "stages=2"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value,
)
def test_a_mistake_is_named_before_anything_is_written(train, tmp_path, recipe, overrides, message):
    done = train(tmp_path / "run", recipe, **overrides)
    assert done.returncode != 0
    assert message in "".join(done.stderr.splitlines()[-4:]), done.stderr
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def tiny_recipe(config, **settings):
    """video.py's with the network of conftest.py."""
    recipe = video.get_config()
    recipe.model.update(dataclasses.asdict(config))
    recipe.update(settings)
    return recipe


def test_a_perceptual_network_is_named_or_random_and_then_the_log_says_so(monkeypatch, caplog):
    monkeypatch.setattr(recipe_networks, "VGG19", lambda **options: "drawn")
    recipe = video.get_config()
    assert recipe_networks.perceptual_network(recipe) is None
    recipe.weights.perceptual = 1.0
    with pytest.raises(ValueError, match="name torchvision's vgg19 file by --config.vgg=FILE, or 'random'"):
        recipe_networks.perceptual_network(recipe)
    assert "UNTRAINED" not in caplog.text
    recipe.vgg = "random"
    assert recipe_networks.perceptual_network(recipe) == "drawn"
    assert "UNTRAINED random VGG19 features" in caplog.text


def test_another_network_than_the_recipes_is_no_start(tiny_model, tmp_path, caplog):
    model = tiny_model(config=LEAN)
    save_model(tmp_path / "two", model)
    recipe = tiny_recipe(model.config, init=str(tmp_path / "two"))
    with pytest.raises(ValueError, match="two has the domains cartoon, real; stage 1 trains real"):
        recipe_networks.initial_networks(recipe)
    recipe.stage, recipe.model.dropout, recipe.model.flow_init_scale = 2, 0.5, 0.3  # of the run, and of the start
    started, discriminators = recipe_networks.initial_networks(recipe)
    assert started.config.dropout == 0.5 and discriminators == {}
    assert "discriminators" not in caplog.text
    recipe.weights.adversarial = 1.0
    assert recipe_networks.initial_networks(recipe)[1] == {}
    assert "two has no discriminators: they start anew" in caplog.text
    recipe.model.width, recipe.model.align_corners = 32, True
    settings = "--config.model.width=16 --config.model.align_corners=False"
    with pytest.raises(ValueError, match=f"is another network than the recipe's: it has {settings}"):
        recipe_networks.initial_networks(recipe)


def test_discriminators_go_on_with_their_generator_and_the_cartoon_one_starts_as_the_real_one(tiny_model, tmp_path):
    model, layout = tiny_model(("real",), config=LEAN), Layout(make_mesh(devices=jax.devices()[:1]))
    recipe = tiny_recipe(model.config, steps=200, batch_size=8)
    recipe.weights.adversarial = recipe.discriminator_optimizer.learning_rate = 1.0
    state = set_up(recipe, model, layout).state
    former = jax.tree.map(lambda leaf: leaf + 1, state.discriminator["real"])
    with TrainCheckpoints(tmp_path / "run") as saved:
        saved.save(7, state._replace(discriminator={"real": former})._asdict(), model.config, ("real",))
        damaged = jax.tree.map(lambda leaf: leaf + 1, state.generator)
        saved.save(8, state._replace(generator=damaged)._asdict(), model.config, ("real",))
    description = tmp_path / "run" / "checkpoints" / "8" / "model" / "metadata"
    sums = json.loads(description.read_text())
    sums["digests"] = {name: sum + 1 if "generator" in name else sum for name, sum in sums["digests"].items()}
    description.write_text(json.dumps(sums))
    recipe.init, recipe.stage = str(tmp_path / "run"), 2
    begins = recipe_networks.starting_point(recipe, layout, resumes=False).state
    # Of step 7: of step 8 the generator is damaged, its discriminator is not.
    jax.tree.map(np.testing.assert_array_equal, begins.discriminator, {"real": former, "cartoon": former})
    buffers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(begins.discriminator)]
    assert len(set(buffers)) == len(buffers)  # donated ones may not be shared


def test_what_a_run_started_from_is_not_needed_to_go_on(tiny_model, tmp_path):
    model, layout = tiny_model(("real",), config=LEAN), Layout(make_mesh(devices=jax.devices()[:1]))
    save_model(tmp_path / "start", model)
    recipe = tiny_recipe(model.config, init=str(tmp_path / "start"), steps=200, batch_size=8)
    begins = recipe_networks.starting_point(recipe, layout, resumes=False)
    shutil.rmtree(tmp_path / "start")
    goes_on = recipe_networks.starting_point(recipe, layout, resumes=True)
    jax.tree.map(np.testing.assert_equal, *(abstract(made.state, layout.whole) for made in (begins, goes_on)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps = 0"),
        ({"data.real": ""}, "--config.data.real"),
        ({"data.min_distance": 4}, "4 frame.s., 5 needed: remove it, or lower min_distance"),
    ],
)
def test_batches_that_cannot_be_made_are_refused(clips, changes, message):
    config = video.get_config()
    config.update_from_flattened_dict({"data.real": str(clips / "real"), "data.last": 0} | changes)
    with pytest.raises(ValueError, match=message):
        recipe_data.open_batches(config, 64)(reading=recipe_data.reading_options(config.data))


@pytest.mark.parametrize(("batch_size", "rows"), [(16, 8), (4, 4)])
def test_the_rows_that_are_shown_are_the_first_of_the_batch(clips, batch_size, rows):
    config = puppets.get_config("stage=2")
    settings = {"data.real": str(clips / "real"), "data.cartoon": str(clips / "cartoon"), "batch_size": batch_size}
    settings |= {"data.real_split": "", "data.cartoon_split": ""}
    settings |= {"data.driver_weights.real": 3.0, "data.driver_weights.cartoon": 5.0}
    config.update_from_flattened_dict(settings)
    batches, reading = recipe_data.open_batches(config, 64), recipe_data.reading_options(config.data)
    whole = batches(reading=reading)
    batch, shown = next(whole), recipe_data.first_rows(batches, reading)
    for direction, pictures in shown.items():
        for key, picture in pictures.items():
            few = min(rows, len(batch[direction][key]))  # the directions have their shares, here equal ones
            assert len(picture) == rows
            np.testing.assert_array_equal(picture[:few], batch[direction][key][:few])
    shapes = recipe_data.batch_shapes(shown, whole.state)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), shapes) == jax.tree.map(lambda x: (x.shape, x.dtype), batch)
    whole.close()
