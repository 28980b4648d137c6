"""The network's inputs: augmented or preprocessed images, and the points and objects on them, moved along."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from fer_jax.data.augment import geometry
from fer_jax.data.augment.augmentation import Augmentation, augment, warp_matrices
from fer_jax.data.augment.preprocessing import Preprocessing, central, central_matrix, preprocess
from fer_jax.errors import UserError

Batch = dict[str, jax.Array]
Order = tuple[int, ...]
PIXELS = ("image", "occlusion")  # fields of a still image that have its shape
CORNER_VIEWS = 8  # four corners, mirrored or not
CORNER_ZOOM = 1.1


def augmented_inputs(
    key: Key[Array, ""],
    batch: Batch,
    augmentation: Augmentation,
    preprocessing: Preprocessing,
    *,
    mirror: Order = (),
    flips: Bool[Array, "B"] | None = None,
) -> Batch:
    """Replaces `image` uint8 [B, H, W, C] by the network's input in training and moves `points` [B, L, 2] with it.

    Clips have `frames` uint8 [B, T, H, W, C] instead of `image`, and `points` [B, T, L, 2].

    Args:
        key: of this step.
        batch: `points`, if there are any, are (x, y) in pixels of the stored image; afterwards in pixels of the
            network's input, still of the same part of the face: they may lie outside. `occlusion` bool [B, H, W], if
            there is any, marks pixels of the stored image; afterwards it is float32 [B, S, S, 1], the share of each.
        augmentation: of training images.
        preprocessing: of all images.
        mirror: for each point, the point that takes its place on the mirrored face.
        flips: which images 'flip:alternate' mirrors.

    Returns:
        The batch with `image` float32 [B, S, S, 3], or `frames` float32 [B, T, S, S, 3], S the preprocessing's size.
    """

    def change(images: Batch, alike: int = 1) -> Batch:
        more: Any = {"alike": alike, "flips": flips}
        moved = {"image": augment(key, images["image"], augmentation, preprocessing, **more)}
        if not {"points", "occlusion"} & set(images):
            return moved
        matrices = warp_matrices(key, images["image"].shape, augmentation, size=preprocessing.size, **more)
        if "points" in images:
            moved["points"] = _move(matrices, images["points"], mirror)
        if "occlusion" in images:
            masks = images["occlusion"][..., None].astype(jnp.float32)
            moved["occlusion"] = _sampled(masks, matrices, preprocessing.size)
        return moved

    if "frames" in batch:
        alike = 1 if augmentation.per_frame else batch["frames"].shape[1]
        return _by_frame(batch, functools.partial(change, alike=alike))
    return batch | change(batch)


def plain_inputs(batch: Batch, preprocessing: Preprocessing) -> Batch:
    """Does the same without augmentation: the network's input in evaluation and prediction."""

    def change(images: Batch) -> Batch:
        moved = {"image": preprocess(images["image"], preprocessing)}
        if "points" in images:
            matrix = central_matrix(images["image"].shape, preprocessing)
            points = images["points"].astype(jnp.float32)
            moved["points"] = jax.vmap(lambda face: geometry.move_points(matrix, face))(points)
        if "occlusion" in images:
            moved["occlusion"] = central(images["occlusion"][..., None].astype(jnp.uint8), preprocessing)
        return moved

    return _by_frame(batch, change) if "frames" in batch else batch | change(batch)


def alternate_flips(key: Key[Array, ""], index: Int[Array, "B"], epoch: Int[Array, "B"]) -> Bool[Array, "B"]:
    """Returns which images are mirrored in an epoch: each image every other epoch, half of all images in the first.

    Args:
        key: the same at every step.
        index: of each image in the training set.
        epoch: how often each has been shown before.
    """
    first = jax.vmap(lambda i: jax.random.bernoulli(jax.random.fold_in(key, i)))(index)
    return first ^ (epoch % 2 == 1)


