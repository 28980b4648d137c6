"""The crop: similarities worked out by hand, the template, what shrinking keeps, what lies outside, bad input."""

import cv2
import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.faces.alignment import (
    TEMPLATE,
    align_points,
    crop_box,
    key_points,
    similarity,
    template_points,
    transform_points,
    warp,
)
from tfds_builders.synthetic_faces.examples import draw
from tfds_builders.synthetic_faces.plan import Plan

RNG = np.random.default_rng(0)


def umeyama(source, target):
    """Umeyama's equations 40 to 42 as they are printed, by a singular value decomposition."""
    a, b = source - source.mean(axis=0), target - target.mean(axis=0)
    u, d, v = np.linalg.svd(b.T @ a / len(a))
    s = np.array([1, np.sign(np.linalg.det(u @ v))])
    linear = (d * s).sum() / a.var(axis=0).sum() * (u * s) @ v
    return np.column_stack([linear, target.mean(axis=0) - linear @ source.mean(axis=0)])


def test_similarities_worked_out_by_hand():
    # A quarter turn that takes x to y, three times as large: (1, 0) and (3, 0) to (5, 1) and (5, 7).
    np.testing.assert_allclose(
        similarity(np.array([(1, 0), (3, 0)]), np.array([(5, 1), (5, 7)])), [[0, -3, 5], [3, 0, -2]], atol=1e-12
    )
    # Half the size, and a shift.
    square = np.array([(0, 0), (4, 0), (4, 4), (0, 4)])
    np.testing.assert_allclose(similarity(square, square / 2 + (1, -1)), [[0.5, 0, 1], [0, 0.5, -1]], atol=1e-12)


def test_least_squares_are_umeyamas():
    for _ in range(20):
        source, target = RNG.normal(size=(5, 2)), RNG.normal(size=(5, 2))
        # Umeyama's sign may make him turn where ours shrinks to fit: compare where the best one turns no point over.
        if np.linalg.det((target - target.mean(0)).T @ (source - source.mean(0))) > 0:
            np.testing.assert_allclose(similarity(source, target), umeyama(source, target), atol=1e-9)


def test_it_never_mirrors_and_nothing_near_fits_better():
    source = RNG.normal(size=(5, 2))
    target = source * (-1, 1) + 0.3 * RNG.normal(size=(5, 2))  # mirrored would fit best
    matrix = similarity(source, target)
    (a, b, _), (c, d, _) = matrix
    assert a == pytest.approx(d)
    assert b == pytest.approx(-c)
    best = np.sum((transform_points(source, matrix) - target) ** 2)
    turn, shift = np.array([[a, b], [c, d]]), matrix[:, 2:]
    for step in ([[0.01, 0], [0, 0.01]], [[0, -0.01], [0.01, 0]]):
        for sign in (1, -1):
            other = np.hstack([turn + sign * np.array(step), shift])
            assert np.sum((transform_points(source, other) - target) ** 2) > best


def test_the_template():
    """The usual points of a face of 112 pixels, to a third of a pixel; symmetric; a margin makes the face smaller."""
    usual = [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)]
    assert np.abs(TEMPLATE * 112 - usual).max() < 0.34
    mirrored = (TEMPLATE * (-1, 1) + (1, 0))[[1, 0, 2, 4, 3]]
    np.testing.assert_allclose(mirrored, TEMPLATE, atol=1e-9)
    np.testing.assert_allclose(template_points(5, 100, 0.0), TEMPLATE * 100 - 0.5)
    # With a margin of 0.25 the template's square takes the middle two thirds.
    np.testing.assert_allclose(template_points(2, 150, 0.25), 25 + TEMPLATE[:2] * 100 - 0.5)
    np.testing.assert_allclose(template_points(4, 100, 0.0), template_points(5, 100, 0.0)[[0, 1, 3, 4]])


@pytest.mark.parametrize("count", [2, 4, 5])
@pytest.mark.parametrize("margin", [-0.1, 0.0, 0.3])
def test_points_of_a_turned_face_come_to_lie_on_the_template(count, margin):
    face = template_points(count, 90) @ (1.7 * np.array([[0.8, 0.6], [-0.6, 0.8]])) + (40, 70)
    crop = align_points(np.zeros((300, 300, 3), np.uint8), face, 112, margin)
    np.testing.assert_allclose(transform_points(face, crop.matrix), template_points(count, 112, margin), atol=1e-9)


def test_the_picture_goes_where_the_matrix_says():
    """Bright spots at the points of a turned face light up at the template."""
    face = template_points(5, 120) @ np.array([[0.96, 0.28], [-0.28, 0.96]]) + (50, 20)
    image = np.zeros((240, 240), np.float32)
    y, x = np.mgrid[:240, :240]
    for px, py in face:
        image += 250 * np.exp(-((x - px) ** 2 + (y - py) ** 2) / 18)
    for size in (120, 64, 40):  # 40: shrunk three times, by area first
        crop = align_points(image.astype(np.uint8), face, size).image.astype(np.float64)
        y, x = np.mgrid[:size, :size]
        for px, py in template_points(5, size):
            near = crop * ((x - px) ** 2 + (y - py) ** 2 < (size / 14) ** 2)
            assert abs((near * x).sum() / near.sum() - px) < 0.1
            assert abs((near * y).sum() / near.sum() - py) < 0.1


