"""Single layers against the reference's (golden/layers.npz), and what the parts promise."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.conftest import TINY
from tests.models import reference
from toontalker_jax.models.config import ModelConfig
from toontalker_jax.models.discriminator import Discriminator, minibatch_std
from toontalker_jax.models.layers import EqualConv, ModulatedConv, ResidualBlock, StyledConv
from toontalker_jax.models.motion import Memory, TransformerLayer
from toontalker_jax.models.toontalker import ToonTalker, abstract_network


@pytest.fixture(scope="module")
def golden():
    with np.load(reference.GOLDEN / "layers.npz") as arrays:
        return dict(arrays)


def nhwc(x):
    return jnp.asarray(x.transpose(0, 2, 3, 1))


def hwio(kernel):
    return jnp.asarray(kernel.transpose(2, 3, 1, 0))


@pytest.mark.parametrize("name", ["same", "up"])
def test_styled_conv(golden, name):
    layer = StyledConv(6, 4, 10, upsample=name == "up", rngs=nnx.Rngs(0))
    part = {k.split("/")[1]: v for k, v in golden.items() if k.startswith(f"{name}/")}
    layer.conv.kernel[...] = hwio(part["conv.weight"][0])
    layer.conv.modulation.kernel[...] = jnp.asarray(part["conv.modulation.weight"].T)
    layer.conv.modulation.bias[...] = jnp.asarray(part["conv.modulation.bias"])
    layer.bias[...] = jnp.asarray(part["activate.bias"].reshape(-1))
    layer.noise_weight[...] = jnp.asarray(part["noise.weight"])
    out = layer(nhwc(golden["x"]), jnp.asarray(part["style"]))
    np.testing.assert_allclose(out, nhwc(part["out"]), atol=3e-6)  # measured 5e-7


def test_residual_block(golden):
    block = ResidualBlock(6, 4, rngs=nnx.Rngs(0))
    block.conv1.conv.kernel[...] = hwio(golden["resblock/conv1.0.weight"])
    block.conv1.bias[...] = jnp.asarray(golden["resblock/conv1.1.bias"].reshape(-1))
    block.conv2.conv.kernel[...] = hwio(golden["resblock/conv2.1.weight"])
    block.conv2.bias[...] = jnp.asarray(golden["resblock/conv2.2.bias"].reshape(-1))
    block.skip.kernel[...] = hwio(golden["resblock/skip.1.weight"])
    np.testing.assert_allclose(block(nhwc(golden["x"])), nhwc(golden["resblock_out"]), atol=3e-6)  # measured 5e-7


def test_minibatch_std_is_per_group_and_zero_for_equal_rows():
    x = np.random.default_rng(0).normal(size=(8, 2, 2, 3)).astype(np.float32)
    x[:4] = x[0]
    out = np.asarray(minibatch_std(jnp.asarray(x)))
    np.testing.assert_allclose(out[..., :3], x)
    np.testing.assert_allclose(out[:4, ..., 3], 1e-4, rtol=1e-3)  # sqrt of the eps inside the root
    expected = np.sqrt(x[4:].var(axis=0) + 1e-8).mean()
    np.testing.assert_allclose(out[4:, ..., 3], expected, rtol=1e-5)
    with pytest.raises(ValueError, match="batch of 6"):
        minibatch_std(jnp.zeros((6, 1, 1, 1)))


class SumsOfGroups:
    """In place of a discriminator: every logit is its group's sum."""

    both = Discriminator.both

    def __call__(self, image, group):
        return jnp.repeat(image.reshape(-1, group).sum(axis=1), group)


@pytest.mark.parametrize(("sizes", "group"), [((8, 8), 4), ((12, 4), 4), ((6, 6), 3), ((2, 6), 2), ((1, 3), 1)])
def test_no_group_of_the_statistic_has_rows_of_two_batches(sizes, group):
    first, second = jnp.arange(1.0, 1 + sizes[0]), jnp.arange(100.0, 100 + sizes[1])
    judge = SumsOfGroups()
    for batch, logits in zip((first, second), judge.both(first, second), strict=True):
        np.testing.assert_array_equal(logits, judge(batch, group))