def mirrored(inputs: Batch, mirror: Order = ()) -> Batch:
    """Mirrors network inputs: `image` [B, S, S, C], or `frames` [B, T, S, S, C], and what there is on them."""
    name = "frames" if "frames" in inputs else "image"
    flipped = {pixels: inputs[pixels][..., ::-1, :] for pixels in (name, "occlusion") if pixels in inputs}
    if "points" in inputs:
        points = inputs["points"] * jnp.array([-1.0, 1.0]) + jnp.array([inputs[name].shape[-2] - 1.0, 0.0])
        flipped["points"] = _exchange(points, mirror)
    return inputs | flipped


def turned(inputs: Batch, degrees: Float[Array, "B"]) -> Batch:
    """Turns network inputs counter-clockwise about their middle, 0 outside: `image` and what there is on it."""
    size = inputs["image"].shape[1]
    matrices = jax.vmap(lambda angle: geometry.turn(angle, size))(degrees)
    moved = {name: _sampled(inputs[name], matrices, size) for name in PIXELS if name in inputs}
    if "points" in inputs:
        moved["points"] = _move(matrices, inputs["points"])
    return inputs | moved


def corner_view(inputs: Batch, number: Int[Array, ""], mirror: Order = ()) -> Batch:
    """Returns one of the CORNER_VIEWS views of network inputs: a corner of the picture, magnified.

    Args:
        inputs: `image` [B, S, S, C] and, if there are any, `points` [B, L, 2] and `occlusion`, which move along.
        number: 0 .. 3 are the corners, row by row; 4 .. 7 the same of the mirrored picture.
        mirror: for each point, the point that takes its place on the mirrored face.

    Raises:
        UserError: for clips.
    """
    if "image" not in inputs:
        raise UserError("config.evaluation.views='corners' needs still images: give ''")
    flipped = mirrored(inputs, mirror)
    seen = {k: jnp.where(number >= 4, flipped[k], inputs[k]) for k in (*PIXELS, "points") if k in inputs}
    size = seen["image"].shape[1]
    at = jnp.stack([number % 2, number // 2 % 2]).astype(jnp.float32)  # (x, y): 0 is left or top, 1 right or bottom
    # From output to input: pixel edges, not centers, lie at the picture's corner.
    offset = (1 / CORNER_ZOOM - 1) / 2 + at * (size - size / CORNER_ZOOM)
    matrix = jnp.concatenate([jnp.eye(2) / CORNER_ZOOM, offset[:, None]], axis=1)
    magnified = jax.vmap(lambda image: geometry.sample(image, matrix, size, "edge"))
    view = {name: magnified(seen[name]) for name in PIXELS if name in seen}
    if "points" in seen:
        view["points"] = jax.vmap(lambda points: geometry.move_points(matrix, points))(seen["points"])
    return inputs | view


def _by_frame(batch: Batch, change: Callable[[Batch], Batch]) -> Batch:
    """Applies `change`, of `image` and perhaps `points`, to all frames of clips."""
    shape = batch["frames"].shape[:2]
    images = {"image": batch["frames"]} | {name: batch[name] for name in ("points",) if name in batch}
    changed = change({name: values.reshape(-1, *values.shape[2:]) for name, values in images.items()})
    changed = {name: values.reshape(*shape, *values.shape[1:]) for name, values in changed.items()}
    return batch | {"frames": changed.pop("image")} | changed


def _move(matrices: Float[Array, "B R 3"], points: Float[Array, "B L 2"], mirror: Order = ()) -> Float[Array, "B L 2"]:
    moved = jax.vmap(geometry.move_points)(matrices, points.astype(jnp.float32))
    reversed_ = jax.vmap(geometry.mirrors)(matrices)
    return jnp.where(reversed_[:, None, None], _exchange(moved, mirror), moved)


def _sampled(images: Float[Array, "B H W C"], matrices: Float[Array, "B R 3"], size: int) -> Float[Array, "B S S C"]:
    return jax.vmap(lambda image, matrix: geometry.sample(image, matrix, size))(images, matrices)


def _exchange(points: Float[Array, "*B L 2"], mirror: Order) -> Float[Array, "*B L 2"]:
    return points[..., jnp.array(mirror), :] if mirror else points
