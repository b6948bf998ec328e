"""Compiling for a slice that is not there: names, errors, the batch that fits; the compiler itself where it is."""

import importlib.metadata

import jax
import jax.numpy as jnp
import pytest

from configs import puppets
from tests.conftest import TINY
from toontalker_jax.evaluation.flops import count_flops
from toontalker_jax.models.toontalker import ToonTalker
from toontalker_jax.training import ahead_of_time
from toontalker_jax.training.ahead_of_time import abstract_step, batches_a_chip, largest_that_fits, out_of_memory
from toontalker_jax.training.chips import CHIPS, read_topology
from toontalker_jax.training.sharding import Layout, make_mesh

GIB = 2**30


def tiny(config, **changes):
    """A recipe at the size of the tests' network."""
    keys = ("image_size", "width", "motion_slots", "heads", "channel_base", "channel_cap")
    config.model.update({key: getattr(TINY, key) for key in keys}, backward_resolutions=(4, 8, 16))
    config.update(changes)
    return config


@pytest.mark.parametrize(
    ("topology", "chip", "chips"), [("v5e:16x16", "v5e", 256), ("v4:2x2x1", "v4", 4), ("v5p:4x4x4", "v5p", 64)]
)
def test_names_of_slices(topology, chip, chips):
    assert read_topology(topology) == (CHIPS[chip], chips)


@pytest.mark.parametrize("topology", ["v9:2x2", "v5e", "v5e:2x2x1", "v4:2x2", "v5e:0x2", "v5e-16", "v5e:2x2 "])
def test_an_unknown_slice_is_refused_with_examples(topology):
    with pytest.raises(ValueError, match=r"topology = .*v5e:16x16"):
        read_topology(topology)


def test_without_the_compiler_the_error_says_what_to_install(monkeypatch):
    def version(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(RuntimeError, match=r"'.\[tpu\]'"):
        ahead_of_time.tpu_devices("v5e:2x2")


@pytest.mark.parametrize(
    "message",
    [
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (23.50G) exceeds "
        "available HBM (15.75G).",
        "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Used 23.50G of 15.75G hbm. Exceeded hbm by 7.75G.",
    ],
)
def test_what_the_compiler_needed_is_read_from_its_complaint(message):
    assert out_of_memory(message) == (int(23.5 * GIB), int(15.75 * GIB))


@pytest.mark.parametrize("message", ["INTERNAL: Mosaic failed", "RESOURCE_EXHAUSTED: Ran out of memory in vmem (9M)"])
def test_another_complaint_is_passed_on(message):
    with pytest.raises(RuntimeError, match=message.split(":")[0]):
        out_of_memory(message)


def test_batches_keep_the_groups_of_the_discriminator_whole():
    assert batches_a_chip(1, 16) == [1, 2, 4, 8, 12]
    assert batches_a_chip(2, 17) == [2, 4, 8, 16]
    assert batches_a_chip(1, 2) == [1]


@pytest.mark.parametrize(
    ("needed", "compiled", "found"),
    [
        (lambda rows: 2 + rows, [12], 12),  # as predicted: one compilation
        (lambda rows: 2 + rows + (rows == 12), [12, 8], 8),  # a little more than predicted: the next one down
        (lambda rows: 2 + rows**2 / 10, [4, 8], 8),  # steeper at large batches: twice up
        (lambda rows: 11 + rows / 4, [12], 12),
        (lambda rows: 13.5 + rows / 2, [2], 2),
        (lambda rows: 13 + rows**0.5, [4, 2], 2),  # steeper at small ones
        (lambda rows: 15 + rows, [1], None),  # too much even with one row
    ],
)
def test_the_largest_batch_that_fits_is_found_in_few_compilations(needed, compiled, found):
    tried = []

    def compile_for(rows):
        tried.append(rows)
        return needed(rows) <= 14.5, needed(rows)

    assert largest_that_fits(compile_for, batches_a_chip(1, 16), (16, needed(16)), needed(0), 14.5) == found
    assert tried == compiled


def test_the_step_is_made_of_shapes_alone():
    config = tiny(puppets.get_config("stage=1"), batch_size=32)
    config.weights.perceptual = 1.0
    step = abstract_step(config, Layout(make_mesh(4)))
    state, batch, vgg = step.arguments
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(step.arguments))
    sizes = [sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(x)) for x in (state, batch, vgg)]
    assert sizes[1:] == [2 * 32 * 64 * 64 * 3, 4 * 12_944_960]
    kept = step.argument_bytes - sizes[1] / 8 - sizes[2]
    assert sizes[0] / 4 < kept < sizes[0] / 2  # So small a network has many arrays that are not sliced.
    assert 1e9 < count_flops(step.function, *step.arguments)


