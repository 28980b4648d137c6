"""Augmentation: exact for whole pixels, true to its formulas and rates, the same on any number of devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fer_jax.data.augment import geometry
from fer_jax.data.augment.augmentation import (
    Augmentation,
    augment,
    box,
    brightness,
    contrast,
    erased_box,
    normalise,
    warp_matrices,
)
from fer_jax.errors import UserError

RAW = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
KEY = jax.random.key(7)
EVERYTHING = Augmentation(
    flip=True, shift=2, rotation=15.0, zoom=(0.9, 1.1), shear=5.0, translate=0.05, pad="reflect",
    brightness=0.3, contrast=0.3, erase=0.5, erase_fill="random",
)  # fmt: skip


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (16, 20, 20, 3), np.uint8)


@functools.partial(jax.jit, static_argnames=("config", "size", "train"))
def run(key, images, config, size=20, train=True):
    return augment(key, images, config, size=size, train=train)


@pytest.mark.parametrize("train", [True, False])
def test_nothing_switched_on_changes_nothing(images, train):
    out = run(KEY, images, Augmentation(**RAW), train=train)
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(out, images / np.float32(255), atol=1e-6)


@pytest.mark.parametrize("train", [True, False])
def test_grey_images_are_repeated(images, train):
    grey = run(KEY, images[..., :1], Augmentation(**RAW), train=train)
    np.testing.assert_allclose(grey, np.repeat(images[..., :1], 3, axis=-1) / np.float32(255), atol=1e-6)


def test_grey_and_equal_colours_are_treated_alike(images):
    grey = images[..., :1]
    config = Augmentation(flip=True, rotation=10.0, brightness=0.2, contrast=0.2)
    one, three = run(KEY, grey, config), run(KEY, np.repeat(grey, 3, axis=-1), config)
    np.testing.assert_allclose(one, three, atol=1e-5)


def test_flip_mirrors_half_of_the_images_exactly(images):
    many = np.tile(images, (32, 1, 1, 1))
    out = np.asarray(run(KEY, many, Augmentation(flip=True, **RAW))) * 255
    same = np.abs(out - many).max((1, 2, 3)) < 1e-3
    mirrored = np.abs(out - many[:, :, ::-1]).max((1, 2, 3)) < 1e-3
    assert (same ^ mirrored).all()
    assert 0.4 < mirrored.mean() < 0.6


def test_shift_is_exact_and_reaches_every_offset(images):
    many = np.tile(images, (16, 1, 1, 1))
    out = np.rint(np.asarray(run(KEY, many, Augmentation(shift=1, **RAW))) * 255).astype(np.uint8)
    padded = np.pad(many, ((0, 0), (1, 1), (1, 1), (0, 0)))
    offsets = {}
    for i in range(3):
        for j in range(3):
            offsets[i, j] = (out == padded[:, i : i + 20, j : j + 20]).all((1, 2, 3))
    assert np.sum(list(offsets.values()), axis=0).min() == 1
    assert all(hit.any() for hit in offsets.values())


def test_random_window_and_central_window(images):
    config = Augmentation(crop=18, **RAW)
    out = np.rint(np.asarray(run(KEY, images, config, size=18)) * 255).astype(np.uint8)
    for picture, source in zip(out, images, strict=True):
        assert any((picture == source[i : i + 18, j : j + 18]).all() for i in range(3) for j in range(3))
    middle = run(KEY, images, config, size=18, train=False)
    np.testing.assert_allclose(middle, images[:, 1:19, 1:19] / np.float32(255), atol=1e-6)


def test_random_resized_window_keeps_its_bounds():
    matrices = np.asarray(warp_matrices(KEY, (2000, 64, 64, 1), Augmentation(crop_scale=(0.5, 0.9)), size=32))
    width, height = 32 * matrices[:, 0, 0], 32 * matrices[:, 1, 1]
    share = width * height / 64**2
    fell_back = (width == 64) & (height == 64)
    assert fell_back.mean() < 0.01
    assert share[~fell_back].min() >= 0.5 - 1e-5
    assert share[~fell_back].max() <= 0.9 + 1e-5
    ratio = (width / height)[~fell_back]
    assert 0.75 - 1e-5 <= ratio.min() < 0.8
    assert 1.25 < ratio.max() <= 4 / 3 + 1e-5
    left, right = matrices[:, 0, 2] + 0.5 - width / 64, 63.5
    assert left.min() >= -0.51
    assert (matrices[:, 0, 0] * 31 + matrices[:, 0, 2]).max() <= right


def test_landmarks_follow(images):
    matrices = warp_matrices(KEY, images.shape, EVERYTHING, size=20)
    points = jnp.array([[4.0, 5.0], [15.0, 6.0], [10.0, 14.0]])
    moved = jax.vmap(geometry.move_points, in_axes=(0, None))(matrices, points)
    marked = np.zeros((16, 20, 20, 1), np.uint8)
    marked[:, 9:11, 9:11] = 255
    config = Augmentation(
        flip=True, shift=2, rotation=15.0, zoom=(0.9, 1.1), shear=5.0, translate=0.05, pad="reflect", **RAW
    )
    out = np.asarray(run(KEY, marked, config))[..., 0]
    centre = jax.vmap(geometry.move_points, in_axes=(0, None))(matrices, jnp.array([[9.5, 9.5]]))[:, 0]
    y, x = np.mgrid[:20, :20]
    total = out.sum((1, 2))
    np.testing.assert_allclose((out * x).sum((1, 2)) / total, centre[:, 0], atol=0.2)
    np.testing.assert_allclose((out * y).sum((1, 2)) / total, centre[:, 1], atol=0.2)
    mirrored = np.linalg.det(np.asarray(matrices)[:, :, :2]) < 0
    assert 0 < mirrored.sum() < 16
    assert ((moved[:, 0, 0] > moved[:, 1, 0]) == mirrored).all()  # the left eye is now on the right


def test_strong_reduction_is_smoothed_first():
    """Stripes of one pixel, three times too fine for the output, become grey instead of a moire."""
    stripes = np.tile(np.array([0, 255], np.uint8), 36)[None, None, :, None] * np.ones((4, 72, 1, 1), np.uint8)
    for train in (True, False):
        out = np.asarray(run(KEY, stripes, Augmentation(**RAW), size=24, train=train))
        assert np.abs(out[:, :, 2:-2] - 0.5).max() < 0.1


def test_training_and_evaluation_agree_on_a_smooth_image():
    """Both read the same places when stored size and input size differ."""
    y, x = np.mgrid[:64, :64]
    smooth = np.rint(127 + 60 * np.sin(x / 9) + 60 * np.cos(y / 7)).astype(np.uint8)[None, :, :, None]
    for size in (48, 32, 24):
        trained, evaluated = (
            np.asarray(run(KEY, smooth, Augmentation(**RAW), size=size, train=train)) for train in (True, False)
        )
        np.testing.assert_allclose(trained[:, 1:-1, 1:-1], evaluated[:, 1:-1, 1:-1], atol=0.02)


def test_evaluation_has_no_randomness(images):
    a = run(jax.random.key(1), images, EVERYTHING, train=False)
    b = run(jax.random.key(2), images, EVERYTHING, train=False)
    np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(a, (images / np.float32(255) - 0.5) / 0.5, atol=1e-6)


def test_training_is_random_per_key_and_per_example(images):
    same = np.tile(images[:1], (16, 1, 1, 1))
    out = np.asarray(run(KEY, same, EVERYTHING))
    assert len({picture.tobytes() for picture in out}) == 16
    np.testing.assert_array_equal(out, run(KEY, same, EVERYTHING))
    assert not np.array_equal(out, run(jax.random.key(8), same, EVERYTHING))


def test_one_operation_does_not_change_anothers_draws(images):
    base = Augmentation(flip=True, shift=2, **RAW)
    plain = np.asarray(run(KEY, images, base))
    brighter = np.asarray(run(KEY, images, Augmentation(flip=True, shift=2, erase=1.0, **RAW)))
    kept = brighter != 0
    np.testing.assert_array_equal(brighter[kept], plain[kept])


def test_same_values_on_four_devices(images):
    mesh = Mesh(np.array(jax.devices()[:4]), ("data",))
    split = NamedSharding(mesh, PartitionSpec("data"))
    function = jax.jit(functools.partial(augment, config=EVERYTHING, size=20, train=True), out_shardings=split)
    spread = jax.device_put(images, split)
    np.testing.assert_allclose(function(KEY, spread), run(KEY, images, EVERYTHING), atol=1e-5)
    program = function.lower(KEY, spread).compile().as_text()
    assert "all-gather" not in program  # every device reads its own images only


# Light


def test_brightness_and_contrast_formulas():
    image = jnp.array([[[0.1, 0.2, 0.3]], [[0.9, 0.6, 0.5]]])
    np.testing.assert_allclose(brightness(image, jnp.float32(1.5)), np.clip(1.5 * np.asarray(image), 0, 1), rtol=1e-6)
    mean = (np.asarray(image) @ [0.299, 0.587, 0.114]).mean()
    expected = np.clip(mean + 0.4 * (np.asarray(image) - mean), 0, 1)
    np.testing.assert_allclose(contrast(image, jnp.float32(0.4)), expected, rtol=1e-5)
    np.testing.assert_allclose(contrast(image, jnp.float32(1.0)), image, rtol=1e-6)
    grey = image[..., :1]
    np.testing.assert_allclose(contrast(grey, jnp.float32(0.0)), jnp.full((2, 1, 1), 0.5), rtol=1e-6)


def test_brightness_draws_fill_their_range():
    flat = np.full((512, 4, 4, 1), 100, np.uint8)
    out = np.asarray(run(KEY, flat, Augmentation(brightness=0.4, **RAW), size=4))[:, 0, 0, 0] * 2.55
    assert 0.6 <= out.min() < 0.62
    assert 1.38 < out.max() <= 1.4 + 1e-6


def test_normalisation(images):
    config = Augmentation(mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    x = images[0] / np.float32(255)
    expected = (x - np.array([0.1, 0.2, 0.3])) / np.array([0.5, 0.6, 0.7])
    np.testing.assert_allclose(normalise(jnp.asarray(x), config), expected, atol=1e-5)
    standard = np.asarray(normalise(jnp.asarray(x), Augmentation(standardise=True)))
    assert abs(standard.mean()) < 1e-5
    assert abs(standard.std() - 1) < 1e-5
    flat = np.asarray(normalise(jnp.full((4, 4, 1), 0.3), Augmentation(standardise=True)))
    np.testing.assert_allclose(flat, 0, atol=1e-5)


# Erasing


def test_erasing_rate_and_area():
    """Rate 0.5 within 0.02 over 4,000 draws; areas inside the bounds up to the rounding of the sides."""
    config = Augmentation(erase=0.5, erase_area=(0.02, 0.4))
    draw = functools.partial(erased_box, height=48, width=48, config=config)
    top, left, height, width = (np.asarray(v) for v in jax.jit(jax.vmap(draw))(jax.random.split(KEY, 4000)))
    hit = height > 0
    assert abs(hit.mean() - 0.5) < 0.02
    share = (height * width / 48**2)[hit]
    low, high = np.quantile(share, [0.01, 0.99])
    assert 0.02 < low < 0.03
    assert 0.36 < high < 0.4
    assert (top[hit] >= 0).all()
    assert (top + height <= 48).all()
    assert (left + width <= 48).all()
    log_ratio = np.log(height[hit] / width[hit])
    assert abs(log_ratio.mean()) < 0.1  # tall and wide boxes alike
    assert np.abs(log_ratio).max() < np.log(1 / 0.3) + 0.3


def test_erasing_a_box_that_cannot_fit_leaves_the_image():
    size, fits = box(KEY, 100.0, (5.0, 6.0), (1.0, 1.0), jnp.array([10.0, 10.0]))
    assert size.shape == (2,)
    assert not fits


@pytest.mark.parametrize("fill", ["zero", "random"])
def test_erased_pixels(fill):
    white = np.full((64, 16, 16, 3), 255, np.uint8)
    out = np.asarray(run(KEY, white, Augmentation(erase=1.0, erase_fill=fill), size=16))
    gone = (np.abs(out - 1) > 1e-5).any(-1)
    assert 0.02 < gone.mean() < 0.25
    if fill == "zero":
        assert (out[gone] == 0).all()
    else:
        assert abs(out[gone].mean()) < 0.05
        assert abs(out[gone].std() - 1) < 0.05


# Mistakes


@pytest.mark.parametrize(
    "fields",
    [
        {"pad": "reflekt"},
        {"erase_fill": "noise"},
        {"zoom": (1.1, 0.9)},
        {"crop_scale": (0.0, 1.0)},
        {"erase": 1.5},
        {"rotation": -10.0},
        {"mean": (0.5,)},
        {"crop": 40, "crop_scale": (0.5, 1.0)},
    ],
)
def test_mistakes_are_named(fields):
    with pytest.raises(UserError, match="augmentation"):
        Augmentation(**fields)


def test_a_window_larger_than_the_image_is_refused(images):
    with pytest.raises(UserError, match="20x20"):
        augment(KEY, jnp.asarray(images), Augmentation(crop=24), size=24, train=True)


def test_lists_from_a_config_become_tuples():
    config = Augmentation(zoom=[0.9, 1.1])  # pyright: ignore[reportArgumentType]
    assert hash(config) == hash(Augmentation(zoom=(0.9, 1.1)))


def test_warp_stretches_the_four_sides_by_its_share():
    config = Augmentation(warp=0.4, **RAW)
    matrices = jax.jit(functools.partial(warp_matrices, shape=(500, 40, 40, 3), config=config, size=40))(KEY)
    corners = np.array([[-0.5, -0.5], [39.5, -0.5], [39.5, 39.5], [-0.5, 39.5]])
    at = np.concatenate([corners, np.ones((4, 1))], axis=1)
    read = np.einsum("brc,kc->bkr", matrices, at)
    read = read[..., :2] / read[..., 2:]  # [B, corner, 2]
    sides = np.stack([read[:, 3, 1] - read[:, 0, 1], read[:, 2, 1] - read[:, 1, 1],
                      read[:, 1, 0] - read[:, 0, 0], read[:, 2, 0] - read[:, 3, 0]], axis=1) / 40  # fmt: skip
    assert sides.min() < 0.63
    assert sides.max() > 1.37
    assert (np.abs(sides - 1) < 0.4 + 1e-4).all()
    np.testing.assert_allclose(np.corrcoef(sides.T), np.eye(4), atol=0.15)  # each by itself
    # A side is stretched about its own middle.
    np.testing.assert_allclose(read[:, 0, 1] + read[:, 3, 1], 39, atol=1e-3)
    np.testing.assert_allclose(read[:, 2, 0] + read[:, 3, 0], 39, atol=1e-3)


def test_a_straight_line_stays_straight_under_a_warp():
    matrix = geometry.perspective(jnp.array([[0.1, 0.0], [0.9, 0.05], [1.1, 1.0], [-0.1, 0.9]]), 32)
    line = jnp.stack([jnp.linspace(0, 31, 7), jnp.linspace(5, 25, 7)], axis=1)
    moved = np.asarray(geometry.move_points(matrix, line))
    across = np.linalg.svd(moved - moved.mean(0), compute_uv=False)
    assert across[1] < 1e-4 * across[0]
    back = geometry.move_points(geometry.inverse(matrix), jnp.asarray(moved))
    np.testing.assert_allclose(back, line, atol=1e-3)


def test_a_warp_that_is_never_chosen_changes_nothing(images):
    never = Augmentation(warp=0.3, warp_probability=0.0, **RAW)
    np.testing.assert_allclose(run(KEY, images, never), images / np.float32(255), atol=2e-4)


def test_a_warp_by_itself_keeps_the_middle_of_a_symmetric_change():
    corners = jnp.array([[0.1, 0.1], [0.9, 0.1], [0.9, 0.9], [0.1, 0.9]])
    matrix = geometry.perspective(corners, 20)
    affine = geometry.around(0.8 * jnp.eye(2), jnp.full(2, 9.5), 20, 20)
    np.testing.assert_allclose(matrix, geometry.projective(affine), atol=1e-5)
    shrunk = geometry.rescale_source(geometry.projective(affine), 0.5, 0.5)
    np.testing.assert_allclose(shrunk[:2], geometry.rescale_source(affine, 0.5, 0.5), atol=1e-6)


def test_light_is_applied_as_often_as_asked(images):
    many = np.tile(images[:1], (400, 1, 1, 1))
    out = run(KEY, many, Augmentation(brightness=0.5, contrast=0.5, light_probability=0.75, **RAW))
    changed = np.abs(out - many / np.float32(255)).max((1, 2, 3)) > 1e-4
    assert 0.68 < changed.mean() < 0.82
