"""EDSR: its parameters, names and channel order, against PyTorch where it is installed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.nn.edsr import EDSR, area_half, bicubic, pixel_shuffle

IMAGE = np.random.default_rng(0).normal(size=(2, 6, 8, 3)).astype(np.float32)


def shapes(model):
    image = jax.ShapeDtypeStruct((1, 24, 24, 3), jnp.float32)
    return jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x), image)


def test_parameters_and_the_published_names():
    output, variables = shapes(EDSR())
    params = variables["params"]
    assert output.shape == (1, 48, 48, 3)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 1_369_859
    blocks = {f"body.{i}.body.{j}" for i in range(16) for j in (0, 2)}
    assert set(params) == blocks | {"head.0", "body.16", "tail.0.0", "tail.1"}
    assert params["tail.0.0"]["kernel"].shape == (3, 3, 64, 256)


def test_four_times_is_two_doublings():
    output, variables = shapes(EDSR(scale=4, blocks=1, width=4))
    assert output.shape == (1, 96, 96, 3)
    assert {"tail.0.0", "tail.0.2"} < set(variables["params"])
    with pytest.raises(UserError, match="scale 3: give 2 or 4"):
        shapes(EDSR(scale=3))


def test_pixel_shuffle_takes_channels_in_order():
    x = jnp.arange(8.0)[None, None, None]  # two output channels, each of four cells
    shuffled = np.asarray(pixel_shuffle(x, 2))
    np.testing.assert_array_equal(shuffled[0, :, :, 0], [[0, 1], [2, 3]])
    np.testing.assert_array_equal(shuffled[0, :, :, 1], [[4, 5], [6, 7]])


def test_halving_is_the_mean_of_four_and_bicubic_keeps_a_ramp():
    half = area_half(jnp.asarray(IMAGE))
    cells = (IMAGE[:, 0::2, 0::2] + IMAGE[:, 1::2, 0::2] + IMAGE[:, 0::2, 1::2] + IMAGE[:, 1::2, 1::2]) / 4
    np.testing.assert_allclose(half, cells, atol=1e-6)
    np.testing.assert_allclose(area_half(jnp.ones((1, 8, 8, 3)), 2), np.ones((1, 2, 2, 3)), atol=1e-6)
    ramp = jnp.broadcast_to(jnp.arange(32.0)[None, None, :, None], (1, 32, 32, 3))
    inner = np.asarray(bicubic(area_half(ramp), 2))[:, 6:-6, 6:-6]
    np.testing.assert_allclose(inner, ramp[:, 6:-6, 6:-6], atol=1e-4)
