"""Points stay on the same part of the face, whatever happens to the picture."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.data.augment.augmentation import Augmentation
from fer_jax.data.augment.inputs import (
    CORNER_VIEWS,
    CORNER_ZOOM,
    alternate_flips,
    augmented_inputs,
    corner_view,
    mirrored,
    plain_inputs,
    turned,
)
from fer_jax.data.augment.preprocessing import Preprocessing
from fer_jax.errors import UserError

MIRROR = (1, 0, 2)
RAW: Any = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
AUGMENTATIONS = {
    "none": (),
    "crop": ("crop:40",),
    "all": ("crop:40", "shift:2", "translate:0.05", "rotate:20", "shear:5", "zoom:0.8-1.2", "flip"),
    "all, from the end": ("flip", "zoom:0.8-1.2", "shear:5", "rotate:20", "translate:0.05", "shift:2", "crop:40"),
    "warp": ("crop:40", "rotate:10", "flip", "warp:0.3"),
    "warp first": ("warp:0.3", "flip", "rotate:10", "crop:40"),
    "one of": ("one_of:0.8(flip|rotate:20|all_of:0.5(warp:0.3|flip))",),
}


def spots(points: np.ndarray) -> np.ndarray:
    """Gray pictures [B, 48, 48, 3], each point a soft spot in a color of its own."""
    grid = np.stack(np.meshgrid(np.arange(48), np.arange(48)), -1)
    distance = ((grid[None, :, :, None] - points[:, None, None]) ** 2).sum(-1)  # [B, H, W, 3]
    return (250 * np.exp(-distance / 8)).astype(np.uint8)


def centers(images: np.ndarray) -> np.ndarray:
    """Where each color lies [B, 3, 2]."""
    weight = np.maximum(np.asarray(images), 0.02) - 0.02
    grid = np.stack(np.meshgrid(np.arange(images.shape[2]), np.arange(images.shape[1])), -1)
    return np.einsum("bhwc,hwd->bcd", weight, grid) / weight.sum((1, 2))[..., None]


def test_points_follow_a_picture_that_is_turned():
    points = np.random.default_rng(0).uniform(17, 31, (16, 3, 2)).astype(np.float32)
    batch = {"image": jnp.asarray(spots(points), jnp.float32) / 255, "points": jnp.asarray(points)}
    degrees = jnp.linspace(-30.0, 30.0, 16)
    inputs = turned(batch, degrees)
    np.testing.assert_allclose(centers(inputs["image"]), inputs["points"], atol=0.2)
    x, y = (points - 23.5)[-1, 0]  # counter-clockwise as seen: y points down
    c, s = np.cos(np.pi / 6), np.sin(np.pi / 6)
    np.testing.assert_allclose(inputs["points"][-1, 0] - 23.5, [c * x + s * y, c * y - s * x], atol=1e-4)


@pytest.mark.parametrize(("name", "train"), [("crop", False), *((name, True) for name in AUGMENTATIONS)])
def test_points_follow_the_picture(name, train):
    points = np.random.default_rng(0).uniform(17, 31, (16, 3, 2)).astype(np.float32)
    batch = {"image": jnp.asarray(spots(points)), "points": jnp.asarray(points)}
    augmentation = Augmentation(AUGMENTATIONS[name])
    preprocessing = Preprocessing(64, augmentation.crop, **RAW)
    if train:
        inputs = augmented_inputs(jax.random.key(3), batch, augmentation, preprocessing)
    else:
        inputs = plain_inputs(batch, preprocessing)
    # Without an order of the mirrored points each stays with its color, mirrored or not.
    np.testing.assert_allclose(inputs["points"], centers(inputs["image"]), atol=0.6)


@pytest.mark.parametrize("name", ["none", "crop", "all", "warp"])
def test_a_mask_follows_its_object(name):
    """A black picture with a white object is its mask."""
    corner, place = np.random.default_rng(0).integers(10, 20, (16, 2, 1, 1)), np.mgrid[:48, :48]
    masks = ((place >= corner) & (place < corner + 15)).all(axis=1)
    pictures = np.repeat(255 * masks[..., None], 3, axis=-1).astype(np.uint8)
    batch = {"image": jnp.asarray(pictures), "occlusion": jnp.asarray(masks)}
    augmentation = Augmentation(AUGMENTATIONS[name])
    preprocessing = Preprocessing(44, augmentation.crop, **RAW)
    drawn = augmented_inputs(jax.random.key(3), batch, augmentation, preprocessing)
    plain = plain_inputs(batch, preprocessing)
    views = [corner_view(plain, jnp.int32(number)) for number in (0, 7)]
    for seen in (drawn, plain, mirrored(drawn), turned(drawn, jnp.linspace(-30.0, 30.0, 16)), *views):
        assert seen["occlusion"].max() == pytest.approx(1)
        np.testing.assert_allclose(seen["occlusion"][..., 0], seen["image"][..., 0], atol=1e-5)


def test_a_mirrored_face_exchanges_its_points():
    points = np.random.default_rng(0).uniform(12, 36, (32, 3, 2)).astype(np.float32)
    batch = {"image": jnp.asarray(spots(points)), "points": jnp.asarray(points)}
    flip = Augmentation(("flip",))
    plain = augmented_inputs(jax.random.key(1), batch, flip, Preprocessing(48))
    ordered = augmented_inputs(jax.random.key(1), batch, flip, Preprocessing(48), mirror=MIRROR)
    turned = np.abs(np.asarray(plain["points"] - points)).max((1, 2)) > 0.01
    assert 8 < turned.sum() < 24
    np.testing.assert_array_equal(ordered["points"][~turned], plain["points"][~turned])
    np.testing.assert_array_equal(ordered["points"][turned], plain["points"][turned][:, list(MIRROR)])


@pytest.mark.parametrize("per_frame", [False, True])
def test_points_of_a_clip_follow_its_frames(per_frame):
    points = np.random.default_rng(0).uniform(17, 31, (8, 2, 3, 2)).astype(np.float32)
    batch = {"frames": jnp.asarray(spots(points.reshape(16, 3, 2)).reshape(8, 2, 48, 48, 3)), "points": points}
    augmentation = Augmentation(("crop:40", "rotate:20", "flip"), per_frame=per_frame)
    preprocessing = Preprocessing(64, augmentation.crop, **RAW)
    inputs = augmented_inputs(jax.random.key(3), batch, augmentation, preprocessing)
    for seen in (inputs, mirrored(inputs), plain_inputs(batch, preprocessing)):
        where = centers(seen["frames"].reshape(16, 64, 64, 3)).reshape(points.shape)
        np.testing.assert_allclose(seen["points"], where, atol=0.6)


def test_mirroring_twice_is_nothing():
    points = np.random.default_rng(0).uniform(12, 36, (4, 3, 2)).astype(np.float32)
    batch = {"image": jnp.asarray(spots(points)), "points": jnp.asarray(points), "label": jnp.zeros(4)}
    inputs = plain_inputs(batch, Preprocessing(48))
    once = mirrored(inputs, MIRROR)
    np.testing.assert_allclose(once["points"][:, 2, 0], 47 - points[:, 2, 0], atol=1e-4)
    np.testing.assert_allclose(once["points"][:, 0, 0], 47 - points[:, 1, 0], atol=1e-4)
    twice = mirrored(once, MIRROR)
    np.testing.assert_allclose(twice["points"], inputs["points"], atol=1e-4)
    np.testing.assert_array_equal(twice["image"], inputs["image"])


def test_corner_views_are_the_magnified_corners_and_points_follow():
    points = np.random.default_rng(0).uniform(17, 31, (4, 3, 2)).astype(np.float32)
    batch = {"image": jnp.asarray(spots(points)), "points": jnp.asarray(points), "label": jnp.arange(4)}
    inputs = plain_inputs(batch, Preprocessing(44, **RAW))
    view = jax.jit(corner_view)
    seen = [view(inputs, jnp.int32(number)) for number in range(CORNER_VIEWS)]
    for number, one in enumerate(seen):
        np.testing.assert_allclose(one["points"], centers(one["image"]), atol=0.4)
        np.testing.assert_array_equal(one["label"], batch["label"])
        # What lies at the corner stays there; the far edges leave the picture.
        corner = np.array([number % 2, number // 2 % 2]) * 43
        start = mirrored(inputs)["points"] if number >= 4 else inputs["points"]
        edge = np.where(corner > 0, 43.5, -0.5)
        np.testing.assert_allclose(one["points"] - edge, CORNER_ZOOM * (start - edge), atol=1e-3)
    swapped = corner_view(inputs, jnp.int32(5), MIRROR)["points"]
    np.testing.assert_allclose(swapped, seen[5]["points"][:, list(MIRROR)], atol=1e-4)
    with pytest.raises(UserError, match="needs still images"):
        corner_view({"frames": jnp.zeros((1, 2, 4, 4, 3))}, jnp.int32(0))


def test_alternating_flips_show_every_image_once_in_each_form():
    index = jnp.arange(200)
    first, second, third = (
        np.asarray(alternate_flips(jax.random.key(3), index, jnp.full(200, epoch))) for epoch in range(3)
    )
    np.testing.assert_array_equal(second, ~first)
    np.testing.assert_array_equal(third, first)
    assert 70 < first.sum() < 130  # half of them begin mirrored, which ones the key decides
    other = np.asarray(alternate_flips(jax.random.key(4), index, jnp.zeros(200, int)))
    assert 60 < (other != first).sum() < 140
    shuffled = np.random.default_rng(0).permutation(200)
    np.testing.assert_array_equal(
        alternate_flips(jax.random.key(3), index[shuffled], jnp.zeros(200, int)), first[shuffled]
    )


def test_given_flips_mirror_picture_and_points():
    points = np.random.default_rng(0).uniform(17, 31, (4, 3, 2)).astype(np.float32)
    batch = {"image": jnp.asarray(spots(points)), "points": jnp.asarray(points)}
    flips = jnp.array([True, False, True, False])
    flip = Augmentation(("flip:alternate",))
    seen = augmented_inputs(jax.random.key(0), batch, flip, Preprocessing(48), mirror=MIRROR, flips=flips)
    plain = plain_inputs(batch, Preprocessing(48))
    both = mirrored(plain, MIRROR)
    for number, flip in enumerate([True, False, True, False]):
        expected = both if flip else plain
        np.testing.assert_allclose(seen["image"][number], expected["image"][number], atol=1e-5)
        np.testing.assert_allclose(seen["points"][number], expected["points"][number], atol=1e-4)
