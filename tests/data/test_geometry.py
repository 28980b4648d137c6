"""Affine sampling: exact where it should be, and equal to OpenCV and SciPy where it interpolates."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from fer_jax.data.augment import geometry

SIZE = 17


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 2)).astype(np.float32)


def about_middle(linear, shift=(0.0, 0.0), size=SIZE):
    center = jnp.array([(size - 1) / 2, (size - 1) / 2]) + jnp.array(shift)
    return geometry.around(jnp.asarray(linear, jnp.float32), center, size, size)


@pytest.mark.parametrize("pad", ["zero", "edge", "reflect"])
@pytest.mark.parametrize("size", [16, 17, 48])
def test_identity_is_exact(pad, size):
    x = np.random.default_rng(1).integers(0, 256, (size, size, 1)).astype(np.float32)
    matrix = about_middle(np.eye(2), size=size)
    np.testing.assert_array_equal(geometry.sample(jnp.asarray(x), matrix, size, pad), x)


def test_flip_is_exact(image):
    matrix = about_middle([[-1, 0], [0, 1]])
    np.testing.assert_array_equal(geometry.sample(jnp.asarray(image), matrix, SIZE), image[:, ::-1])


@pytest.mark.parametrize("pad", ["zero", "edge", "reflect"])
def test_whole_pixel_shift_is_exact(image, pad):
    mode = {"zero": "constant", "edge": "edge", "reflect": "reflect"}[pad]
    padded = np.pad(image, ((5, 5), (5, 5), (0, 0)), mode=mode)
    matrix = about_middle(np.eye(2), shift=(3.0, -4.0))
    expected = padded[5 - 4 : 5 - 4 + SIZE, 5 + 3 : 5 + 3 + SIZE]
    np.testing.assert_array_equal(geometry.sample(jnp.asarray(image), matrix, SIZE, pad), expected)


@pytest.mark.parametrize("quarters", [1, 2, 3, -1])
def test_quarter_turns(image, quarters):
    matrix = about_middle(geometry.rotation(jnp.float32(90 * quarters)))
    turned = geometry.sample(jnp.asarray(image), matrix, SIZE)
    np.testing.assert_allclose(turned, np.rot90(image, quarters), atol=1e-2)  # of 255: 4e-5


@pytest.fixture(scope="module")
def oblique():
    linear = geometry.product(geometry.rotation(jnp.float32(20)), geometry.shear(jnp.float32(8))) * 0.9
    return about_middle(linear, shift=(1.3, -2.1))


def test_equals_opencv(image, oblique):
    """OpenCV rounds positions to 1/32 pixel: it agrees on a smooth image, to a gray level or so."""
    smooth = cv2.GaussianBlur(image, (0, 0), 2)
    expected = cv2.warpAffine(
        smooth,
        np.asarray(oblique),
        (SIZE, SIZE),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    ours = geometry.sample(jnp.asarray(smooth), oblique, SIZE, "reflect")
    np.testing.assert_allclose(ours, expected, atol=1.0)


@pytest.mark.parametrize(("pad", "mode"), [("zero", "grid-constant"), ("edge", "nearest"), ("reflect", "mirror")])
def test_equals_scipy(image, oblique, pad, mode):
    (a, b, x), (c, d, y) = np.asarray(oblique)
    expected = [ndimage.affine_transform(image[..., k], [[d, c], [b, a]], (y, x), order=1, mode=mode) for k in range(2)]
    ours = geometry.sample(jnp.asarray(image), oblique, SIZE, pad)
    np.testing.assert_allclose(ours, np.stack(expected, axis=-1), atol=5e-3)  # of 255: 2e-5


def test_rotation_turns_counter_clockwise_as_seen():
    x = np.zeros((SIZE, SIZE, 1), np.float32)
    x[SIZE // 2, -2] = 1  # to the right
    turned = geometry.sample(jnp.asarray(x), about_middle(geometry.rotation(jnp.float32(30))), SIZE)
    row, _ = np.unravel_index(np.argmax(turned[..., 0]), (SIZE, SIZE))
    assert row < SIZE // 2  # is now higher up


def test_a_resized_source_is_read_at_the_same_places():
    """A ramp stays the same ramp when its source is first enlarged."""
    ramp = np.arange(16, dtype=np.float32)[None, :, None] * np.ones((16, 1, 1), np.float32)
    matrix = geometry.around(jnp.eye(2) * 0.5, jnp.array([7.5, 7.5]), 8, 8)
    large = geometry.resize(jnp.asarray(ramp)[None], 64, 64)[0]
    direct = geometry.sample(jnp.asarray(ramp), matrix, 8)
    via = geometry.sample(large, geometry.rescale_source(matrix, 4.0, 4.0), 8)
    np.testing.assert_allclose(via, direct, atol=1e-4)


def test_points_follow_the_picture(oblique):
    """The brightest pixel ends where `move_points` says."""
    points = jnp.array([[5.0, 6.0], [11.0, 9.0]])
    moved = np.asarray(geometry.move_points(oblique, points))
    for point, expected in zip(np.asarray(points), moved, strict=True):
        x, y = np.meshgrid(np.arange(SIZE), np.arange(SIZE))
        blob = np.exp(-((x - point[0]) ** 2 + (y - point[1]) ** 2) / 4)[..., None].astype(np.float32)
        out = np.asarray(geometry.sample(jnp.asarray(blob), oblique, SIZE))[..., 0]
        center = [(out * x).sum() / out.sum(), (out * y).sum() / out.sum()]
        np.testing.assert_allclose(center, expected, atol=0.15)
    back = jnp.concatenate([moved, jnp.ones((2, 1))], axis=1) @ oblique.T
    np.testing.assert_allclose(back, points, atol=1e-4)


def test_resize_smooths_when_shrinking():
    stripes = jnp.tile(jnp.array([0.0, 255.0]), 32)[None, None, :, None] * jnp.ones((1, 64, 1, 1))
    small = jax.jit(lambda x: geometry.resize(x, 16, 16))(stripes)
    assert np.abs(np.asarray(small)[:, :, 2:-2] - 127.5).max() < 20


def test_a_straight_line_stays_straight_under_a_warp():
    matrix = geometry.perspective(jnp.array([[0.1, 0.0], [0.9, 0.05], [1.1, 1.0], [-0.1, 0.9]]), 32, 32)
    line = jnp.stack([jnp.linspace(0, 31, 7), jnp.linspace(5, 25, 7)], axis=1)
    moved = np.asarray(geometry.move_points(matrix, line))
    across = np.linalg.svd(moved - moved.mean(0), compute_uv=False)
    assert across[1] < 1e-4 * across[0]
    back = geometry.move_points(geometry.inverse(matrix), jnp.asarray(moved))
    np.testing.assert_allclose(back, line, atol=1e-3)


def test_a_warp_by_itself_keeps_the_middle_of_a_symmetric_change():
    corners = jnp.array([[0.1, 0.1], [0.9, 0.1], [0.9, 0.9], [0.1, 0.9]])
    matrix = geometry.perspective(corners, 20, 20)
    affine = geometry.around(0.8 * jnp.eye(2), jnp.full(2, 9.5), 20, 20)
    np.testing.assert_allclose(matrix, geometry.projective(affine), atol=1e-5)
    shrunk = geometry.rescale_source(geometry.projective(affine), 0.5, 0.5)
    np.testing.assert_allclose(shrunk[:2], geometry.rescale_source(affine, 0.5, 0.5), atol=1e-6)
