"""Published networks: the names of their weights, and the places of these in a model.

`Method.published` says which part of a model, named by its path, is which network: {"trunk": "resnet"}. Several parts
may be the same network or stretches of one. Names and layouts:

    ours                      PyTorch's           layout
    kernel of a convolution   weight              [out, in, h, w] -> [h, w, in, out]
    kernel of a linear layer  weight              [out, in] -> [in, out]
    scale, bias               weight, bias
    mean, var                 running_mean, running_var (PyTorch stores the unbiased variance, which is n / (n - 1)
                              times the biased one of `fer_jax.nn.normalization`; evaluation uses the stored one as it
                              is, so the function is the same)

Nothing is left out silently: whatever has no counterpart needs a reason, from a rule below or from
`config.init_ignore`. Otherwise the source is refused.
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
Shapes = Mapping[str, tuple[int, ...]]
LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
NAMES_SHOWN = 3


@dataclasses.dataclass(frozen=True)
class Network:
    """The names in one form of published file.

    Attributes:
        kind: what methods call the network.
        anchors: names that identify such a file, behind any prefix; the first is that of its first convolution.
        title: from the arrays and the first convolution's kernel [h, w, in, out] to the network's name and size.
        module: from the path of a module in our part (`layer1_0/conv1`) to its name in the file (`layer1.0.conv1`).
        unused: expressions that match the start of names without a place in our model -> the reason.
    """

    kind: str
    anchors: tuple[str, ...]
    title: Callable[[Arrays, np.ndarray], str]
    module: Callable[[str], str]
    unused: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Match:
    """Which weights of a source go where in a model.

    Attributes:
        title: what the source holds, for example 'ResNet-18 (width=64, stem=imagenet)'.
        values: what is loaded, by path with its collection ('params/trunk/conv1/kernel'), in our layout.
        kept: parameters in the reach of the source that stay at init -> the reason.
        ignored: names of the source without a place -> the reason.
    """

    title: str
    values: dict[str, np.ndarray]
    kept: dict[str, str]
    ignored: dict[str, str]


def match(file: WeightFile, shapes: Shapes, parts: Mapping[str, str], ignore: Sequence[str] = ()) -> Match:
    """Matches a published file with a model.

    Args:
        file: the weights.
        shapes: of the model's parameters and batch statistics, by path with the collection.
        parts: `Method.published`.
        ignore: expressions of `config.init_ignore`.

    Raises:
        UserError: if the file holds no network that a part of the model takes, or if `place` refuses it.
    """
    network, arrays = _identify(file)
    title = network.title(arrays, arrays[network.anchors[0]])
    takers = [part for part, kind in parts.items() if kind == network.kind]
    names: dict[str, str] = {}
    reasons: dict[str, str] = {}
    for path in shapes:
        if part := part_of(path, takers):
            module, _, leaf = short(path).removeprefix(f"{part}/").rpartition("/")
            names[path] = f"{network.module(module)}.{LEAVES[leaf]}"
            if leaf in ("mean", "var") and f"params/{part}/{module}/scale" not in shapes:
                reasons[path] = "a normalization without parameters, which the published network does not have"
    if not names:
        raise UserError(
            f"config.init_from: {file.path} holds {title}, which fits no part of this model; its parts are "
            f"{', '.join(f'{part} ({kind})' for part, kind in parts.items()) or 'none'}"
        )
    modules = {name.rpartition(".")[0] for name in names.values()}
    for name in arrays:
        module, _, leaf = name.rpartition(".")
        if leaf == "num_batches_tracked":
            reasons[name] = "PyTorch's counter of batches"
        elif module not in modules:  # every weight of a module that the model has must have a place
            reasons.update((name, reason) for start, reason in network.unused.items() if re.match(start, name))
    return place(file.path, title, arrays, names, shapes, ignore, reasons)


def place(
    path: str,
    title: str,
    arrays: Arrays,
    names: Mapping[str, str],
    shapes: Shapes,
    ignore: Sequence[str],
    reasons: Mapping[str, str],
    hint: str = "",
) -> Match:
    """Puts the weights of a source in their places and accounts for the rest.

    Args:
        path, title: where the source is and what it holds.
        arrays: by the source's names, in our layout.
        names: from each path of the model that the source should fill to its name there.
        shapes: of the model's parameters and batch statistics, by path.
        ignore: expressions of `config.init_ignore`.
        reasons: why a path of the model may find no weight, and a name of the source no place.
        hint: what to change in the model, for the message of a misfit.

    Raises:
        UserError: if shapes or types differ, or if something has neither a counterpart nor a reason.
    """
    wanted = {target: name for target, name in names.items() if not _searched(ignore, short(target))}
    kept = {target: "config.init_ignore" for target in names if target not in wanted}
    kept |= {target: reasons[target] for target, name in wanted.items() if name not in arrays and target in reasons}
    values = {target: arrays[name] for target, name in wanted.items() if name in arrays}
    claimed = set(names.values())
    others = [name for name in arrays if name not in claimed]
    ignored = {name: "config.init_ignore" for name in others if _searched(ignore, name)}
    ignored |= {name: reasons[name] for name in others if name in reasons}
    problems = {
        "differ in shape": [
            f"{short(target)} {list(shapes[target])} and {names[target]} {list(value.shape)}"
            for target, value in values.items()
            if value.shape != shapes[target]
        ],
        "are not floating-point numbers, as in a quantized file": [
            f"{names[target]} is {value.dtype}" for target, value in values.items() if value.dtype != np.float32
        ],
        "of the model have no weight there": [short(t) for t in wanted if t not in values and t not in kept],
        "of its weights have no place in the model": [name for name in others if name not in ignored],
    }
    if any(problems.values()):
        said = "; ".join(f"{len(them)} {text} ({_some(them)})" for text, them in problems.items() if them)
        raise UserError(
            f"config.init_from: {path} holds {title}, which does not fit the model: {said}; change the model to match"
            f"{hint}, or list in config.init_ignore what may differ"
        )
    return Match(title, values, kept, ignored)


def short(path: str) -> str:
    """Returns a path without its collection, as users write and read it."""
    return path.partition("/")[2]


def part_of(path: str, parts: Iterable[str]) -> str:
    """Returns which of the parts a path (with its collection) belongs to, or ''."""
    return next((part for part in parts if short(path).startswith(f"{part}/")), "")


def _searched(ignore: Iterable[str], name: str) -> bool:
    return any(re.search(expression, name) for expression in ignore)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMES_SHOWN]) + (", ..." if len(names) > NAMES_SHOWN else "")


def _identify(file: WeightFile) -> tuple[Network, dict[str, np.ndarray]]:
    """Returns which network a file holds, and its arrays in our layout.

    Prefixes that training scripts leave (`module.`, `model.`, `backbone.`) are removed.
    """
    for network in NETWORKS:
        first, *others = network.anchors
        prefixes = sorted((n.removesuffix(first) for n in file.arrays if f".{n}".endswith(f".{first}")), key=len)
        for prefix in prefixes:
            if file.arrays[prefix + first].ndim == 4 and all(prefix + other in file.arrays for other in others):
                return network, {name.removeprefix(prefix): _our_layout(a) for name, a in file.arrays.items()}
    raise UserError(
        f"config.init_from: {file.path} holds none of the known networks (ResNet, VGG-16, EDSR) under its "
        f"authors' names: it has {len(file.arrays)} weights, {_some(list(file.arrays))}"
    )


def _our_layout(value: np.ndarray) -> np.ndarray:
    return value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T


def _resnet_title(arrays: Arrays, first: np.ndarray) -> str:
    convolutions = [name for name in arrays if re.fullmatch(r"(layer|features\.)\d\.\d+\.conv\d\.weight", name)]
    stem = {7: "imagenet", 3: "small"}.get(first.shape[0], f"{first.shape[0]}x{first.shape[0]}")
    return f"ResNet-{len(convolutions) + 2} (width={first.shape[3]}, stem={stem})"


def _resnet_module(path: str) -> str:
    path = path.replace("downsample_conv", "downsample/0").replace("downsample_bn", "downsample/1")
    return re.sub(r"^(layer\d)_", r"\1.", path).replace("/", ".")


def _numbered_module(path: str) -> str:
    """The same if the ResNet was wrapped in a Sequential: `layer1.0` is `features.4.0`."""
    first, dot, rest = _resnet_module(path).partition(".")
    number = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}[first]
    return f"features.{number}{dot}{rest}"


def _edsr_title(arrays: Arrays, first: np.ndarray) -> str:
    blocks = len({name.split(".")[1] for name in arrays if name.startswith("body.")}) - 1  # the last is a convolution
    doublings = len({name.split(".")[2] for name in arrays if name.startswith("tail.0.")})
    return f"EDSR x{2**doublings} ({blocks} blocks, width={first.shape[3]})"


def _vgg(batch_norm: bool) -> Network:
    """VGG-16 under torchvision's names."""
    positions = {name: n for name, n in torchvision_index(batch_norm).items() if name.startswith("conv")}
    names = {name: f"features.{n}" for name, n in positions.items()}
    if batch_norm:
        names |= {name.replace("conv", "bn"): f"features.{n + 1}" for name, n in positions.items()}

    def title(arrays: Arrays, first: np.ndarray) -> str:
        layers = sum(value.ndim == 4 for value in arrays.values()) + 3
        return f"VGG-{layers}{'-BN' if batch_norm else ''} (width={first.shape[3]})"

    layers = "|".join(name.removeprefix("features.") for name in names.values())
    return Network(
        kind="vgg",
        anchors=("features.0.weight", "features.1.running_mean") if batch_norm else ("features.0.weight",),
        title=title,
        module=lambda path: names.get(path, ""),
        unused={
            r"(classifier|pre_logits|head)\.": "its classifier",  # torchvision's and timm's
            rf"features\.({layers})\.": "layers that the model does not have",
        },
    )