def test_discriminator_has_the_reference_size():
    """At 256: the parameters of StyleGAN2's discriminator with this channel table, counted from the shapes."""
    table = {256: 64, 128: 128, 64: 256, 32: 512, 16: 512, 8: 512, 4: 512}
    count = 3 * 64 + 64 + 513 * 512 * 9 + 512 + 8192 * 512 + 512 + 512 + 1
    for resolution, channels in table.items():
        if resolution > 4:
            narrow = table[resolution // 2]
            count += channels * channels * 9 + channels + channels * narrow * 9 + narrow + channels * narrow
    model = nnx.eval_shape(lambda: Discriminator(ModelConfig(), rngs=nnx.Rngs(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model))) == count


def test_one_memory_token_makes_attention_its_value():
    """With one token the softmax is 1: the query transformers' q and k weights are dead (reference.md)."""
    config = ModelConfig(image_size=64, width=16, heads=2)
    layer = TransformerLayer(config, rngs=nnx.Rngs(0))
    x, token = (jax.random.normal(jax.random.key(i), (2, n, 16)) for i, n in ((0, 5), (1, 1)))
    memory = layer.cross_attention.memory(token)
    changed = Memory(memory.key * 7 + 1, memory.value)
    np.testing.assert_allclose(layer(x, memory), layer(x, changed), atol=1e-6)
    assert np.abs(np.asarray(layer(x, memory) - layer(x, Memory(memory.key, memory.value * 2)))).max() > 1e-2


def sums(jaxpr):
    """The dtypes of all sums of a jaxpr, those inside of calls, loops and rematerialised parts among them."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "reduce_sum":
            yield equation.invars[0].aval.dtype
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from sums(inner)


@pytest.mark.parametrize(("remat", "query"), [(False, "transformer"), (True, "mlp")])
def test_gradients_in_bfloat16_are_summed_in_float32(remat, query):
    """Of biases, styles, masks and positions: sums over as many as a million pixels."""
    config = dataclasses.replace(TINY, dtype="bfloat16", sft_from=8, remat=remat, query=query)
    graph, state = abstract_network(config, ("real",))
    judge, judges = nnx.split(nnx.eval_shape(lambda: Discriminator(config, rngs=nnx.Rngs(0))))

    def loss(state, judges, source, driving):
        image = nnx.merge(graph, state)(source, driving, "real", nnx.Rngs(0)).image
        return nnx.merge(judge, judges)(image).sum() + jnp.abs(image - driving).mean()

    image = jax.ShapeDtypeStruct((4, 64, 64, 3), jnp.float32)
    found = list(sums(jax.make_jaxpr(jax.grad(loss, (0, 1)))(state, judges, image, image).jaxpr))
    assert len(found) > 200 and set(found) == {jnp.dtype("float32")}


def test_dropout_needs_rngs_and_follows_them():
    config = ModelConfig(image_size=64, width=16, heads=2, dropout=0.5)
    layer = TransformerLayer(config, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (2, 5, 16))
    memory = layer.cross_attention.memory(x)
    plain, one, same, other = (layer(x, memory, r) for r in (None, nnx.Rngs(1), nnx.Rngs(1), nnx.Rngs(2)))
    np.testing.assert_array_equal(one, same)
    assert np.abs(np.asarray(plain - one)).max() > 1e-2 and np.abs(np.asarray(other - one)).max() > 1e-2


def test_sft_begins_at_the_chosen_stage():
    for start, stages in ((64, [3]), (16, [1, 2, 3]), (8, [0, 1, 2, 3]), (0, [])):
        config = dataclasses.replace(TINY, sft_from=start)
        _, state = abstract_network(config, ("real",))
        found = nnx.to_pure_dict(state)["domains"]["real"]["generator"]["stages"]
        assert [j for j, stage in found.items() if "sft" in stage] == stages


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 96}, "image_size = 96"),
        ({"width": 100}, "width = 100 is not divisible by heads = 8"),
        ({"motion_slots": 0}, "motion_slots = 0"),
        ({"channel_base": 128}, "channel_base = 128"),
        ({"dropout": 1.0}, "dropout = 1.0"),
        ({"dtype": "int8"}, "dtype = 'int8'"),
        ({"backward_resolutions": (4, 16, 48)}, "backward_resolutions"),
        ({"backward_resolutions": (16, 4, 64)}, "from coarse to fine"),
        ({"backward_resolutions": (4,)}, "or none"),
        ({"query": "linear"}, "query = 'linear'"),
        ({"sft_from": 4}, "sft_from = 4"),
        ({"sft_from": 512}, "sft_from = 512"),
    ],
)
def test_a_bad_config_is_one_clear_error(changes, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig(**changes)


def test_bad_inputs_are_named(tiny_model):
    model = tiny_model(("real",))
    with pytest.raises(ValueError, match="'cartoon' is not in this network"):
        model.motion_codes("cartoon", jnp.zeros((1, 64, 64, 3)))
    with pytest.raises(ValueError, match=r"image has shape \(1, 3, 64, 64\)"):
        model.encode_source("real", jnp.zeros((1, 3, 64, 64)))
    with pytest.raises(ValueError, match="at most once"):
        ToonTalker(model.config, ("real", "real"), rngs=nnx.Rngs(0))


def test_a_source_of_batch_one_serves_every_motion(tiny_model):
    model = tiny_model(("real",))
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.uniform(-1, 1, (1, 64, 64, 3)), jnp.float32)
    w = jnp.asarray(rng.normal(size=(3, model.config.motion_slots, model.config.width)), jnp.float32)
    graph, state = nnx.split(model)

    @jax.jit
    def decode(state, image):
        model = nnx.merge(graph, state)
        return model.decode("real", model.encode_source("real", image), w).image

    # Measured 2e-6.
    np.testing.assert_allclose(decode(state, image), decode(state, jnp.repeat(image, 3, axis=0)), atol=2e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("options", [{}, {"upsample": True}, {"demodulate": False}], ids=str)
def test_a_folded_modulated_convolution_computes_the_same(dtype, options):
    layer = ModulatedConv(6, 4, 3, 5, **options, rngs=nnx.Rngs(0))
    random = np.random.default_rng(0)
    x, style = (jnp.asarray(random.standard_normal(shape, np.float32)) for shape in ((2, 8, 8, 6), (2, 5)))
    x = x.astype(dtype)
    expected = layer(x, style)
    for _ in range(2):  # A shared layer may be met twice.
        layer.fold(dtype)
        layer.modulation.fold(dtype)
        np.testing.assert_array_equal(layer(x, style), expected)
    assert layer.kernel.dtype == dtype and layer.modulation.kernel.dtype == jnp.float32


@pytest.mark.parametrize("options", [{}, {"downsample": True}], ids=str)
def test_a_folded_convolution_computes_the_same(options):
    for size in (1, 3):
        layer = EqualConv(6, 4, size, **options, rngs=nnx.Rngs(0))
        x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 8, 8, 6), np.float32))
        expected = layer(x)
        layer.fold(jnp.float32)
        np.testing.assert_array_equal(layer(x), expected)
