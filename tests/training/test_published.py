"""Published networks compute here what they compute in PyTorch, and what does not fit is refused by name."""

import functools
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from fer_jax.errors import UserError
from fer_jax.nn.edsr import EDSR
from fer_jax.nn.resnet import ResNet10, ResNet18, ResNet34, ResNet50
from fer_jax.nn.vgg import VGG
from fer_jax.weights.files import WeightFile
from fer_jax.weights.networks import match
from tests.training import published_arrays

TRUNKS = {10: ResNet10, 18: ResNet18, 34: ResNet34, 50: ResNet50}


class Parts(nn.Module):
    """A model of the parts given, which see the same input."""

    parts: Any

    @nn.compact
    def __call__(self, x, train):
        for name, part in self.parts.items():
            y = part.clone(name=name, parent=self)(x, train=train)
        return y[0] if isinstance(y, tuple) else y


class Enlarged(EDSR):
    def __call__(self, x, train):
        del train
        return super().__call__(x)


def shapes_of(model, size=64, channels=3):
    x = jax.ShapeDtypeStruct((2, size, size, channels), jnp.float32)
    variables = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), x)
    flat: dict[str, Any] = flax.traverse_util.flatten_dict(variables, sep="/")
    return {path: leaf.shape for path, leaf in flat.items()}


def file_of(arrays, path="weights.pth"):
    return WeightFile(path, "PyTorch", "0", arrays)


def loaded(model, arrays, parts, size=64):
    """Our variables out of a file's arrays; nothing may be missing."""
    shapes = shapes_of(model, size)
    found = match(file_of(arrays), shapes, parts)
    assert set(found.values) == set(shapes)
    flat = {path: jnp.asarray(value) for path, value in found.values.items()}
    return flax.traverse_util.unflatten_dict(flat, sep="/"), found


def check_same(got, want):
    np.testing.assert_allclose(got, want, atol=1e-4 * max(1.0, np.abs(want).max()))


def networks(torch_networks):
    """name -> (PyTorch's, ours, the table of the method, sizes of the image)"""
    t = torch_networks
    return {
        "ResNet-18": (lambda: t.ResNet(18), Parts({"trunk": ResNet18()}), {"trunk": "resnet"}, (64, 71)),
        "ResNet-34": (lambda: t.ResNet(34, 16), Parts({"trunk": ResNet34(width=16)}), {"trunk": "resnet"}, (96,)),
        "ResNet-50": (lambda: t.ResNet(50, 16), Parts({"trunk": ResNet50(width=16)}), {"trunk": "resnet"}, (95,)),
        "VGG-16-BN": (lambda: t.VGG16BN().features, Parts({"low": VGG()}), {"low": "vgg"}, (64, 71)),
        "EDSR x2": (lambda: t.EDSR(), Parts({"sr": Enlarged()}), {"sr": "edsr_x2"}, (10, 13)),
    }


@pytest.fixture(scope="module")
def torch_networks():
    pytest.importorskip("torch")
    from tests.training import torch_networks

    return torch_networks


NAMES = ("ResNet-18", "ResNet-34", "ResNet-50", "VGG-16-BN", "EDSR x2")


