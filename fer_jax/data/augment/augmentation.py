"""Random augmentation inside the compiled training step: JAX, vmapped, one key for each example.

The geometric operations of the list compose, in their order, into one map and one bilinear sampling. Changes of pixels
that precede all geometry act on the stored picture, later ones on the sampled image; then it is normalized, and boxes
are erased.
"""

import dataclasses
import functools
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, UInt8

from fer_jax.data.augment import geometry, placement
from fer_jax.data.augment.draws import example_keys, stream
from fer_jax.data.augment.operations import GEOMETRY, INPUT, PIXELS, POLICIES, Operation, check_sizes, parse
from fer_jax.data.augment.preprocessing import Preprocessing, normalize

ALIASING = 1.5  # a stronger reduction than this is smoothed first


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What happens to a training image: `config.augmentation`.

    Attributes:
        train: the operations in their order (fer_jax/data/augment/operations.py).
        pad: how pixels outside the stored picture are filled: 'zero', 'edge' or 'reflect'.
        per_frame: augment each frame of a clip independently, instead of all alike.
        view: the number of this view of an example; 0 is the first.
        own: names of operations that a further view draws independently; it shares the draws of all others.
    """

    train: tuple[str, ...] = ()
    pad: str = "zero"
    per_frame: bool = False
    view: int = 0
    own: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        parse(self.train)
        object.__setattr__(self, "train", tuple(self.train))  # configs hold lists; a static argument must be hashable

    @functools.cached_property
    def operations(self) -> tuple[Operation, ...]:
        """The list, as read."""
        return parse(self.train)

    @property
    def crop(self) -> int:
        """Side of the window that `crop` cuts out, 0 if the list has none: what evaluation sees of a picture."""
        return next((entry.values["side"] for entry in self.operations if entry.name == "crop"), 0)

    @property
    def alternates(self) -> bool:
        """Whether an image is mirrored in every other epoch."""
        return any(entry.alternates for entry in self.operations)

    @property
    def policy(self) -> str:
        """The first policy in the list, as written; '' without one."""
        return next((leaf.text for entry in self.operations for leaf in entry.leaves() if leaf.name in POLICIES), "")

    def another(self, view: int, own: Iterable[str] = (), without: Iterable[str] = ()) -> "Augmentation":
        """Returns the augmentation of a further view of each example.

        Args:
            view: its number, from 1.
            own: names of operations with draws of their own; all others are as in view 0.
            without: names of operations that this view leaves out; groups stay as they are.
        """
        train = tuple(entry.text for entry in self.operations if entry.name not in set(without))
        return dataclasses.replace(self, train=train, view=view, own=tuple(own))


def pipeline(config: Any) -> tuple[Augmentation, Preprocessing]:
    """Returns the augmentation of training pictures and the preprocessing of all pictures that a config describes.

    Evaluation uses a center crop of the size of 'crop', unless `config.preprocessing.crop` says otherwise.
    """
    augmentation = Augmentation(**config.augmentation.to_dict())
    fields = config.preprocessing.to_dict()
    crop = fields.pop("crop") or augmentation.crop
    return augmentation, Preprocessing(size=config.data.image_size, crop=crop, **fields)


def augment(
    key: Key[Array, ""],
    images: UInt8[Array, "B H W C"],
    augmentation: Augmentation,
    preprocessing: Preprocessing,
    *,
    alike: int = 1,
    flips: Bool[Array, "B"] | None = None,
) -> Float[Array, "B S S 3"]:
    """Returns the network's input in training: augmented and normalized, with three channels.

    Args:
        key: of this step.
        images: C = 1 (gray, repeated at the end) or 3.
        augmentation: the operations.
        preprocessing: size and normalization; its `crop` is not used.
        alike: number of successive images, such as the frames of a clip, that are augmented in the same way.
        flips: which images 'flip:alternate' mirrors (see `inputs.alternate_flips`).
    """
    keys, size = example_keys(key, len(images), alike), preprocessing.size
    matrices = warp_matrices(key, images.shape, augmentation, size=size, alike=alike, flips=flips)
    # Otherwise XLA's CPU compiler computes the map of an image again for each of its pixels: three times slower.
    matrices = jax.lax.optimization_barrier(matrices)
    pixels = images.astype(jnp.float32)
    if any(leaf.early and leaf.kind.changes == PIXELS for entry in augmentation.operations for leaf in entry.leaves()):
        early = functools.partial(_apply, augmentation, PIXELS, early=True)
        pixels = 255 * jax.vmap(early)(keys, flips, pixels / 255)
    source, width_ratio, height_ratio = _smoothed(pixels, augmentation.crop, size)

    def one(key: Key[Array, ""], flip: Any, image: Float[Array, "h w C"], matrix: Float[Array, "R 3"]) -> jax.Array:
        matrix = geometry.rescale_source(matrix, width_ratio, height_ratio)
        x = geometry.sample(image, matrix, size, augmentation.pad) / 255
        x = normalize(_apply(augmentation, PIXELS, key, flip, x, early=False), preprocessing)
        return _apply(augmentation, INPUT, key, flip, x)

    return jax.vmap(one)(keys, flips, source, matrices)


def warp_matrices(
    key: Key[Array, ""],
    shape: tuple[int, ...],
    augmentation: Augmentation,
    *,
    size: int,
    alike: int = 1,
    flips: Bool[Array, "B"] | None = None,
) -> Float[Array, "B R 3"]:
    """Returns the maps that `augment` applies with this key to images of this shape, from output to stored pixels.

    `geometry.move_points` takes landmarks through them.
    """
    height, width = shape[1:3]
    check_sizes(augmentation.operations, height, width)
    warps = any(leaf.name == "warp" for entry in augmentation.operations for leaf in entry.leaves())

    def one(key: Key[Array, ""], flip: Any) -> Float[Array, "R 3"]:
        place = placement.whole(height, width, warps)
        return placement.matrix(_apply(augmentation, GEOMETRY, key, flip, place), size)

    return jax.vmap(one)(example_keys(key, shape[0], alike), flips)


def _apply(
    augmentation: Augmentation, changes: str, key: Key[Array, ""], flip: Any, x: Any, early: bool | None = None
) -> Any:
    """Applies the operations of one stage to one example.

    Args:
        augmentation: the operations.
        changes: the stage: GEOMETRY, PIXELS or INPUT.
        key: of the example.
        flip: whether 'flip:alternate' mirrors it.
        x: a Placement, or an image.
        early: of PIXELS: those that precede all geometry, or the others; None for all.
    """
    for operation, own, on in _drawn(augmentation, augmentation.operations, key, flip, None):
        kind = operation.kind
        if kind.changes != changes or early not in (None, operation.early):
            continue
        changed = kind.apply(own, x, **operation.values)
        x = changed if on is None else jax.tree.map(functools.partial(_where, on), changed, x)
    return x


def _drawn(
    augmentation: Augmentation, operations: Iterable[Operation], key: Key[Array, ""], flip: Any, on: Any
) -> Iterator[tuple[Operation, Key[Array, ""], Any]]:
    """Yields each operation outside and inside of groups, its key, and whether it is applied: None means always."""
    for operation in operations:
        grouped = bool(operation.members)
        own = stream(key, *((operation.name,) if grouped else operation.kind.streams))
        if operation.repeat:
            own = jax.random.fold_in(own, operation.repeat)
        if operation.name in augmentation.own:
            own = jax.random.fold_in(stream(own, "view"), augmentation.view)
        chosen = flip if operation.alternates else on
        if operation.p < 1.0:
            gate = ("chosen",) if grouped else operation.kind.gate
            chosen = _both(on, jax.random.bernoulli(stream(own, *gate), operation.p))
        if not grouped:
            yield operation, own, chosen
        elif operation.name == "all_of":
            yield from _drawn(augmentation, operation.members, key, flip, chosen)
        else:
            pick = jax.random.randint(stream(own, "pick"), (), 0, len(operation.members))
            for number, member in enumerate(operation.members):
                yield from _drawn(augmentation, (member,), key, flip, _both(chosen, pick == number))


def _where(on: Bool[Array, ""], changed: jax.Array, x: jax.Array) -> jax.Array:
    return x if changed is x else jnp.where(on, changed, x)


def _both(a: Any, b: Any) -> Any:
    return b if a is None else a & b


def _smoothed(images: Float[Array, "B H W C"], crop: int, size: int) -> tuple[Float[Array, "B h w C"], float, float]:
    """Shrinks images that sampling would alias. Returns (images, width ratio, height ratio)."""
    height, width = images.shape[1:3]
    reduction = (crop or min(height, width)) / size
    if reduction <= ALIASING:
        return images, 1.0, 1.0
    h, w = round(height / reduction), round(width / reduction)
    return geometry.resize(images, h, w), w / width, h / height
