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
        assert count + 512 * 7 + 7 == 11_180_103


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


def test_unknown_stem_is_refused():
    with pytest.raises(UserError, match="no stem 'cifar': set model.stem to one of imagenet, small"):
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


def torch_resnet18(torch):
    """torchvision's ResNet-18 without its classifier, module names included."""
    nn, functional = torch.nn, torch.nn.functional

    class Block(nn.Module):
        def __init__(self, channels, width, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(width)
            self.downsample = None
            if stride > 1 or channels != width:
                self.downsample = nn.Sequential(
                    nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width)
                )

        def forward(self, x):
            y = functional.relu(self.bn1(self.conv1(x)))
            return functional.relu(self.bn2(self.conv2(y)) + (x if self.downsample is None else self.downsample(x)))

    class Trunk(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
            self.bn1 = nn.BatchNorm2d(64)
            for i, width in enumerate((64, 128, 256, 512), start=1):
                first = Block(max(64, width // 2), width, 1 if i == 1 else 2)
                setattr(self, f"layer{i}", nn.Sequential(first, Block(width, width, 1)))

        def forward(self, x):
            x = functional.max_pool2d(functional.relu(self.bn1(self.conv1(x))), 3, 2, 1)
            for i in range(1, 5):
                x = getattr(self, f"layer{i}")(x)
            return x.mean((2, 3))

    return Trunk()


def torch_name(path):
    """('layer2_0', 'downsample_conv', 'kernel') -> 'layer2.0.downsample.0.weight'."""
    name = ".".join(path).replace("_0.", ".0.").replace("_1.", ".1.")
    name = name.replace("downsample_conv", "downsample.0").replace("downsample_bn", "downsample.1")
    ours = ("kernel", "scale", "mean", "var")
    theirs = ("weight", "weight", "running_mean", "running_var")
    for a, b in zip(ours, theirs, strict=True):
        name = name.removesuffix(a) + b if name.endswith("." + a) else name
    return name


def to_torch(torch, value):
    value = np.asarray(value)
    return torch.from_numpy(value.transpose(3, 2, 0, 1).copy() if value.ndim == 4 else value.copy())


@pytest.fixture(scope="module")
def twins():
    """Our ResNet-18 and PyTorch's with the same random parameters and running statistics."""
    torch = pytest.importorskip("torch")
    model = ResNet18()
    variables, x = init(model, size=64, batch=4)
    keys = iter(jax.random.split(jax.random.key(5), 200))
    noisy = lambda v: v + 0.1 * jax.random.uniform(next(keys), v.shape)  # noqa: E731
    variables = {
        "params": jax.tree.map(lambda v: noisy(v) if v.ndim == 1 else v, variables["params"]),
        "batch_stats": jax.tree.map(noisy, variables["batch_stats"]),
    }
    network = torch_resnet18(torch)
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    state = {torch_name([k.key for k in path[1:]]): to_torch(torch, value) for path, value in leaves}
    missing, unexpected = network.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    return torch, model, variables, network, x


def test_evaluation_agrees_with_pytorch(twins):
    torch, model, variables, network, x = twins
    network.eval()
    with torch.no_grad():
        want = network(torch.from_numpy(np.asarray(x).transpose(0, 3, 1, 2).copy())).numpy()
    got, _ = jax.jit(functools.partial(model.apply, train=False))(variables, x)
    np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max())


def test_training_agrees_with_pytorch(twins):
    torch, model, variables, network, x = twins
    weights = np.random.default_rng(0).standard_normal((4, 512)).astype(np.float32)
    network.train()
    features = network(torch.from_numpy(np.asarray(x).transpose(0, 3, 1, 2).copy()))
    loss = (features * torch.from_numpy(weights)).sum()
    network.zero_grad()
    loss.backward()
    (got_loss, stats), gradients = jax.jit(functools.partial(loss_and_gradients, model))(variables, x, weights)
    assert float(got_loss) == pytest.approx(float(loss.detach()), rel=1e-4)

    theirs = dict(network.named_parameters())
    for path, value in jax.tree_util.tree_leaves_with_path(gradients):
        want = theirs[torch_name([k.key for k in path])].grad
        got = to_torch(torch, value)
        scale = float(want.abs().max())
        np.testing.assert_allclose(got, want, atol=1e-4 * scale, err_msg=str(path))
    means = {torch_name([k.key for k in p]): v for p, v in jax.tree_util.tree_leaves_with_path(stats)}
    np.testing.assert_allclose(means["bn1.running_mean"], network.bn1.running_mean.numpy(), atol=1e-5)
