"""ResNet: sizes, shapes, the same function as PyTorch's, and the same result on one device and on four."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from fer_jax.errors import UserError
from fer_jax.nn.resnet import BasicBlock, Bottleneck, ResNet, ResNet18, ResNet34, ResNet50

PARAMETERS = {ResNet18: 11_176_512, ResNet34: 21_284_672, ResNet50: 23_508_032}


def init(model, size=33, batch=2):
    x = jax.random.normal(jax.random.key(1), (batch, size, size, 3))
    return jax.jit(functools.partial(model.init, train=False))(jax.random.key(0), x), x


@pytest.mark.parametrize(("model", "count"), PARAMETERS.items(), ids=["18", "34", "50"])
def test_parameter_counts(model, count):
    shapes = jax.eval_shape(functools.partial(model().init, train=False), jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == count
    if model is ResNet18:
        assert sum(leaf.size for leaf in jax.tree.leaves(shapes["batch_stats"])) == 2 * 4800


@pytest.mark.parametrize(("stem", "sides"), [("imagenet", (12, 6, 3, 2)), ("small", (48, 24, 12, 6))])
@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_maps(stem, sides, block):
    model = ResNet((1, 1, 1, 1), block, width=8, stem=stem)
    variables = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), jnp.zeros((2, 48, 48, 3)))
    features, maps = jax.eval_shape(functools.partial(model.apply, train=False), variables, jnp.zeros((2, 48, 48, 3)))
    channels = [8 * block.expansion * 2**i for i in range(4)]
    assert [maps[f"layer{i + 1}"].shape for i in range(4)] == [
        (2, s, s, c) for s, c in zip(sides, channels, strict=True)
    ]
    assert features.shape == (2, channels[-1])
    assert ("downsample_conv" in variables["params"]["layer1_0"]) == (block is Bottleneck)


def test_the_stem_of_vggface2_pools_from_the_corner_and_strides_in_the_first_convolution():
    """EAC's ResNet-50: 23,522,375 parameters with its head, and a map of 7x7 from 224 pixels."""
    model = ResNet50(stem="caffe")
    images = jnp.zeros((1, 224, 224, 3))
    variables = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), images)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) + 2048 * 7 + 7 == 23_522_375
    _, maps = jax.eval_shape(functools.partial(model.apply, train=False), variables, images)
    assert maps["layer1"].shape == (1, 56, 56, 256)
    assert maps["last"].shape == (1, 7, 7, 2048)

    x = jax.random.normal(jax.random.key(1), (1, 5, 5, 4))
    block = Bottleneck(2, 2, stride_first=True)
    variables = block.init(jax.random.key(0), x, train=False)
    y = block.apply(variables, x, train=False)
    x = x.at[:, 1::2].set(7.0).at[:, :, 1::2].set(7.0)  # what a 1x1 convolution of stride 2 does not see
    np.testing.assert_array_equal(block.apply(variables, x, train=False), y)

    # conv1 makes 4x4 of 8x8: the windows begin at 0 and 2, the second one is cut off.
    small, image = ResNet((1,), width=4, stem="caffe"), jnp.zeros((1, 8, 8, 3))
    _, (_, maps) = jax.eval_shape(
        lambda: (v := small.init(jax.random.key(0), image, train=False), small.apply(v, image, train=False))
    )
    assert maps["last"].shape == (1, 2, 2, 4)


def test_unknown_stem_is_refused():
    with pytest.raises(UserError, match="no stem 'cifar': .*imagenet, small"):
        ResNet((1,), stem="cifar").init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False)


def test_bfloat16_computes_and_float32_remembers():
    model = ResNet((1, 1), width=8, dtype=jnp.bfloat16)
    x = jnp.zeros((2, 32, 32, 3))
    variables = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), x)
    train = functools.partial(model.apply, train=True, mutable=["batch_stats"])
    (features, maps), updated = jax.eval_shape(train, variables, x)
    assert {a.dtype for a in maps.values()} == {jnp.dtype(jnp.bfloat16)}
    assert features.dtype == jnp.float32  # a mean over the map
    assert {a.dtype for a in jax.tree.leaves((variables, updated))} == {jnp.dtype(jnp.float32)}


def loss_and_gradients(model, variables, x, weights):
    def loss(params):
        (features, _), updated = model.apply(variables | {"params": params}, x, train=True, mutable=["batch_stats"])
        return (features * weights).sum(), updated["batch_stats"]

    return jax.value_and_grad(loss, has_aux=True)(variables["params"])


def test_four_devices_agree_with_one_and_a_step_with_itself():
    model = ResNet((1, 1, 1), width=16)
    variables, x = init(model, size=32, batch=8)
    weights = jax.random.normal(jax.random.key(2), (8, 64))
    step = functools.partial(loss_and_gradients, model)
    mesh = Mesh(np.array(jax.devices()), ("data",))
    batch, replicated = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
    sharded = jax.jit(step, in_shardings=(replicated, batch, batch), out_shardings=replicated)
    sharded = sharded.lower(variables, x, weights).compile()
    assert "all-gather" not in sharded.as_text()  # activations stay where their images are
    data = jax.device_put((x, weights), batch)
    spread = jax.tree.leaves(sharded(jax.device_put(variables, replicated), *data))
    single = jax.jit(step)
    alone = jax.tree.leaves(single(variables, x, weights))
    for a, b in zip(spread, alone, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * float(jnp.abs(b).max()))
    for _ in range(3):  # whatever order its threads take
        for a, b in zip(alone, jax.tree.leaves(single(variables, x, weights)), strict=True):
            np.testing.assert_array_equal(a, b)
