"""The network's inputs: augmented or preprocessed images, and the points on them, moved along."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from fer_jax.data.augment import geometry
from fer_jax.data.augment.augmentation import Augmentation, augment, warp_matrices
from fer_jax.data.augment.operations import FIELD, POLICIES
from fer_jax.data.augment.preprocessing import Preprocessing, central_matrix, preprocess
from fer_jax.errors import UserError

Batch = dict[str, jax.Array]
Order = tuple[int, ...]
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

    Clips have `frames` uint8 [B, T, H, W, C] instead of `image`.

    Args:
        key: of this step.
        batch: `points`, if there are any, are (x, y) in pixels of the stored image; afterwards in pixels of the
            network's input, still of the same part of the face: they may lie outside.
        augmentation: of training images.
        preprocessing: of all images.
        mirror: for each point, the point that takes its place on the mirrored face.
        flips: which images 'flip:alternate' mirrors.

    Returns:
        The batch with `image` float32 [B, S, S, 3], or `frames` float32 [B, T, S, S, 3], S the preprocessing's size.

    Raises:
        UserError: for points and a policy, which would leave them where they are.
    """
    if "frames" in batch:
        alike = 1 if augmentation.per_frame else batch["frames"].shape[1]
        return _by_frame(batch, lambda frames: augment(key, frames, augmentation, preprocessing, alike=alike))
    moved = {"image": augment(key, batch["image"], augmentation, preprocessing, flips=flips)}
    if "points" in batch:
        if unmoved := [leaf for entry in augmentation.operations for leaf in entry.leaves() if leaf.name in POLICIES]:
            raise UserError(f"{FIELD}: '{unmoved[0].text}' does not move landmarks, which this run reads: leave it out")
        matrices = warp_matrices(key, batch["image"].shape, augmentation, size=preprocessing.size, flips=flips)
        moved["points"] = _move(matrices, batch["points"], mirror)
    return batch | moved


def plain_inputs(batch: Batch, preprocessing: Preprocessing) -> Batch:
    """Does the same without augmentation: the network's input in evaluation and prediction."""
    if "frames" in batch:
        return _by_frame(batch, lambda frames: preprocess(frames, preprocessing))
    moved = {"image": preprocess(batch["image"], preprocessing)}
    if "points" in batch:
        matrix = central_matrix(batch["image"].shape, preprocessing)
        points = batch["points"].astype(jnp.float32)
        moved["points"] = jax.vmap(lambda face: geometry.move_points(matrix, face))(points)
    return batch | moved


def alternate_flips(key: Key[Array, ""], index: Int[Array, "B"], epoch: Int[Array, "B"]) -> Bool[Array, "B"]:
    """Returns which images are mirrored in an epoch: each in every other one, and half of all in the first.

    Args:
        key: the same at every step.
        index: of each image in the training set.
        epoch: how often each has been shown before.
    """
    first = jax.vmap(lambda i: jax.random.bernoulli(jax.random.fold_in(key, i)))(index)
    return first ^ (epoch % 2 == 1)


def mirrored(inputs: Batch, mirror: Order = ()) -> Batch:
    """Mirrors network inputs: `image` [B, S, S, C] and, if there are any, `points` [B, L, 2]; or `frames` of clips."""
    if "frames" in inputs:
        return inputs | {"frames": inputs["frames"][:, :, :, ::-1]}
    image = inputs["image"]
    flipped = {"image": image[:, :, ::-1]}
    if "points" in inputs:
        points = inputs["points"] * jnp.array([-1.0, 1.0]) + jnp.array([image.shape[2] - 1.0, 0.0])
        flipped["points"] = _exchange(points, mirror)
    return inputs | flipped


def turned(inputs: Batch, degrees: Float[Array, "B"]) -> Batch:
    """Turns network inputs counter-clockwise about their middle, 0 outside: `image` and, if there are any, `points`."""
    size = inputs["image"].shape[1]
    matrices = jax.vmap(lambda angle: geometry.turn(angle, size))(degrees)
    moved = {"image": jax.vmap(lambda image, matrix: geometry.sample(image, matrix, size))(inputs["image"], matrices)}
    if "points" in inputs:
        moved["points"] = _move(matrices, inputs["points"])
    return inputs | moved


def corner_view(inputs: Batch, number: Int[Array, ""], mirror: Order = ()) -> Batch:
    """Returns one of the CORNER_VIEWS views of network inputs: a corner of the picture, magnified.

    Args:
        inputs: `image` [B, S, S, C] and, if there are any, `points` [B, L, 2], which move along.
        number: 0 .. 3 are the corners, row by row; 4 .. 7 the same of the mirrored picture.
        mirror: for each point, the point that takes its place on the mirrored face.

    Raises:
        UserError: for clips.
    """
    if "image" not in inputs:
        raise UserError("config.evaluation.views='corners' needs still images: give ''")
    flipped = mirrored(inputs, mirror)
    seen = {k: jnp.where(number >= 4, flipped[k], inputs[k]) for k in ("image", "points") if k in inputs}
    size = seen["image"].shape[1]
    at = jnp.stack([number % 2, number // 2 % 2]).astype(jnp.float32)  # (x, y): 0 is left or top, 1 right or bottom
    # From output to input: pixel edges, not centers, lie at the picture's corner.
    offset = (1 / CORNER_ZOOM - 1) / 2 + at * (size - size / CORNER_ZOOM)
    matrix = jnp.concatenate([jnp.eye(2) / CORNER_ZOOM, offset[:, None]], axis=1)
    view = {"image": jax.vmap(lambda image: geometry.sample(image, matrix, size, "edge"))(seen["image"])}
    if "points" in seen:
        view["points"] = jax.vmap(lambda points: geometry.move_points(matrix, points))(seen["points"])
    return inputs | view


def _by_frame(batch: Batch, change: Callable[[jax.Array], jax.Array]) -> Batch:
    clips, length, *picture = batch["frames"].shape
    frames = change(batch["frames"].reshape(clips * length, *picture))
    return batch | {"frames": frames.reshape(clips, length, *frames.shape[1:])}


def _move(matrices: Float[Array, "B R 3"], points: Float[Array, "B L 2"], mirror: Order = ()) -> Float[Array, "B L 2"]:
    moved = jax.vmap(geometry.move_points)(matrices, points.astype(jnp.float32))
    reversed_ = jax.vmap(geometry.mirrors)(matrices)
    return jnp.where(reversed_[:, None, None], _exchange(moved, mirror), moved)


def _exchange(points: Float[Array, "B L 2"], mirror: Order) -> Float[Array, "B L 2"]:
    return points[:, jnp.array(mirror)] if mirror else points
