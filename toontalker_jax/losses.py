"""Losses: named, unweighted float32 scalars. The perceptual loss stands in `models.perceptual`, with its network."""

import jax
import jax.numpy as jnp


def l1(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """Mean absolute difference of two arrays of one shape; for images in [-1, 1], so 0 … 2."""
    return jnp.abs(prediction - target).mean()


def image_gradient(prediction: jax.Array, target: jax.Array, scales: int = 4) -> jax.Array:
    """Mean absolute difference of horizontal and vertical finite differences, summed over an average-pooled pyramid.

    A cheap edge-aware companion of L1 where no perceptual network is at hand (after the gradient difference loss of
    Mathieu et al., ICLR 2016). Images [N, S, S, 3], S divisible by 2^(scales - 1).
    """
    error, total = prediction - target, jnp.float32(0)
    for scale in range(scales):
        total += jnp.abs(jnp.diff(error, axis=1)).mean() + jnp.abs(jnp.diff(error, axis=2)).mean()
        if scale + 1 < scales:
            n, height, width, channels = error.shape
            error = error.reshape(n, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))
    return total


def change(prediction: jax.Array, source: jax.Array, target: jax.Array, threshold: float = 0.1) -> jax.Array:
    """L1 over the values in which target and source differ by more than `threshold`, as a share of standing still.

    1 where the prediction is the source, 0 where it is the target: nearly 1 - motion recovery
    (`evaluation.motion_recovery`, which takes a pixel's three values together). Each pair of the batch counts alike, so
    a mouth that opens in a still picture weighs what a turning head does, which L1 over all values loses among the
    errors of copying. Images [N, S, S, 3] in [-1, 1]; a pair without change is 0.
    """
    still = jnp.abs(target - source)
    moved = still > threshold
    left = jnp.abs(prediction - target).sum((1, 2, 3), where=moved)
    return (left / jnp.maximum(still.sum((1, 2, 3), where=moved), 1e-6)).mean()


def adversarial(fake_logits: jax.Array) -> jax.Array:
    """Non-saturating generator loss: mean softplus(-D(fake)). Logits [N]."""
    return jax.nn.softplus(-fake_logits).mean()


def discriminator(real_logits: jax.Array, fake_logits: jax.Array) -> jax.Array:
    """mean softplus(-D(real)) + mean softplus(D(fake)). Logits [N]."""
    return jax.nn.softplus(-real_logits).mean() + jax.nn.softplus(fake_logits).mean()


def analogy(w_rs: jax.Array, w_rg: jax.Array, w_ra: jax.Array, w_rb: jax.Array) -> jax.Array:
    """Analogy motion loss (eq. 9): the generated frame g is to the source s what the driver's b is to its a.

    L1 in the canonical space of (w_rg - w_rs) against (w_rb - w_ra). The first two are measured by the source's domain,
    the last two by the driver's. All [N, K, d].
    """
    return l1(w_rg - w_rs, w_rb - w_ra)