def test_a_crop_of_whole_pixels_is_a_slice():
    image = RNG.integers(0, 256, (50, 60, 3), dtype=np.uint8)
    crop = crop_box(image, (11, 7, 20, 20), 20)
    np.testing.assert_array_equal(crop.image, image[7:27, 11:31])
    np.testing.assert_array_equal(crop.matrix, [[1, 0, -11], [0, 1, -7]])
    # The margin counts on each side; the shorter side grows to the longer one around the same middle.
    np.testing.assert_array_equal(crop_box(image, (16, 12, 10, 10), 20, 0.5).image, image[7:27, 11:31])
    np.testing.assert_array_equal(crop_box(image, (16, 7, 10, 20), 20).image, image[7:27, 11:31])
    np.testing.assert_array_equal(crop_box(image, (6, 2, 30, 30), 20, -1 / 6).image, image[7:27, 11:31])


def test_outside_is_black():
    image = np.full((30, 30), 200, np.uint8)
    crop = crop_box(image, (-10, 20, 20, 20), 20).image
    assert (crop[:10, 10:] == 200).all()
    assert (crop[:, :10] == 0).all()
    assert (crop[10:] == 0).all()


def test_shrinking_averages_and_does_not_alias():
    """Stripes of one pixel become gray; where nothing divides evenly, to what a mean over seven of them leaves."""
    image = np.zeros((400, 400), np.uint8)
    image[:, ::2] = 200
    for side, left in ((400, 1), (390, 200 / 14)):
        inside = crop_box(image, (0, 0, side, side), 50).image[2:-2, 2:-2].astype(int)
        assert np.abs(inside - 100).max() <= left
    matrix = np.array([[0.125, 0, 0], [0, 0.125, 0]])
    assert (cv2.warpAffine(image, matrix, (50, 50)) == 200).all()  # what is avoided
    blocks = RNG.integers(0, 256, (40, 40)).astype(np.uint8)
    np.testing.assert_array_equal(
        crop_box(np.kron(blocks, np.ones((8, 8), np.uint8)), (0, 0, 320, 320), 40).image, blocks
    )


def test_only_the_seen_part_counts():
    """A crop does not depend on what surrounds it, and a picture may be larger than OpenCV's warp takes."""
    image = cv2.GaussianBlur(RNG.integers(0, 256, (600, 600, 3), dtype=np.uint8), (0, 0), 3)
    face = np.array([(300.0, 310.0), (340.0, 300.0)])
    whole = align_points(image, face, 64).image
    part = align_points(np.ascontiguousarray(image[180:480, 200:520]), face - (200, 180), 64).image
    assert np.abs(whole.astype(int) - part).max() <= 1
    wide = np.zeros((4, 40_000), np.uint8)
    wide[:, 39_990:] = 9
    assert (crop_box(wide, (39_992, 0, 4, 4), 4).image == 9).all()
    assert not warp(image, np.array([[1.0, 0, 5000], [0, 1, 0]]), 8).any()


@pytest.mark.parametrize("shape", [(60, 80), (60, 80, 1), (60, 80, 3)])
@pytest.mark.parametrize("size", [20, 48])
def test_channels_stay_as_they_are(shape, size):
    image = RNG.integers(0, 256, shape, dtype=np.uint8)
    assert crop_box(image, (5, 5, 50, 50), size).image.shape == (size, size, *shape[2:])
    if len(shape) == 3:
        for channel in range(shape[2]):
            np.testing.assert_array_equal(
                crop_box(image, (5, 5, 50, 50), size).image[..., channel],
                crop_box(np.ascontiguousarray(image[..., channel]), (5, 5, 50, 50), size).image,
            )


def test_key_points_of_68_landmarks():
    k = np.arange(68.0)
    landmarks = np.stack([k, 2 * k], axis=-1)
    np.testing.assert_array_equal(key_points(landmarks), [(38.5, 77), (44.5, 89), (48, 96), (54, 108)])


def test_synthetic_faces_are_aligned_by_their_landmarks():
    _, picture = draw(Plan(size=96), "test", np.arange(16))
    goal = template_points(4, 112)
    for image, landmarks in zip(picture.image, picture.landmarks, strict=True):
        moved = key_points(transform_points(landmarks, align_points(image, landmarks, 112).matrix))
        assert np.abs(moved - goal).max() < 7  # no face has the template's proportions
        across, down = moved[1] - moved[0]
        assert abs(down / across) < 0.1


def test_a_mirrored_picture_gives_the_mirrored_crop():
    image = cv2.GaussianBlur(RNG.integers(0, 256, (200, 200, 3), dtype=np.uint8), (0, 0), 2)
    points = np.array([(80.0, 90), (122, 85), (104, 118), (90, 140), (120, 136)])
    mirrored = (points * (-1, 1) + (199, 0))[[1, 0, 2, 4, 3]]
    for count in (2, 5):
        one = align_points(image, points[:count], 64).image
        other = align_points(np.ascontiguousarray(image[:, ::-1]), mirrored[:count], 64).image
        assert np.abs(one[:, ::-1].astype(int) - other).max() <= 3


def test_bad_points_and_boxes():
    image = np.zeros((40, 40), np.uint8)
    with pytest.raises(UserError, match="not finite"):
        align_points(image, np.full((5, 2), np.nan), 32)
    for count in (2, 5, 68):
        with pytest.raises(UserError, match="one spot"):
            align_points(image, np.full((count, 2), 12.0), 32)
    for wrong in (np.zeros((3, 2)), np.zeros((68, 3)), np.zeros(10), np.zeros((1, 68, 2))):
        with pytest.raises(ValueError, match="expected points"):
            align_points(image, wrong, 32)
    for box in ((0, 0, 0, 5), (0, 0, 5, -1), (0, np.nan, 5, 5), (1, 2, 3), (1, 2, 3, 4, 5)):
        with pytest.raises(UserError, match="not a face box"):
            crop_box(image, box, 32)
    for box in ((40, 0, 5, 5), (0, -6, 5, 5)):
        with pytest.raises(UserError, match="outside its picture of 40x40"):
            crop_box(image, box, 32)
