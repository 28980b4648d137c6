"""Degraded images: each kind worse by level, alike whatever else is selected, and what its name says."""

import cv2
import numpy as np
import pytest

from fer_jax.data.corrupt.degradation import KINDS, check_size, degraded, images_sha256, parse, streak
from fer_jax.data.sources.source import Source
from fer_jax.errors import UserError
from fer_jax.training.setup import make_setup

N = 12
ALL = [f"{kind}:{level}" for kind in KINDS for level in (1, 5)] + ["low_resolution:9"]


def scenes(channels, height, width=None, rows=None):
    """Clouds, uint8 [N, H, W, C], with something to lose at every scale."""
    rng = np.random.default_rng(0)
    width = width or height
    images = np.full((N, height, width, channels), 110.0)
    for cells in (4, 8, 16, 32, 64, 128):
        for image in images:
            grain = rng.normal(0, 15, (cells, cells, 1)) * rng.uniform(0.7, 1.0, channels)
            image += cv2.resize(grain, (width, height), interpolation=cv2.INTER_LINEAR).reshape(image.shape)
    images = np.clip(images, 0, 255).astype(np.uint8)
    rows = np.arange(N) if rows is None else rows
    arrays = {"image": images[rows], "label": np.zeros(len(rows), np.int32)}
    return Source("x", "test", ("a",), arrays, rows)


def lost(source, text):
    worse = degraded(source, text).arrays["image"]
    return np.mean((worse.astype(float) - source.arrays["image"]) ** 2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("channels", "size"), [(1, 48), (3, 224)])
def test_each_level_is_worse_than_the_one_before(kind, channels, size):
    source = scenes(channels, size)
    errors = [lost(source, f"{kind}:{level}") for level in range(1, 6)]
    assert errors[0] > 1
    assert (np.diff(errors) > 0.02 * errors[0]).all(), errors


@pytest.mark.parametrize("text", ALL)
def test_an_image_does_not_change_with_what_else_is_selected(text):
    whole = scenes(3, 40, 48)
    first = degraded(whole, text).arrays["image"]
    assert first.shape == whole.arrays["image"].shape
    assert first.dtype == np.uint8
    assert (first != whole.arrays["image"]).any(axis=(1, 2, 3)).all()
    rows = np.array([7, 2, 5])
    np.testing.assert_array_equal(degraded(whole.select(rows), text).arrays["image"], first[rows])
    assert images_sha256(degraded(whole, text)) == images_sha256(degraded(scenes(3, 40, 48), text))


def test_two_images_do_not_get_the_same_noise():
    grey = Source("x", "test", ("a",), {"image": np.full((2, 64, 64, 1), 128, np.uint8)}, np.arange(2))
    first, second = degraded(grey, "gaussian_noise:2").arrays["image"].astype(float) - 128
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.08
    assert abs(first.mean()) < 1.5
    assert first.std() == pytest.approx(20, rel=0.04)