@pytest.mark.parametrize("name", NAMES)
def test_the_same_function_as_in_pytorch(name, torch_networks):
    """In evaluation, and for those with batch normalisation in training with their running statistics.

    Even and odd sizes: where strides and paddings meet, they differ.
    """
    import torch

    make, model, parts, sizes = networks(torch_networks)[name]
    torch.manual_seed(0)
    network = torch_networks.randomised(make())
    prefix = "features." if name.startswith("VGG") else ""
    arrays = {prefix + k: v.numpy().copy() for k, v in network.state_dict().items()}
    variables, found = loaded(model, arrays, parts, sizes[0])
    assert found.title.startswith(f"{name} (")
    counts = {}
    for path, module in network.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.register_forward_hook(
                lambda _, x, __, path=path: counts.update({path: x[0].numel() // x[0].shape[1]})
            )
    for size in sizes:
        x = np.random.default_rng(size).normal(size=(4, size, size, 3)).astype(np.float32)
        images = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
        with torch.no_grad():
            want = network.eval()(images).numpy()
        got = np.asarray(jax.jit(functools.partial(model.apply, train=False))(variables, x))
        check_same(got if got.ndim == 2 else got.transpose(0, 3, 1, 2), want)
    if "batch_stats" not in variables:
        return
    with torch.no_grad():
        want = network.train()(images).numpy()
    train = functools.partial(model.apply, train=True, mutable=["batch_stats"])
    got, updated = jax.jit(train)(variables, x)
    got = np.asarray(got)
    check_same(got if got.ndim == 2 else got.transpose(0, 3, 1, 2), want)
    after = {prefix + k: v.numpy() for k, v in network.state_dict().items()}
    for path, n in counts.items():
        # PyTorch adds the unbiased variance to its running one, ours is the biased: the rest must agree.
        name = f"{prefix}{path}.running_var"
        after[name] = 0.9 * arrays[name] + (after[name] - 0.9 * arrays[name]) * (n - 1) / n
    theirs = match(file_of(after), shapes_of(model, size), parts).values
    for path, value in flax.traverse_util.flatten_dict(updated["batch_stats"], sep="/").items():
        check_same(value, theirs[f"batch_stats/{path}"])


@pytest.mark.parametrize("depth", TRUNKS)
def test_resnets_at_their_published_width(depth):
    """Every weight has a place, and what has none is the classifier and PyTorch's counters."""
    arrays = published_arrays.resnet(depth, width=64)
    shapes = shapes_of(Parts({"trunk": TRUNKS[depth]()}))
    found = match(file_of(arrays), shapes, {"trunk": "resnet"})
    assert set(found.values) == set(shapes)
    assert found.title == f"ResNet-{depth} (width=64, stem=imagenet)"
    assert not found.kept
    counters = {name for name in arrays if name.endswith("num_batches_tracked")}
    assert set(found.ignored) == counters | {"fc.weight", "fc.bias"}
    np.testing.assert_array_equal(
        found.values["params/trunk/layer2_0/downsample_conv/kernel"][0, 0, 3, 5],
        arrays["layer2.0.downsample.0.weight"][5, 3, 0, 0],
    )


TRUNK = {"trunk": "resnet"}


@pytest.fixture(scope="module")
def small_resnet():
    return shapes_of(Parts({"trunk": ResNet10(width=8)}))


def sequential(arrays):
    """The names of SCN's and RUL's code: the children of a ResNet, numbered."""
    numbers = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
    renamed = {}
    for name, array in arrays.items():
        first, _, rest = name.partition(".")
        renamed[f"features.{numbers[first]}.{rest}" if first in numbers else name] = array
    return renamed


CHECKPOINTS = {
    "MS-Celeb": lambda a: {f"module.{k}": v for k, v in (a | {"feature.weight": a["fc.weight"]}).items()},
    "FER+, 8 outputs": lambda a: {f"module.{k}": v for k, v in a.items()},
    "SCN": lambda a: {f"module.{k}": v for k, v in sequential(a | {"alpha.0.weight": a["fc.bias"]}).items()},
    "FAN": lambda a: a | dict.fromkeys(("alpha.0.weight", "beta.0.bias", "pred_fc2.weight"), a["fc.weight"]),
    "in a larger model": lambda a: {f"model.backbone.{k}": v for k, v in a.items()},
    "older than the counters": lambda a: {k: v for k, v in a.items() if "tracked" not in k},
}


@pytest.mark.parametrize("form", CHECKPOINTS)
def test_the_names_that_training_scripts_leave(form, small_resnet):
    arrays = published_arrays.resnet(classes=8)
    found = match(file_of(CHECKPOINTS[form](arrays)), small_resnet, TRUNK)
    assert set(found.values) == set(small_resnet)
    plain = match(file_of(arrays), small_resnet, TRUNK)
    for path, value in plain.values.items():
        np.testing.assert_array_equal(found.values[path], value)


def without(arrays, *names):
    return {name: array for name, array in arrays.items() if name not in names}


# What the file holds -> what the message names
RESNET_MISFITS = {
    "deeper": (
        lambda: published_arrays.resnet(18),
        r"ResNet-18 \(width=8, stem=imagenet\).* \(layer1.1.conv1.weight",
    ),
    "wider": (lambda: published_arrays.resnet(width=16), r"width=16.*\d+ differ in shape \(.* \[.*\] and .* \[.*\]"),
    "other blocks": (lambda: published_arrays.resnet(50), r"ResNet-50 .* differ in shape"),
    "a hole": (
        lambda: without(published_arrays.resnet(), "layer3.0.bn2.running_var"),
        r"1 of the model .*\(trunk/layer3_0/bn2/var\)",
    ),
    "something more": (
        lambda: published_arrays.resnet() | {"mask.weight": np.zeros(2, np.float32)},
        r"1 of its weights .*\(mask.weight\)",
    ),
    "a convolution with a bias": (
        lambda: published_arrays.resnet() | {"conv1.bias": np.zeros(8, np.float32)},
        r"1 of its weights .*\(conv1.bias\)",
    ),
    "VGG": (published_arrays.vgg, r"VGG-16-BN .* no part of this model; .* trunk \(resnet\)"),
    "something else": (
        lambda: {"blocks.0.attn.qkv.weight": np.zeros((3, 1), np.float32)},
        r"none of the known networks .* 1 weights, blocks.0.attn.qkv.weight",
    ),
    "a name that only seems known": (
        lambda: {"conv1.weight": np.zeros(3, np.float32), "layer1.0.conv1.weight": np.zeros(3, np.float32)},
        r"none of the known networks",
    ),
}


@pytest.mark.parametrize("case", RESNET_MISFITS)
def test_what_does_not_fit_is_refused_by_name(case, small_resnet):
    make, says = RESNET_MISFITS[case]
    with pytest.raises(UserError, match=says) as caught:
        match(file_of(make()), small_resnet, TRUNK)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["int8", "int64", "bool"])
def test_whole_numbers_are_no_weights(kind, small_resnet):
    """As in a quantised file; what has no place, such as PyTorch's counters, may be anything."""
    arrays = published_arrays.resnet()
    arrays["layer1.0.conv2.weight"] = arrays["layer1.0.conv2.weight"].astype(kind)
    with pytest.raises(UserError, match=rf"quantized file \(layer1.0.conv2.weight is {kind}\)"):
        match(file_of(arrays), small_resnet, TRUNK)
    found = match(file_of(arrays), small_resnet, TRUNK, ignore=["^trunk/layer1_0/conv2/"])
    assert {value.dtype for value in found.values.values()} == {np.dtype(np.float32)}


def test_another_stem(small_resnet):
    shapes = shapes_of(Parts({"trunk": ResNet10(width=8, stem="small")}))
    arrays = published_arrays.resnet()
    with pytest.raises(UserError, match=r"trunk/conv1/kernel \[3, 3, 3, 8\] and conv1.weight \[7, 7, 3, 8\]"):
        match(file_of(arrays), shapes, TRUNK)
    found = match(file_of(arrays), shapes, TRUNK, ignore=["^trunk/conv1/"])
    assert found.kept == {"params/trunk/conv1/kernel": "config.init_ignore"}
    assert set(found.values) == set(small_resnet) - set(found.kept)


def test_a_user_explains_what_no_rule_does(small_resnet):
    arrays = without(published_arrays.resnet(), "bn1.bias") | {"mask.weight": np.zeros(2, np.float32)}
    found = match(file_of(arrays), small_resnet, TRUNK, ignore=["trunk/bn1/bias", r"^mask\."])
    assert found.kept == {"params/trunk/bn1/bias": "config.init_ignore"}
    assert found.ignored["mask.weight"] == "config.init_ignore"


def vgg_shapes(parts):
    return shapes_of(Parts(parts), size=32, channels=3)


def test_one_file_fills_several_stretches():
    """As in PSR: the low stretch once for each branch, the high one once."""
    low = {f"low_{b}": VGG(last="pool3", width=8) for b in (1, 2, 3)}
    shapes = vgg_shapes(low) | shapes_of(Parts({"high": VGG(first="conv4_1", width=8)}), size=8, channels=32)
    arrays = published_arrays.vgg()
    parts = dict.fromkeys([*low, "high"], "vgg")
    found = match(file_of(arrays), shapes | {"params/head/kernel": (3, 3)}, parts)
    assert set(found.values) == set(shapes)
    for part in low:
        np.testing.assert_array_equal(found.values[f"params/{part}/bn3_1/scale"], arrays["features.15.weight"])
    np.testing.assert_array_equal(found.values["batch_stats/high/bn4_1/mean"], arrays["features.25.running_mean"])
    assert {name.split(".")[0] for name in found.ignored} == {"classifier", "features"}
    assert all(name.startswith("classifier") or name.endswith("tracked") for name in found.ignored)


# torchvision's numbers of the convolutions up to conv4_2, without normalisation between them.
PLAIN_VGG = {
    "conv1_1": 0, "conv1_2": 2, "conv2_1": 5, "conv2_2": 7, "conv3_1": 10, "conv3_2": 12, "conv3_3": 14,
    "conv4_1": 17, "conv4_2": 19,
}  # fmt: skip


def test_normalisation_without_parameters_measures_its_own():
    """As in ACNN, whose Caffe layers normalise behind the convolutions of a VGG-16 that does not."""
    shapes = vgg_shapes({"vgg": VGG(last="conv4_2", norm="plain_batch", width=8)})
    arrays = published_arrays.vgg(norm=False)
    found = match(file_of(arrays), shapes, {"vgg": "vgg"})
    assert set(found.kept) == {path for path in shapes if path.startswith("batch_stats")}
    assert set(found.values) == set(shapes) - set(found.kept)
    for layer, number in PLAIN_VGG.items():
        kernel = arrays[f"features.{number}.weight"].transpose(2, 3, 1, 0)
        np.testing.assert_array_equal(found.values[f"params/vgg/{layer}/kernel"], kernel)
        np.testing.assert_array_equal(found.values[f"params/vgg/{layer}/bias"], arrays[f"features.{number}.bias"])
    assert "features.21.weight" in found.ignored  # conv4_3


def test_the_names_of_timm_for_the_linear_layers():
    shapes = vgg_shapes({"vgg": VGG(last="conv4_2", norm="plain_batch", width=8)})
    renamed = {"classifier.0": "pre_logits.fc1", "classifier.3": "pre_logits.fc2", "classifier.6": "head.fc"}
    arrays = {}
    for name, array in published_arrays.vgg(norm=False).items():
        module, _, leaf = name.rpartition(".")
        arrays[f"{renamed.get(module, module)}.{leaf}"] = array
    found = match(file_of(arrays), shapes, {"vgg": "vgg"})
    assert set(found.values) == {path for path in shapes if path.startswith("params/")}
    assert found.ignored["pre_logits.fc1.weight"] == "its classifier"


@pytest.mark.parametrize(
    ("norm", "file", "says"),
    [
        ("batch", {"norm": False}, r"VGG-16 .* of the model .*\(vgg/bn1_1/"),
        ("plain_batch", {"norm": True}, r"VGG-16-BN .* of its weights .*\(features.1.weight"),
        ("plain_batch", {"norm": False, "stages": (2, 2, 4, 4, 4)}, r"VGG-19 .* differ in shape"),
        ("plain_batch", {"norm": False, "width": 16}, r"VGG-16 \(width=16\).* differ in shape"),
    ],
)
def test_another_vgg(norm, file, says):
    shapes = vgg_shapes({"vgg": VGG(last="conv4_2", norm=norm, width=8)})
    with pytest.raises(UserError, match=says):
        match(file_of(published_arrays.vgg(**file)), shapes, {"vgg": "vgg"})


def test_a_deeper_vgg_is_no_vgg16_even_where_the_first_layers_are_alike():
    shapes = vgg_shapes({"vgg": VGG(last="pool2", norm="plain_batch", width=8)})
    arrays = published_arrays.vgg(norm=False, stages=(2, 2, 4, 4, 4))
    with pytest.raises(UserError, match=r"of its weights .*\(features.16.weight"):
        match(file_of(arrays), shapes, {"vgg": "vgg"})


def test_super_resolution_leaves_its_mean_behind():
    shapes = shapes_of(Parts({"sr": Enlarged(blocks=2, width=8)}), size=8) | {"params/head/kernel": (3, 3)}
    found = match(file_of(published_arrays.edsr()), shapes, {"sr": "edsr_x2", "vgg": "vgg"})
    assert set(found.values) == set(shapes) - {"params/head/kernel"}
    assert {name.split(".")[0] for name in found.ignored} == {"sub_mean", "add_mean"}
    with pytest.raises(UserError, match=r"EDSR x2 \(3 blocks, width=8\).* of its weights .*\(body.2.body.0"):
        match(file_of(published_arrays.edsr(blocks=3)), shapes, {"sr": "edsr_x2"})
