"""VGG-16: parameter counts of torchvision's and Caffe's forms, torchvision's numbers, cuts."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.nn.vgg import LAYERS, VGG, cut, torchvision_index


def count(channels: int = 3, **fields) -> int:
    model = VGG(**fields)
    shape = jax.ShapeDtypeStruct((1, 32, 32, channels), jnp.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), shape)
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"norm": "plain_batch"}, 14_714_688),  # torchvision's vgg16.features
        ({"norm": "batch"}, 14_723_136),  # vgg16_bn.features
        ({"norm": "batch", "last": "pool3"}, 1_737_792),  # the low part of PSR
        ({"norm": "batch", "first": "conv4_1", "channels": 256}, 12_985_344),  # its high part
        ({"norm": "plain_batch", "last": "conv4_2"}, 5_275_456),  # the trunk of ACNN, biases kept
    ],
)
def test_parameters(fields, expected):
    assert count(**fields) == expected


def test_the_whole_of_vgg16_for_seven_classes():
    """The network that ACNN is compared with: these convolutions and three linear layers behind a map of 7x7."""
    linear = (49 * 512 + 1) * 4096 + (4096 + 1) * 4096 + (4096 + 1) * 7
    assert count(norm="plain_batch") + linear == 134_289_223


def test_torchvision_numbers():
    with_norm, plain = torchvision_index(True), torchvision_index(False)
    assert [with_norm[name] for name in ("conv1_1", "conv1_2", "pool1", "pool3", "conv4_1", "conv5_3", "pool5")] == [
        0, 3, 6, 23, 24, 40, 43,
    ]  # fmt: skip
    assert [plain[name] for name in ("conv1_2", "pool1", "conv5_3", "pool5")] == [2, 4, 28, 30]


def test_cuts():
    assert cut(24) == ("pool3", "conv4_1")
    for position in (3, 6, 10, 14, 17, 20, 24, 27, 30, 34, 37):
        before, after = cut(position)
        assert LAYERS.index(after) == LAYERS.index(before) + 1
        assert torchvision_index(True)[after] == position
    with pytest.raises(UserError, match="cannot be cut at 25"):
        cut(25)


def test_two_stretches_are_the_whole():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 32, 32, 3)), jnp.float32)
    whole = VGG(width=8)
    variables = whole.init(jax.random.key(0), x, train=False)
    last, first = cut(24)
    names = set(LAYERS[: LAYERS.index(last) + 1])

    def part(low: bool) -> Any:
        return {
            kind: {k: v for k, v in tree.items() if (k.replace("bn", "conv") in names) == low}
            for kind, tree in variables.items()
        }

    low: Any = VGG(last=last, width=8).apply(part(True), x, train=False)
    assert low.shape == (2, 4, 4, 32)
    high: Any = VGG(first=first, width=8).apply(part(False), low, train=False)
    np.testing.assert_array_equal(high, whole.apply(variables, x, train=False))
    assert high.shape == (2, 1, 1, 64)
