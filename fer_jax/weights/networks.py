"""Published networks and the parts of a model that take them: names and layouts.

`Method.published` says which part of a model, named by its path, is which network. Parts may take different stretches
of one network, or the same stretch several times. A weight goes where its name says:

    ours                      PyTorch's           layout
    kernel of a convolution   weight              [out, in, h, w] -> [h, w, in, out]
    kernel of a linear layer  weight              [out, in] -> [in, out]
    scale, bias               weight, bias
    mean, var                 running_mean, running_var (PyTorch stores the unbiased variance, which counts n / (n - 1)
                              more than the biased one that `fer_jax.nn.normalization` keeps; at evaluation the stored
                              one is used as it is, so the function is the same)

Everything else must be explained: by a rule below that says why, or by the user in `config.init_ignore`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from fer_jax.errors import UserError
from fer_jax.nn.vgg import torchvision_index
from fer_jax.weights.files import WeightFile

Arrays = Mapping[str, np.ndarray]
LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
SHOWN = 3  # names in a message


@dataclasses.dataclass(frozen=True)
class Network:
    """How one family of published networks is named.

    Attributes:
        anchors: names that tell that a file holds it, and behind which prefix.
        module_name: from a module's path inside our part (`layer1_0/conv1`) and the file's arrays to its name there
            (`layer1.0.conv1`), or '' where the file's form of the network has no such module.
        explain: from the name of a weight that no part takes, the file's arrays, and the file's names of the modules
            that the model has, to the reason, or '' for none.
        describe: from the file's arrays to what they are, and how to make a model like them.
    """

    anchors: tuple[str, ...]
    module_name: Callable[[str, Arrays], str]
    explain: Callable[[str, Arrays, set[str]], str]
    describe: Callable[[Arrays], tuple[str, str]]


@dataclasses.dataclass
class Match:
    """Which weight goes where.

    Attributes:
        title: what the source holds, e.g. 'ResNet-18'.
        values: what is loaded, by path with its collection ('params/trunk/conv1/kernel'), in our layout.
        kept: parameters of the parts concerned that stay at init, with the reason.
        ignored: names in the source that nobody takes, with the reason.
    """

    title: str
    values: dict[str, np.ndarray]
    kept: dict[str, str]
    ignored: dict[str, str]


def match(
    file: WeightFile,
    shapes: Mapping[str, tuple[int, ...]],
    parts: Mapping[str, str],
    ignore: Sequence[str] = (),
) -> Match:
    """Finds a place for each weight of a published file.

    Args:
        file: the weights.
        shapes: of the model's parameters and batch statistics, by path with its collection.
        parts: `Method.published`.
        ignore: expressions of `config.init_ignore`.

    Raises:
        UserError: if the file holds none of the networks that the parts are, if a weight with a place is no floating
            number, or if anything is left unexplained.
    """
    key, arrays = identify(file)
    network = NETWORKS[key]
    title, like_it = network.describe(arrays)
    there = {part: parts[part] for path in shapes if (part := part_of(path, parts))}  # a table may name more
    takers = [part for part, its_network in there.items() if its_network == key]
    if not takers:
        offered = ", ".join(f"{part} ({network})" for part, network in there.items()) or "none"
        raise UserError(
            f"config.init_from: {file.path} holds {title}, which no part of this model takes; its parts are {offered}"
        )
    found, problems = Match(title, {}, {}, {}), Problems()
    used: set[str] = set()
    modules: set[str] = set()  # names in the file of the modules that the model has
    for path, shape in shapes.items():
        part = part_of(path, takers)
        if not part:
            continue
        inner, _, leaf = short(path).removeprefix(f"{part}/").rpartition("/")
        module = network.module_name(inner, arrays)
        name = f"{module}.{LEAVES[leaf]}"
        modules.add(module)
        if ignored_by(path, ignore):
            found.kept[path] = "config.init_ignore"
            used.add(name)
        elif name in arrays:
            used.add(name)
            _check_floating(name, arrays[name], file.path)
            value = to_our_layout(arrays[name], leaf)
            if value.shape == shape:
                found.values[path] = value
            else:
                problems.shapes.append(f"{short(path)} {list(shape)} and {name} {list(value.shape)}")
        elif leaf in ("mean", "var") and path.replace("batch_stats", "params").replace(leaf, "scale") not in shapes:
            found.kept[path] = "a normalisation without parameters, which the published network does not have"
        else:
            problems.homeless.append(short(path))
    for name in arrays:
        if name in used:
            continue
        reason = _explanation(name, network, arrays, modules, ignore)
        if reason:
            found.ignored[name] = reason
        else:
            problems.unclaimed.append(name)
    if problems:
        advice = f"the file is {like_it}: build the model like it, or name in config.init_ignore what may differ"
        raise UserError(
            f"config.init_from: {file.path} holds {title}, which does not fit {', '.join(takers)}: {problems}; {advice}"
        )
    return found


@dataclasses.dataclass
class Problems:
    """What nothing explains: parameters without a weight, weights without a parameter, pairs of unlike shape."""

    homeless: list[str] = dataclasses.field(default_factory=list)
    unclaimed: list[str] = dataclasses.field(default_factory=list)
    shapes: list[str] = dataclasses.field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.homeless or self.unclaimed or self.shapes)

    def __str__(self) -> str:
        texts = {
            "differ in shape": self.shapes,
            "of the model find no weight": self.homeless,
            "of the source find no place": self.unclaimed,
        }
        return "; ".join(f"{len(names)} {text} ({some(names)})" for text, names in texts.items() if names)


def some(names: Sequence[str]) -> str:
    """Returns the first few of many names."""
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def short(path: str) -> str:
    """Returns a path without its collection: what users write and read."""
    return path.partition("/")[2]


def part_of(path: str, parts: Iterable[str]) -> str:
    """Returns which of the parts a path belongs to, or ''."""
    return next((part for part in parts if short(path).startswith(f"{part}/")), "")


def ignored_by(path: str, ignore: Iterable[str]) -> bool:
    """Whether an expression of `config.init_ignore` is found in the name of one of our parameters."""
    return any(re.search(expression, short(path)) for expression in ignore)


def identify(file: WeightFile) -> tuple[str, dict[str, np.ndarray]]:
    """Returns which network a file holds, by the key of NETWORKS, and its arrays under the names of its authors.

    Prefixes that training scripts leave (`module.`, `model.`, `backbone.`) are taken off.
    """
    arrays = {_numbered_resnet(name, file.arrays): array for name, array in file.arrays.items()}
    for key, network in NETWORKS.items():
        first, *others = network.anchors
        prefixes = sorted((n.removesuffix(first) for n in arrays if f".{n}".endswith(f".{first}")), key=len)
        for prefix in prefixes:
            if arrays[prefix + first].ndim == 4 and all(prefix + other in arrays for other in others):
                return key, {name.removeprefix(prefix): array for name, array in arrays.items()}
    raise UserError(
        f"config.init_from: {file.path} holds none of the networks known here (ResNet, VGG-16, EDSR) under the names "
        f"their authors gave: it has {len(arrays)} weights, {some(list(arrays))}"
    )


def _check_floating(name: str, value: np.ndarray, path: str) -> None:
    """Refuses whole numbers: without the scales that a quantised file keeps elsewhere they are no weights."""
    if value.dtype != np.float32:  # `read_weights` has made every floating type this one
        raise UserError(
            f"config.init_from: {name} in {path} is {value.dtype}, not a floating number, as in a quantised file: give "
            "the weights in float32, float16 or bfloat16"
        )


def to_our_layout(value: np.ndarray, leaf: str) -> np.ndarray:
    """Moves a weight from PyTorch's layout to ours; see the table above."""
    if leaf != "kernel":
        return value
    return value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T


