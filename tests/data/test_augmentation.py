"""Augmentation: exact for whole pixels, true to its formulas and rates, the same on any number of devices."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from scipy import special

from fer_jax.data.augment import erasing, geometry
from fer_jax.data.augment.augmentation import Augmentation, augment, warp_matrices
from fer_jax.data.augment.color import brightness, contrast
from fer_jax.data.augment.draws import box
from fer_jax.data.augment.operations import KINDS, help_lines
from fer_jax.data.augment.preprocessing import Preprocessing, normalize, preprocess
from fer_jax.errors import UserError

RAW: Any = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
KEY = jax.random.key(7)
GEOMETRY = ("shift:2", "translate:0.05", "rotate:15", "shear:5", "zoom:0.9-1.1", "flip")
EVERYTHING = Augmentation((*GEOMETRY, "brightness:0.3", "contrast:0.3", "noise:5", "erase:0.5,fill=random"), "reflect")


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (16, 20, 20, 3), np.uint8)


@functools.partial(jax.jit, static_argnums=(2, 3))
def augmented(key, images, augmentation, preprocessing):
    return augment(key, images, augmentation, preprocessing)


def run(images, *operations, size=20, key=KEY, **fields):
    """Augmented images, by default with pixels in 0 .. 1."""
    return np.asarray(augmented(key, images, Augmentation(operations), Preprocessing(size, **(RAW | fields))))


def evaluated(images, size=20, crop=0):
    return np.asarray(preprocess(images, Preprocessing(size, crop, **RAW)))


@pytest.mark.parametrize("channels", [1, 3])
def test_nothing_switched_on_changes_nothing(images, channels):
    expected = np.broadcast_to(images[..., :channels] / np.float32(255), (16, 20, 20, 3))  # gray is repeated
    for out in (run(images[..., :channels]), evaluated(images[..., :channels])):
        assert out.dtype == np.float32
        np.testing.assert_allclose(out, expected, atol=1e-6)


def test_gray_and_equal_colors_are_treated_alike(images):
    gray = images[..., :1]
    operations = ("flip", "rotate:10", "brightness:0.2", "contrast:0.2")
    one, three = run(gray, *operations), run(np.repeat(gray, 3, axis=-1), *operations)
    np.testing.assert_allclose(one, three, atol=1e-5)


def test_flip_mirrors_half_of_the_images_exactly(images):
    many = np.tile(images, (32, 1, 1, 1))
    out = run(many, "flip") * 255
    same = np.abs(out - many).max((1, 2, 3)) < 1e-3
    mirrored = np.abs(out - many[:, :, ::-1]).max((1, 2, 3)) < 1e-3
    assert (same ^ mirrored).all()
    assert 0.4 < mirrored.mean() < 0.6


def test_shift_is_exact_and_reaches_every_offset(images):
    many = np.tile(images, (16, 1, 1, 1))
    out = np.rint(run(many, "shift:1") * 255).astype(np.uint8)
    padded = np.pad(many, ((0, 0), (1, 1), (1, 1), (0, 0)))
    offsets = {}
    for i in range(3):
        for j in range(3):
            offsets[i, j] = (out == padded[:, i : i + 20, j : j + 20]).all((1, 2, 3))
    assert np.sum(list(offsets.values()), axis=0).min() == 1
    assert all(hit.any() for hit in offsets.values())


@pytest.mark.parametrize("operations", [("crop:18",), ("flip:1", "crop:18")])
def test_random_window_and_central_window(operations, images):
    shown = images[:, :, ::-1] if "flip:1" in operations else images
    out = np.rint(run(images, *operations, size=18) * 255).astype(np.uint8)
    for picture, source in zip(out, shown, strict=True):
        assert any((picture == source[i : i + 18, j : j + 18]).all() for i in range(3) for j in range(3))
    middle = evaluated(images, 18, crop=Augmentation(operations).crop)
    np.testing.assert_allclose(middle, images[:, 1:19, 1:19] / np.float32(255), atol=1e-6)


def test_random_resized_window_keeps_its_bounds():
    matrices = np.asarray(warp_matrices(KEY, (2000, 64, 64, 1), Augmentation(("crop_scale:0.5-0.9",)), size=32))
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
    geometric = Augmentation(GEOMETRY, "reflect")
    out = np.asarray(augmented(KEY, marked, geometric, Preprocessing(20, **RAW)))[..., 0]
    center = jax.vmap(geometry.move_points, in_axes=(0, None))(matrices, jnp.array([[9.5, 9.5]]))[:, 0]
    y, x = np.mgrid[:20, :20]
    total = out.sum((1, 2))
    np.testing.assert_allclose((out * x).sum((1, 2)) / total, center[:, 0], atol=0.2)
    np.testing.assert_allclose((out * y).sum((1, 2)) / total, center[:, 1], atol=0.2)
    mirrored = np.linalg.det(np.asarray(matrices)[:, :, :2]) < 0
    assert 0 < mirrored.sum() < 16
    assert ((moved[:, 0, 0] > moved[:, 1, 0]) == mirrored).all()  # the left eye is now on the right


def test_strong_reduction_is_smoothed_first():
    """Stripes of one pixel, three times too fine for the output, become gray instead of a moire."""
    stripes = np.tile(np.array([0, 255], np.uint8), 36)[None, None, :, None] * np.ones((4, 72, 1, 1), np.uint8)
    for out in (run(stripes, size=24), evaluated(stripes, size=24)):
        assert np.abs(out[:, :, 2:-2] - 0.5).max() < 0.1


def test_training_and_evaluation_agree_on_a_smooth_image():
    """Both read the same places when stored size and input size differ."""
    y, x = np.mgrid[:64, :64]
    smooth = np.rint(127 + 60 * np.sin(x / 9) + 60 * np.cos(y / 7)).astype(np.uint8)[None, :, :, None]
    for size in (48, 32, 24):
        trained, tested = run(smooth, size=size), evaluated(smooth, size=size)
        np.testing.assert_allclose(trained[:, 1:-1, 1:-1], tested[:, 1:-1, 1:-1], atol=0.02)


def test_training_is_random_per_key_and_per_example(images):
    same = np.tile(images[:1], (16, 1, 1, 1))
    out = np.asarray(augmented(KEY, same, EVERYTHING, Preprocessing(20)))
    assert len({picture.tobytes() for picture in out}) == 16
    np.testing.assert_array_equal(out, augmented(KEY, same, EVERYTHING, Preprocessing(20)))
    assert not np.array_equal(out, augmented(jax.random.key(8), same, EVERYTHING, Preprocessing(20)))


def test_one_operation_does_not_change_anothers_draws(images):
    plain, erased = run(images, "shift:2", "flip"), run(images, "shift:2", "flip", "erase:1")
    np.testing.assert_array_equal(erased[erased != 0], plain[erased != 0])
    assert (run(images, "shift:2", "noise:20", "flip") != plain).mean() > 0.5


def test_same_values_on_four_devices(images):
    mesh = Mesh(np.array(jax.devices()[:4]), ("data",))
    split = NamedSharding(mesh, PartitionSpec("data"))
    function = jax.jit(
        functools.partial(augment, augmentation=EVERYTHING, preprocessing=Preprocessing(20)), out_shardings=split
    )
    spread = jax.device_put(images, split)
    expected = augmented(KEY, images, EVERYTHING, Preprocessing(20))
    np.testing.assert_allclose(function(KEY, spread), expected, atol=1e-5)
    program = function.lower(KEY, spread).compile().as_text()
    assert "all-gather" not in program  # every device reads its own images only


# Color


def test_brightness_and_contrast_formulas():
    image = jnp.array([[[0.1, 0.2, 0.3]], [[0.9, 0.6, 0.5]]])
    np.testing.assert_allclose(brightness(image, jnp.float32(1.5)), np.clip(1.5 * np.asarray(image), 0, 1), rtol=1e-6)
    mean = (np.asarray(image) @ [0.299, 0.587, 0.114]).mean()
    expected = np.clip(mean + 0.4 * (np.asarray(image) - mean), 0, 1)
    np.testing.assert_allclose(contrast(image, jnp.float32(0.4)), expected, rtol=1e-5)
    np.testing.assert_allclose(contrast(image, jnp.float32(1.0)), image, rtol=1e-6)
    gray = image[..., :1]
    np.testing.assert_allclose(contrast(gray, jnp.float32(0.0)), jnp.full((2, 1, 1), 0.5), rtol=1e-6)


def test_brightness_draws_fill_their_range():
    flat = np.full((512, 4, 4, 1), 100, np.uint8)
    out = run(flat, "brightness:0.4", size=4)[:, 0, 0, 0] * 2.55
    assert 0.6 <= out.min() < 0.62
    assert 1.38 < out.max() <= 1.4 + 1e-6


def test_light_is_drawn_in_logits_as_fastai_draws_it():
    flat = np.full((512, 4, 4, 1), 128, np.uint8)
    out = run(flat, "logit_brightness:0.2", size=4)[:, 0, 0, 0]
    assert 0.4 < out.min() < 0.41
    assert 0.59 < out.max() < 0.605
    bright = np.full((512, 4, 4, 1), 186, np.uint8)  # a logit of almost 1
    gain = special.logit(run(bright, "logit_contrast:0.2", size=4)[:, 0, 0, 0]) / special.logit(186 / 255)
    assert 0.8 <= gain.min() + 1e-4 < 0.81
    assert 1.23 < gain.max() <= 1.25 + 1e-4
    assert abs(np.log(gain).mean()) < 0.02  # log-uniform


def test_a_magnified_window_lies_anywhere_and_its_factor_is_uniform():
    matrices = np.asarray(warp_matrices(KEY, (2000, 64, 64, 1), Augmentation(("magnify:1-1.25",)), size=64))
    factor = 1 / matrices[:, 0, 0]
    assert 1 <= factor.min() + 1e-5 < 1.01
    assert 1.24 < factor.max() <= 1.25 + 1e-5
    assert abs(factor.mean() - 1.125) < 0.005
    left = matrices[:, :, 2] / (64 * (1 - matrices[:, [0], [0]])).clip(1e-3)  # of the window, as a share of the room
    assert left.min() > -0.1
    assert abs(np.median(left) - 0.5) < 0.05


@pytest.mark.parametrize("size", [32, 64])
def test_noise_has_its_deviation_on_the_picture_that_it_is_added_to(size):
    flat = np.full((64, 32, 32, 1), 128, np.uint8)
    later = 255 * run(flat, "flip", "noise:5.48", size=size)[:, 2:-2, 2:-2, 0] - 128  # on the network's input
    assert abs(later.mean()) < 0.1
    assert abs(later.std() - 5.48) < 0.1
    early = 255 * run(flat, "noise:5.48", "flip", size=size)[:, 2:-2, 2:-2, 0] - 128  # on the stored picture
    assert abs(early.mean()) < 0.1
    assert abs(early.std() - 5.48) < 0.1 if size == 32 else early.std() < 4.5
    white = run(np.full((4, 8, 8, 1), 255, np.uint8), "noise:20", size=8)
    assert white.max() == 1  # clipped


def test_low_resolution_loses_fine_stripes_at_every_factor_and_wide_ones_at_large_ones():
    fine, wide = (np.tile(np.repeat(np.uint8([0, 255]), n), (32, 64, 32 // n))[..., None] for n in (1, 8))
    middle = np.s_[:, 16:48, 16:48]
    assert np.abs(run(fine, "low_resolution:8", size=64)[middle] - 0.5).max() < 0.1
    contrast = np.ptp(run(wide, "low_resolution:8", size=64)[middle], axis=(1, 2, 3))
    assert contrast.min() < 0.7 < 0.95 < contrast.max()
    np.testing.assert_allclose(run(np.full_like(fine, 51), "low_resolution:8", size=64), 0.2, atol=1e-5)


@pytest.mark.parametrize("text", ["all_of:0.75(brightness:0.5|contrast:0.5)", "contrast:0.5,p=0.75"])
def test_operations_are_applied_as_often_as_asked(images, text):
    many = np.tile(images[:1], (400, 1, 1, 1))
    changed = np.abs(run(many, text) - many / np.float32(255)).max((1, 2, 3)) > 1e-4
    assert 0.68 < changed.mean() < 0.82


def test_exactly_one_of_a_group_is_applied(images):
    many = np.tile(images[:1], (900, 1, 1, 1)).astype(np.uint8)
    plain = many / np.float32(255)
    out = run(many, "one_of:0.6(flip|noise:5|all_of(flip|noise:5))")
    same, mirrored = (np.abs(out - x).max((1, 2, 3)) < 1e-5 for x in (plain, plain[:, :, ::-1]))
    noisy, both = (np.abs(out - x).mean((1, 2, 3)) < 0.03 for x in (plain, plain[:, :, ::-1]))
    kinds = np.stack([same, mirrored, noisy & ~same, both & ~mirrored])
    assert (kinds.sum(0) == 1).all()
    np.testing.assert_allclose(kinds.mean(1), [0.4, 0.2, 0.2, 0.2], atol=0.06)


def test_the_same_operation_twice_draws_twice(images):
    once, twice = (run(images, *("brightness:0.2",) * count) for count in (1, 2))
    factors = np.median(twice / np.maximum(once, 1e-3), axis=(1, 2, 3))
    assert factors.std() > 0.05


def test_a_further_view_shares_all_draws_but_its_own(images):
    first = Augmentation(("flip", "noise:5,p=0.5", "erase:1"))
    second = first.another(1, own=("erase",), without=("noise",))
    base, view = (np.asarray(augmented(KEY, images, a, Preprocessing(20))) for a in (first, second))
    plain = run(images, "flip", mean=(0.5,) * 3, std=(0.5,) * 3)
    kept = view != 0
    np.testing.assert_array_equal(view[kept], plain[kept])  # mirrored alike, without noise
    assert ((base == 0) != (view == 0)).any((1, 2, 3)).all()  # another box
    np.testing.assert_array_equal(view, augmented(KEY, images, second, Preprocessing(20)))


def test_normalization(images):
    x = images[0] / np.float32(255)
    fields = Preprocessing(20, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    expected = (x - np.array([0.1, 0.2, 0.3])) / np.array([0.5, 0.6, 0.7])
    np.testing.assert_allclose(normalize(jnp.asarray(x), fields), expected, atol=1e-5)
    standard = np.asarray(normalize(jnp.asarray(x), Preprocessing(20, standardize=True)))
    assert abs(standard.mean()) < 1e-5
    assert abs(standard.std() - 1) < 1e-5
    flat = np.asarray(normalize(jnp.full((4, 4, 1), 0.3), Preprocessing(4, standardize=True)))
    np.testing.assert_allclose(flat, 0, atol=1e-5)


# Erasing


def test_erasing_rate_and_area():
    """Rate 0.5 within 0.02 over 4,000 draws; areas inside the bounds up to the rounding of the sides."""
    white = np.full((4000, 16, 16, 1), 255, np.uint8)
    hit = (run(white, "erase:0.5,area=0.02-0.4", size=16) == 0).any((1, 2, 3))
    assert abs(hit.mean() - 0.5) < 0.02
    draw = functools.partial(erasing.erased_box, height=48, width=48, area=(0.02, 0.4), aspect=(0.3, 1 / 0.3))
    top, left, height, width = (np.asarray(v) for v in jax.jit(jax.vmap(draw))(jax.random.split(KEY, 4000)))
    hit = height > 0
    assert hit.mean() > 0.99  # one of ten draws fits
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
    out = run(white, f"erase:1,fill={fill}", size=16, mean=(0.5,) * 3, std=(0.5,) * 3)
    gone = (np.abs(out - 1) > 1e-5).any(-1)
    assert 0.02 < gone.mean() < 0.25
    if fill == "zero":
        assert (out[gone] == 0).all()
    else:
        assert abs(out[gone].mean()) < 0.05
        assert abs(out[gone].std() - 1) < 0.05


# Mistakes


@pytest.mark.parametrize(
    ("operations", "says"),
    [
        (("flipp",), "flipp.*'flip'"),
        (("crop:40", "crop_scale:0.5-1"), "crop:40.*crop_scale:0.5-1.*exclude"),
        (("flip", "flip:alternate"), "exclude"),
        (("one_of(flip:alternate|noise:5)",), "flip:alternate"),
        (("crop",), "'crop'.*side"),
        (("crop:5.5",), "crop:5.5.*whole number"),
        (("erase:1.5",), "erase:1.5.*0 to 1"),
        (("erase:0.5,fill=noise",), "fill=noise.*'zero' or 'random'"),
        (("rotate:-10",), "rotate:-10.*0 to 180"),
        (("rotate:nan",), "rotate:nan.*0 to 180"),
        (("rotate:10,q=1",), "q=1.*rotate:degrees"),
        (("rotate:10,0.5,1",), "rotate:degrees"),
        (("zoom:1.1-0.9",), "zoom:1.1-0.9.*low-high"),
        (("one_of:0.5(flip|noise:5",), "one_of"),
        (("all_of:0.5",), "all_of"),
        ("flip", "list"),
    ],
)
def test_mistakes_are_named(operations, says):
    with pytest.raises(UserError, match=rf"config\.augmentation\.train.*{says}"):
        Augmentation(operations)


@pytest.mark.parametrize(("name", "value"), [("mean", (0.5,)), ("std", (0.5, 0.5, 0.0))])
def test_mistakes_in_the_preprocessing_are_named(name, value):
    with pytest.raises(UserError, match=f"config.preprocessing.{name}"):
        Preprocessing(48, **{name: value})


@pytest.mark.parametrize("text", ["crop:24", "shift:20", "one_of(flip|shift:20)"])
def test_what_the_stored_pictures_are_too_small_for_is_refused(images, text):
    with pytest.raises(UserError, match=r"(crop:24|shift:20).*20x20; give (20|19) at most"):
        augment(KEY, jnp.asarray(images), Augmentation((text,)), Preprocessing(24))
    with pytest.raises(UserError, match="24 pixels.*preprocessing.crop.*20x20"):
        preprocess(jnp.asarray(images), Preprocessing(24, crop=24))


def test_help_has_a_line_for_each_operation():
    lines = help_lines()
    for name in KINDS:
        assert sum(line.startswith((f"{name}:", f"{name}[")) for line in lines) == 1


def test_lists_from_a_config_become_tuples():
    assert hash(Augmentation(["flip"])) == hash(Augmentation(("flip",)))  # pyright: ignore[reportArgumentType]


# Perspective


def test_warp_stretches_the_four_sides_by_its_share():
    draw = functools.partial(warp_matrices, shape=(500, 40, 40, 3), augmentation=Augmentation(("warp:0.4",)), size=40)
    matrices = jax.jit(draw)(KEY)
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


def test_a_warp_that_is_never_chosen_changes_nothing(images):
    np.testing.assert_allclose(run(images, "warp:0.3,p=0"), images / np.float32(255), atol=2e-4)