def test_one_picture_serves_both_updates(monkeypatch):
    config = tiny(puppets.get_config("stage=1"), batch_size=4)
    config.weights.adversarial, config.r1.gamma = 1.0, 1.0
    step = abstract_step(config, Layout(make_mesh(devices=jax.devices()[:1])))
    decoded, decode = [], ToonTalker.decode

    def counted(model, *arguments):
        decoded.append(arguments)
        return decode(model, *arguments)

    monkeypatch.setattr(ToonTalker, "decode", counted)
    _, metrics = jax.eval_shape(step.function, *step.arguments)
    assert len(decoded) == 1 and {"adversarial/real", "discriminator/real", "r1/real"} <= set(metrics)


@pytest.mark.parametrize(("batch_size", "told"), [(8, True), (32, False)])
def test_groups_of_the_statistic_that_span_devices_are_told(batch_size, told, caplog):
    config = tiny(puppets.get_config("stage=1"), batch_size=batch_size)
    config.weights.adversarial = 1.0
    abstract_step(config, Layout(make_mesh()))
    assert ("1 rows a device and part: the discriminator's minibatch statistic" in caplog.text) == told


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="12 rows does not divide"):
        abstract_step(tiny(puppets.get_config("stage=1"), batch_size=12), Layout(make_mesh()))


@pytest.mark.parametrize("topology", ["v4:2x2x1", "v5e:2x2", "v5p:2x2x2", "v6e:4x4"])
def test_a_device_is_a_chip(topology):
    pytest.importorskip("libtpu")
    assert len(ahead_of_time.tpu_devices(topology)) == read_topology(topology)[1]


@pytest.mark.parametrize(("topology", "available"), [("v4:2x2x1", 30.75), ("v5e:2x2", 15.75), ("v6e:2x2", 31.25)])
def test_the_compiler_runs_out_of_what_the_table_says_is_available(topology, available):
    pytest.importorskip("libtpu")
    device, chip = ahead_of_time.tpu_devices(topology)[0], read_topology(topology)[0]
    x = jax.ShapeDtypeStruct((2**34,), jnp.float32, sharding=jax.sharding.SingleDeviceSharding(device))
    report = ahead_of_time.compile_report(jax.jit(lambda x: x * x.sum()).lower(x), chip)
    assert not report["fits"]
    assert report["needed"] == 2 * 64 * GIB  # what comes in and what goes out
    assert report["available"] == chip.available == int(available * GIB)


def test_a_slice_that_cannot_be_built_is_refused_in_the_compilers_words():
    pytest.importorskip("libtpu")
    with pytest.raises(ValueError, match=r"v5e:3x5.*not divisible.*try v5e:2x2"):
        ahead_of_time.tpu_devices("v5e:3x5")


def test_a_tiny_step_compiles_for_a_slice():
    """Minutes: only where libtpu is installed, which no test environment of the project asks for."""
    pytest.importorskip("libtpu")
    config = tiny(puppets.get_config("stage=1"), batch_size=16)
    step = ahead_of_time.step_on(config, "v5e:2x2")
    lowered = step.function.lower(*step.arguments)
    jax.config.update("jax_exec_time_optimization_effort", -1.0)
    try:
        report = ahead_of_time.compile_report(lowered, CHIPS["v5e"])
    finally:
        jax.config.update("jax_exec_time_optimization_effort", 0.0)
    assert report["fits"]
    assert step.argument_bytes <= report["memory"]["arguments"]  # 7.5 times as many: tiles of 8 × 128 pad small arrays
    parameters = 4 * sum(leaf.size for leaf in jax.tree.leaves(step.arguments[0].generator))
    assert parameters <= report["collective_bytes"]["all-reduce"] < 1.1 * parameters
    assert not set(report["collective_bytes"]) - {"all-reduce"}