def _explanation(name: str, network: Network, arrays: Arrays, modules: set[str], ignore: Sequence[str]) -> str:
    """Returns why a weight of the file has no place, or '' where nothing says so."""
    module, _, leaf = name.rpartition(".")
    if leaf == "num_batches_tracked":
        return "PyTorch's counter of batches"
    # Of a module that the model has, every weight must have a place.
    reason = "" if module in modules else network.explain(name, arrays, modules)
    return reason or ("config.init_ignore" if any(re.search(expression, name) for expression in ignore) else "")


def _starts(reasons: Mapping[str, str]) -> Callable[[str, Arrays, set[str]], str]:
    """Explains weights by the first part of their names."""
    return lambda name, *_: reasons.get(name.partition(".")[0], "")


# ResNet: torchvision's names, which checkpoints trained on MS-Celeb-1M and FER+ share behind `module.`.

RESNET_BLOCKS: Mapping[tuple[int, ...], Mapping[int, int]] = {
    (2, 2, 2, 2): {1: 18},
    (3, 4, 6, 3): {1: 34, 4: 50},
    (3, 4, 23, 3): {4: 101},
    (3, 8, 36, 3): {4: 152},
}
RESNET_CHILDREN = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}


def _numbered_resnet(name: str, arrays: Arrays) -> str:
    """Gives a ResNet wrapped in a Sequential, as in SCN's code, its names back: `features.4.0` is `layer1.0`."""
    if not any(n.endswith("features.4.0.conv1.weight") for n in arrays):
        return name
    return re.sub(r"(^|\.)features\.([014567])\.", lambda m: f"{m[1]}{RESNET_CHILDREN[m[2]]}.", name)


