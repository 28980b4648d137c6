"""The spatial transformer: exact identity, PyTorch's sampling, gradients that move theta the right way."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.nn.stn import STN, sample_affine

RNG = np.random.default_rng(0)
IMAGE = RNG.normal(size=(3, 24, 30, 3)).astype(np.float32)
THETA = np.array(
    [
        [[1, 0, 0], [0, 1, 0]],
        [[0.8031, 0.3017, -0.2043], [-0.2519, 1.1027, 0.1511]],
        [[-1.3037, 0.1013, 0.6019], [0.4021, 0.7043, -0.9011]],
    ],
    np.float32,
)  # no sample of the last two falls on a pixel, where the slope of an interpolation jumps


def test_starts_at_the_identity_and_changes_nothing():
    variables = jax.jit(STN().init)(jax.random.key(0), IMAGE)
    aligned, theta = jax.jit(STN().apply)(variables, IMAGE)
    np.testing.assert_array_equal(theta, np.broadcast_to(np.eye(2, 3, dtype=np.float32), (3, 2, 3)))
    assert np.abs(aligned - IMAGE).max() < 1e-5


@pytest.mark.parametrize(("side", "total"), [(96, 131_424), (100, 144_544), (200, 680_544), (224, 868_704)])
def test_parameters(side, total):
    image = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
    variables = jax.eval_shape(lambda x: STN().init(jax.random.key(0), x), image)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == total


def test_what_lies_outside_is_zero():
    away = np.array([[[1, 0, 3], [0, 1, 0]]] * 3, np.float32)  # three half-widths to the right
    np.testing.assert_array_equal(sample_affine(jnp.asarray(IMAGE), jnp.asarray(away)), np.zeros_like(IMAGE))


def test_a_whole_pixel_shift_copies_pixels():
    shift = np.array([[[1, 0, 2 / 29], [0, 1, 0]]] * 3, np.float32)  # one pixel of 30
    moved = sample_affine(jnp.asarray(IMAGE), jnp.asarray(shift))
    np.testing.assert_allclose(moved[:, :, :-1], IMAGE[:, :, 1:], atol=1e-5)


def test_a_small_image_is_refused():
    with pytest.raises(UserError, match="at least 22 pixels"):
        jax.eval_shape(lambda: STN().init(jax.random.key(0), jnp.zeros((1, 20, 20, 3))))
    jax.eval_shape(lambda: STN().init(jax.random.key(0), jnp.zeros((1, 22, 22, 3))))
