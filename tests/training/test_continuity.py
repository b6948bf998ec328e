"""What of a recipe and of the data must not change from start to start, and what may."""

import pytest

from configs import video
from toontalker_jax.checkpoints import Mismatch
from toontalker_jax.training.continuity import check_continues

DATA = {"seed": 0, "batch_size": 8, "clips": "2 clips"}


def recipe(decay="none", **changes):
    config = video.get_config()
    config.optimizer.decay = decay
    config.update_from_flattened_dict(changes)
    return config.to_dict()


def check(changes, decay="none", data=DATA):
    metadata = {"data": DATA, "recipe": recipe(decay)}
    check_continues(4, metadata, data, recipe(decay, **changes))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 2000),
        ("log_every", 3),
        ("pictures_every", 3),
        ("checkpoint_every", 3),
        ("keep_newest", 3),
        ("keep_every", 3),
        ("mesh.fsdp", 2),
        ("accumulate", 2),
        ("model.remat", True),
        ("data.workers", 2),
        ("data.threads", 5),
        ("data.max_bad_records", 7),
        ("data.real", "elsewhere"),
        ("vgg", "elsewhere"),  # what is in the file is compared, as data
    ],
)
def test_what_changes_no_number_may_change(name, value, caplog):
    check({name: value})
    assert caplog.text == ""


def test_a_start_that_is_not_looked_at_any_more_is_told(caplog):
    check({"init": "elsewhere"})
    assert "init = 'elsewhere' is not looked at: the run goes on from step 4" in caplog.text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model.width", 32),
        ("model.dtype", "bfloat16"),
        ("model.dropout", 0.5),
        ("weights.analogy", 1.0),
        ("optimizer.learning_rate", 0.1),
        ("optimizer.multipliers.generator", 2.0),
        ("discriminator_optimizer.beta2", 0.5),
        ("seed", 1),
        ("stage", 2),
        ("batch_size", 16),
        ("ema_images", 100),
        ("r1.gamma", 1.0),
        ("r1.every", 4),
    ],
)
def test_what_changes_numbers_is_named(name, value):
    before = "multipliers was {" if "multipliers" in name else f"{name} was "
    with pytest.raises(Mismatch, match=f"step 4 was trained differently: .*{before}.*is .*--config.init=WORKDIR"):
        check({name: value})


def test_everything_is_named_at_once_and_nothing_twice():
    with pytest.raises(Mismatch) as caught:
        check({"seed": 1, "ema_images": 5}, data=DATA | {"seed": 1, "clips": "3 clips"})
    message = str(caught.value)
    assert "data: clips was '2 clips', is '3 clips'" in message and "ema_images was 0, is 5" in message
    assert message.count("seed was 0, is 1") == 1  # of the recipe, and not of the data again


def test_the_number_of_steps_counts_where_the_rate_follows_a_cosine():
    with pytest.raises(Mismatch, match="differently: steps, where the cosine decay ends, was 1000, is 2000. Set"):
        check({"steps": 2000}, decay="cosine")


def test_a_multiplier_more_is_a_change():
    before, now = recipe(), recipe()
    before["optimizer"]["multipliers"], now["optimizer"]["multipliers"] = {}, {"generator": 1.0}
    check_continues(4, {"data": DATA, "recipe": before}, DATA, now)  # of 1 is none
    now["optimizer"]["multipliers"] = {"generator": 2.0, "motion_base": 1.0}
    with pytest.raises(Mismatch, match="optimizer.multipliers was {}, is {'generator': 2.0}"):
        check_continues(4, {"data": DATA, "recipe": before}, DATA, now)


def test_a_setting_of_another_version_is_a_warning(caplog):
    before = recipe() | {"old": 1}
    del before["vgg"]
    check_continues(4, {"data": DATA, "recipe": before}, DATA, recipe())
    assert "do not both have ['old', 'vgg']" in caplog.text


def test_a_checkpoint_of_an_older_version_is_a_warning(caplog):
    check_continues(4, {}, DATA, recipe())
    assert "does not tell its data" in caplog.text and "does not tell its recipe" in caplog.text