def _resnet_module(path: str, _: Arrays) -> str:
    path = re.sub(r"^(layer\d)_(\d+)/", r"\1.\2/", path)
    return path.replace("downsample_conv", "downsample.0").replace("downsample_bn", "downsample.1").replace("/", ".")


def _describe_resnet(arrays: Arrays) -> tuple[str, str]:
    blocks = [0, 0, 0, 0]
    for name in arrays:
        if found := re.match(r"layer([1-4])\.(\d+)\.", name):
            stage, number = int(found[1]) - 1, int(found[2])
            blocks[stage] = max(blocks[stage], number + 1)
    expansion = 4 if "layer1.0.conv3.weight" in arrays else 1
    depth = RESNET_BLOCKS.get(tuple(blocks), {}).get(expansion)
    width, _, side, _ = arrays["conv1.weight"].shape
    stem = {7: "imagenet", 3: "small"}.get(side, f"{side}x{side}")
    title = f"ResNet-{depth}" if depth else f"a ResNet of {'+'.join(map(str, blocks))} blocks"
    return title, f"what config.model.depth={depth or '?'}, .width={width}, .stem={stem} makes"


# VGG-16, with or without batch normalisation: torchvision's names.


def _vgg_has_norm(arrays: Arrays) -> bool:
    return "features.1.running_mean" in arrays


def _vgg_module(path: str, arrays: Arrays) -> str:
    index = torchvision_index(_vgg_has_norm(arrays))
    if path.startswith("bn"):
        return f"features.{index[path.replace('bn', 'conv')] + 1}" if _vgg_has_norm(arrays) else ""
    return f"features.{index[path]}"


def _describe_vgg(arrays: Arrays) -> tuple[str, str]:
    layers = sum(value.ndim == 4 for value in arrays.values())
    norm = "-BN" if _vgg_has_norm(arrays) else ""
    title = f"VGG-{layers + 3}{norm}"
    return title, f"{title} of width {arrays['features.0.weight'].shape[0]}, as torchvision names it"


def _explain_vgg(name: str, arrays: Arrays, modules: set[str]) -> str:
    if name.startswith(("classifier.", "pre_logits.", "head.")):  # torchvision's, and timm's
        return "its classifier"
    norm = _vgg_has_norm(arrays)
    for layer, number in torchvision_index(norm).items():
        # A normalisation whose convolution the model has is missed there.
        if layer.startswith("conv") and f"features.{number}" not in modules:
            own = [f"features.{number + step}" for step in range(1 + norm)]
            if name.rpartition(".")[0] in own:
                return "layers that the model does not have"
    return ""


# EDSR: the names of its authors, which fer_jax.nn.edsr carries too.


def _describe_edsr(arrays: Arrays) -> tuple[str, str]:
    blocks = len({name.split(".")[1] for name in arrays if name.startswith("body.")}) - 1  # the last is a convolution
    doublings = len({name.split(".")[2] for name in arrays if name.startswith("tail.0.")})
    width = arrays["head.0.weight"].shape[0]
    return f"EDSR x{2**doublings}", f"an EDSR x{2**doublings} of {blocks} blocks and {width} channels"


EDSR_X2 = Network(
    anchors=("head.0.weight", "tail.0.0.weight"),
    module_name=lambda path, _: path,
    explain=_starts(dict.fromkeys(("sub_mean", "add_mean"), "the mean of DIV2K, which is left out here")),
    describe=_describe_edsr,
)

NETWORKS = {
    "resnet": Network(
        anchors=("conv1.weight", "layer1.0.conv1.weight"),
        module_name=_resnet_module,
        explain=_starts(
            {"fc": "its classifier", "feature": "its face embedding"}
            | dict.fromkeys(("alpha", "beta", "pred_fc1", "pred_fc2"), "heads for frames and for noisy labels")
        ),
        describe=_describe_resnet,
    ),
    "vgg": Network(
        anchors=("features.0.weight",),
        module_name=_vgg_module,
        explain=_explain_vgg,
        describe=_describe_vgg,
    ),
    # The larger one first: it has all that tells the smaller one.
    "edsr_x4": dataclasses.replace(EDSR_X2, anchors=(*EDSR_X2.anchors, "tail.0.2.weight")),
    "edsr_x2": EDSR_X2,
}