RESNET = Network(
    kind="resnet",  # torchvision's names, which checkpoints trained on MS-Celeb-1M and FER+ share
    anchors=("conv1.weight", "layer1.0.conv1.weight"),
    title=_resnet_title,
    module=_resnet_module,
    unused={
        r"fc\.": "its classifier",
        r"feature\.": "its face embedding",
        r"(alpha|beta|pred_fc1|pred_fc2)\.": "heads for frames and for noisy labels",
    },
)
EDSR_X2 = Network(
    kind="edsr_x2",  # the authors' names, which fer_jax.nn.edsr uses too
    anchors=("head.0.weight", "tail.0.0.weight"),
    title=_edsr_title,
    module=lambda path: path,
    unused={r"(sub|add)_mean\.": "the mean of DIV2K, which is left out here"},
)
# The first whose anchors a file has: what is more specific comes earlier.
NETWORKS = (
    RESNET,
    dataclasses.replace(RESNET, anchors=("features.0.weight", "features.4.0.conv1.weight"), module=_numbered_module),
    _vgg(batch_norm=True),
    _vgg(batch_norm=False),
    dataclasses.replace(EDSR_X2, kind="edsr_x4", anchors=(*EDSR_X2.anchors, "tail.0.2.weight")),
    EDSR_X2,
)
