"""`grid_sample` against torch's outputs and gradients (golden/grid_sample.npz), `warp` against `grid_sample`.

The tests' eight CPU devices have the gradient that JAX derives where no mesh is told of; that of a single one is asked
for by name.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models import reference
from toontalker_jax.ops import bilinear
from toontalker_jax.ops.warp import grid_sample, warp
from toontalker_jax.training.footprint import collective_bytes
from toontalker_jax.training.sharding import Layout, make_mesh, place


@pytest.fixture
def one_device(monkeypatch):
    """As on a single CPU device, with channels enough whatever their number is."""
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    monkeypatch.setattr(bilinear, "_FEW", 0)


@pytest.mark.parametrize(("convention", "align_corners"), [("centres", False), ("corners", True)])
@pytest.mark.parametrize("devices", [1, 8])
def test_values_and_both_gradients(convention, align_corners, devices, request):
    if devices == 1:
        request.getfixturevalue("one_device")
    with np.load(reference.GOLDEN / "grid_sample.npz") as golden:
        features, cotangent = (jnp.asarray(golden[k].transpose(0, 2, 3, 1)) for k in ("feat", "cotangent"))
        out, pull = jax.vjp(lambda f, g: grid_sample(f, g, align_corners=align_corners), features, golden["grid"])
        d_features, d_grid = pull(cotangent)
        # Measured 1e-6, 1e-6 and 4e-6: float32 rounding of positions up to a dozen pixels.
        np.testing.assert_allclose(out, golden[f"out_{convention}"].transpose(0, 2, 3, 1), atol=5e-6)
        np.testing.assert_allclose(d_features, golden[f"dfeat_{convention}"].transpose(0, 2, 3, 1), atol=5e-6)
        np.testing.assert_allclose(d_grid, golden[f"dgrid_{convention}"], atol=2e-5)


@pytest.mark.parametrize("align_corners", [False, True])
def test_warp_samples_around_the_identity_grid(align_corners):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 8, 8, 3)), jnp.float32)
    offset = rng.uniform(-1, 1, (2, 8, 8, 2)).astype(np.float32)
    line = np.linspace(-1, 1, 8, dtype=np.float32)
    grid = np.stack(np.meshgrid(line, line), axis=-1) + offset
    expected = grid_sample(x, grid, align_corners=align_corners)
    np.testing.assert_allclose(warp(x, offset, align_corners=align_corners), expected, atol=5e-6)


def test_warp_by_nothing_is_the_identity_with_aligned_corners_only():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 8, 8, 2)), jnp.float32)
    nothing = jnp.zeros((1, 8, 8, 2))
    np.testing.assert_array_equal(warp(x, nothing, align_corners=True), x)
    assert np.abs(np.asarray(warp(x, nothing, align_corners=False) - x)).max() > 0.1


def test_far_outside_is_zero_and_finite():
    x = jnp.ones((1, 8, 8, 2))
    grid = jnp.full((1, 2, 2, 2), 1e6)
    value, gradient = jax.value_and_grad(lambda g: grid_sample(x, g, align_corners=False).sum())(grid)
    assert value == 0 and not np.any(np.asarray(gradient))


def test_one_map_for_a_whole_batch():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(1, 8, 8, 2)), jnp.float32)
    grid = jnp.asarray(rng.uniform(-1, 1, (3, 8, 8, 2)), jnp.float32)
    for sample in (grid_sample, warp):
        together = sample(x, grid, align_corners=True)
        np.testing.assert_array_equal(together, sample(jnp.repeat(x, 3, axis=0), grid, align_corners=True))


def gradients(sample, *inputs, cotangent):
    return jax.vjp(sample, *inputs)[1](cotangent)


@pytest.mark.parametrize("maps", [1, 3])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_gradient_of_a_single_device_is_the_derived_one(maps, dtype):
    rng = np.random.default_rng(0)
    features = jnp.asarray(rng.normal(size=(maps, 7, 9, 24)), dtype)
    x, y = (jnp.asarray(rng.uniform(-4, side + 3, (3, 5, 6)), jnp.float32) for side in (9, 7))  # a third lies outside
    x = x.at[0, 0].set([-1e6, 1e6, -2, -1, 8, 9])  # and the borders themselves
    cotangent = jnp.asarray(rng.normal(size=(3, 5, 6, 24)), dtype)
    derived = gradients(bilinear._plain, features, x, y, cotangent=cotangent)
    # Products and sums in float32, whatever the dtype: of bfloat16 the derived ones have the rounding.
    tolerance = 2e-6 if dtype == "float32" else 3e-2
    for ours, theirs in zip(gradients(bilinear.with_loop, features, x, y, cotangent=cotangent), derived, strict=True):
        assert ours.dtype == theirs.dtype
        scale = np.abs(np.asarray(theirs, np.float32)).max()
        np.testing.assert_allclose(np.float32(ours), np.float32(theirs), atol=tolerance * scale)


def test_positions_have_little_rounding_where_the_map_is_far_from_zero():
    rng = np.random.default_rng(0)
    features = jnp.round(jnp.asarray(rng.normal(size=(1, 8, 8, 256)), jnp.float32) * 256) / 256  # exact with 4096 added
    at = jnp.asarray(rng.uniform(1, 6, (2, 1, 8, 8)), jnp.float32)
    cotangent = jnp.asarray(rng.normal(size=(1, 8, 8, 256)), jnp.float32)
    near = gradients(bilinear.with_loop, features, *at, cotangent=cotangent)
    far = gradients(bilinear.with_loop, features + 4096, *at, cotangent=cotangent)
    for a, b in zip(near[1:], far[1:], strict=True):
        np.testing.assert_allclose(a, b, atol=5e-5)  # measured 0; 2e-2 from products with the features themselves


def test_second_gradients_are_the_derived_ones():
    rng = np.random.default_rng(0)
    features = jnp.asarray(rng.normal(size=(2, 6, 6, 3)), jnp.float32)
    x, y = jnp.asarray(rng.uniform(0, 5, (2, 2, 4, 4)), jnp.float32)

    def penalty(sample):
        return jax.grad(
            lambda f, x, y: sum(
                (g**2).sum() for g in jax.grad(lambda *inputs: (sample(*inputs) ** 2).sum(), argnums=(0, 1, 2))(f, x, y)
            ),
            argnums=(0, 1, 2),
        )

    for ours, theirs in zip(
        penalty(bilinear.with_loop)(features, x, y), penalty(bilinear._plain)(features, x, y), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("maps", "loops"), [(8, True), (4, False), (1, False)])
def test_on_a_mesh_each_device_goes_over_its_own_rows(maps, loops):
    layout = Layout(make_mesh(fsdp=2))
    rng = np.random.default_rng(0)
    features = jnp.asarray(rng.normal(size=(maps, 5, 6, 32)), jnp.float32)
    samples = max(maps, 4)
    x, y = jnp.asarray(rng.uniform(-1, 6, (2, samples, 3, 4)), jnp.float32)
    cotangent = jnp.asarray(rng.normal(size=(samples, 3, 4, 32)), jnp.float32)

    def told(features, x, y):
        with layout.told():
            return gradients(bilinear.bilinear, features, x, y, cotangent=cotangent)

    wanted = gradients(bilinear._plain, features, x, y, cotangent=cotangent)
    inputs = place((features, x, y), layout.rows if loops else layout.whole)
    lowered = jax.jit(told).lower(*inputs)
    assert ("stablehlo.scatter" not in lowered.as_text()) == loops
    program = lowered.compile()
    for ours, theirs in zip(program(*inputs), wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
        assert not loops or ours.sharding.is_equivalent_to(layout.rows, ours.ndim)
    assert not collective_bytes(program.as_text())


def test_which_devices_have_which_gradient(one_device, monkeypatch):
    def text(platform):
        function = jax.jit(jax.grad(lambda f, x: bilinear.bilinear(f, x, x).sum(), argnums=(0, 1)))
        inputs = jnp.zeros((1, 4, 4, 32)), jnp.zeros((1, 4, 4))
        return jax.export.export(function, platforms=[platform])(*inputs).mlir_module()

    assert "stablehlo.while" in text("cpu") and "stablehlo.scatter" not in text("cpu")
    assert "stablehlo.while" not in text("tpu") and "stablehlo.scatter" in text("tpu")
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert "stablehlo.while" not in text("cpu")
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    assert "stablehlo.while" not in text("cpu")