def test_low_resolution_keeps_large_shapes_and_loses_details():
    rng = np.random.default_rng(0)
    stripes = np.tile(np.array([0, 255], np.uint8), 32)[None, None, :, None] * np.ones((1, 64, 1, 3), np.uint8)
    ramp = np.broadcast_to(np.arange(0, 256, 4, dtype=np.uint8)[None, :, None, None], (1, 64, 64, 3))
    noise = rng.integers(0, 256, (1, 64, 64, 3), np.uint8)
    whole = Source("x", "test", ("a",), {"image": np.concatenate([stripes, ramp, noise])}, np.arange(3))
    spread = []
    for size in (16, 24, 32, 48):
        image = degraded(whole, f"low_resolution:{size}").arrays["image"]
        assert np.abs(image[1, 4:-4].astype(int) - ramp[0, 4:-4]).max() <= 6  # a slope survives
        spread.append(image[2].std())
    assert (np.diff(spread) > 3).all()  # the smaller, the less is left of what has no shape
    half = degraded(whole, "low_resolution:32").arrays["image"]
    assert half[0].std() < 2  # and nothing of one-pixel stripes
    np.testing.assert_array_equal(half, degraded(whole, "low_resolution:1").arrays["image"])
    small = cv2.resize(noise[0], (32, 32), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(half[2], cv2.resize(small, (64, 64), interpolation=cv2.INTER_CUBIC))


def test_light_and_contrast_are_what_they_say():
    image = np.tile(np.array([60, 100, 140], np.uint8), (8, 4))[..., None]
    source = Source("x", "test", ("a",), {"image": image[None]}, np.arange(1))
    assert degraded(source, "brightness:2").arrays["image"][0, 0, :3, 0].tolist() == [111, 151, 191]
    assert degraded(source, "brightness:5").arrays["image"].max() == 255
    assert degraded(source, "contrast:2").arrays["image"][0, 0, :3, 0].tolist() == [82, 100, 118]


def test_blur_is_as_wide_as_it_says_and_shrinks_with_the_image():
    for size, level, deviation in ((224, 3, 4.0), (112, 3, 2.0), (112, 5, 3.0)):
        edge = np.zeros((1, size, size, 1), np.uint8)
        edge[:, :, size // 2 :] = 255
        source = Source("x", "test", ("a",), {"image": edge}, np.arange(1))
        slope = np.diff(degraded(source, f"gaussian_blur:{level}").arrays["image"][0, size // 2, :, 0].astype(float))
        place = np.arange(len(slope))
        centre = (slope * place).sum() / slope.sum()
        width = ((slope * (place - centre) ** 2).sum() / slope.sum()) ** 0.5
        assert width == pytest.approx(deviation, rel=0.05)


@pytest.mark.parametrize("angle", [0.0, 0.7, 1.5708, 2.5])
def test_a_streak_is_a_line_of_its_length_in_its_direction(angle):
    kernel = streak(9.0, angle).astype(np.float64)
    assert kernel.sum() == pytest.approx(1, abs=1e-6)
    y, x = np.mgrid[: len(kernel), : len(kernel)] - len(kernel) // 2
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    assert abs((kernel * along).sum()) < 0.02  # nothing is moved
    # Sharing a moment among the pixels around it adds up to 1/6 and more on each axis where the line slants.
    assert 81 / 12 <= (kernel * along**2).sum() + 0.01 <= 81 / 12 + 0.3
    assert (kernel * across**2).sum() < 0.3


def test_what_a_name_means_is_recorded():
    assert parse("gaussian_noise:3") == {"kind": "gaussian_noise", "deviation_of_255": 30}
    assert parse("low_resolution:5") == {"kind": "low_resolution", "times_fewer_pixels": 8}
    assert parse("low_resolution:24") == {"kind": "low_resolution", "pixels": 24}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("gausian_blur:3",), "'gausian_blur:3'.*; did you mean 'gaussian_blur'"),
        (("gaussian_blur",), "'gaussian_blur': give a level, gaussian_blur:1 to gaussian_blur:5$"),
        (("gaussian_blur:6",), "give a level"),
        (("jpeg:-1",), "give a level"),
        (("low_resolution:0",), "low_resolution:5, or a number of pixels"),
        (("low_resolution:64",), "'low_resolution:64': .* 64 pixels; give fewer"),
        ("jpeg:1", "config.evaluation.degraded='jpeg:1': give a"),
    ],
)
def test_fields_that_do_not_fit_are_refused_before_training(given, says, tiny):
    config = tiny()
    with config.ignore_type():
        config.evaluation.degraded = given
    with pytest.raises(UserError, match=says) as caught:
        make_setup(config)
    assert "\n" not in str(caught.value)


def test_a_method_without_classes_is_refused(tiny):
    config = tiny("psr_sr")
    config.evaluation.degraded = ("jpeg:1",)
    with pytest.raises(UserError, match="config.evaluation.degraded: psr_sr predicts no classes; leave it out"):
        make_setup(config)


def test_images_may_lose_a_single_pixel():
    check_size("low_resolution:47", (48, 32, 1))
    with pytest.raises(UserError, match="48 pixels"):
        check_size("low_resolution:48", (48, 32, 1))
