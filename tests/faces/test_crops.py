"""Faces of a real photograph and of clips: found, aligned alike however the picture is turned; every frame kept."""

import itertools
import subprocess
import sys

import cv2
import numpy as np
import pytest

from fer_jax.faces import crops as faces
from fer_jax.faces.alignment import align_points, crop_box, template_points, transform_points
from fer_jax.faces.crops import BOX_RISE, crop_face, faces_of_clip
from fer_jax.faces.detection import Face, Haar

TOP, BOTTOM, LEFT, RIGHT = 0, 240, 100, 350  # of the photograph: head and shoulders
PUPILS = np.array([(203.0, 101.0), (246.5, 103.3)]) - (LEFT, TOP)  # read off by eye
SIZE = 112
OFF = 3  # pixels of the crop, by which eyes may miss the template: the distance between them is 35
UNLIKE = 19  # gray levels by which crops differ when the eyes of one lie 2 pixels off; where it is not aligned, over 30


@pytest.fixture(scope="module")
def photo(real_data):
    path = real_data / "astronaut.png"
    if not path.exists():
        pytest.skip(f"needs the photograph {path}")
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)[TOP:BOTTOM, LEFT:RIGHT].copy()


@pytest.fixture(scope="module")
def haar():
    return Haar()


@pytest.fixture(scope="module")
def upright(photo, haar):
    return crop_face(photo, *haar(photo), SIZE).image


def moved(photo, matrix):
    """The photograph and its pupils under an affine map."""
    matrix = np.asarray(matrix, np.float64)
    image = cv2.warpAffine(photo, matrix, photo.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)
    return image, transform_points(PUPILS, matrix)


def turn(angle):
    return cv2.getRotationMatrix2D((125, 120), angle, 1)


def off(crop, pupils):
    """By how much the pupils of a crop miss the template, in pixels."""
    return np.abs(transform_points(pupils, crop.matrix) - template_points(2, SIZE)).max()


def difference(one, other):
    """Mean absolute difference of two crops, in gray levels, over the face itself."""
    inner = slice(SIZE // 4, -SIZE // 8)
    return np.abs(one[inner, inner].astype(float) - other[inner, inner]).mean()


def test_the_face_of_the_photograph(real_data, photo, haar):
    whole = cv2.cvtColor(cv2.imread(str(real_data / "astronaut.png")), cv2.COLOR_BGR2RGB)
    for image, corner in ((whole, (LEFT, TOP)), (photo, (0, 0))):
        (face,) = haar(image)
        x, y, w, h = face.box
        assert np.abs(np.array([x + w / 2, y + h / 2]) - corner - (125, 115)).max() < 12
        assert 80 < w < 120
        assert np.abs(face.points - corner - PUPILS).max() < 3


@pytest.mark.parametrize("angle", [-15, -8, 8, 15])
def test_turned_it_is_found_and_its_eyes_lie_on_the_template(photo, haar, upright, angle):
    image, pupils = moved(photo, turn(angle))
    (face,) = haar(image)
    crop = crop_face(image, face, SIZE)
    assert off(crop, pupils) < OFF
    assert difference(crop.image, upright) < UNLIKE
    assert difference(crop_face(image, Face(face.box, 1.0), SIZE).image, upright) > UNLIKE  # not aligned


@pytest.mark.parametrize("scale", [0.6, 1.7])
def test_scaled_it_gives_the_same_crop(photo, haar, upright, scale):
    image = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    crop = crop_face(image, *haar(image), SIZE)
    assert off(crop, (PUPILS + 0.5) * scale - 0.5) < OFF
    assert difference(crop.image, upright) < UNLIKE


def test_shifted_it_gives_the_same_crop(photo, haar, upright):
    image, pupils = moved(photo, [[1, 0, -37], [0, 1, 31]])
    crop = crop_face(image, *haar(image), SIZE)
    assert off(crop, pupils) < OFF
    assert difference(crop.image, upright) < UNLIKE


def test_mirrored_it_gives_the_mirrored_crop(photo, haar, upright):
    image = np.ascontiguousarray(photo[:, ::-1])
    crop = crop_face(image, *haar(image), SIZE)
    assert off(crop, (PUPILS * (-1, 1) + (photo.shape[1] - 1, 0))[::-1]) < OFF
    assert difference(crop.image[:, ::-1], upright) < UNLIKE


def test_without_eyes_the_crop_has_the_same_scale(photo, haar):
    (face,) = haar(photo)
    aligned, plain = crop_face(photo, face, SIZE, 0.1), crop_face(photo, Face(face.box, 1.0), SIZE, 0.1)
    ratio = plain.matrix[0, 0] / np.hypot(*aligned.matrix[0, :2])
    assert 0.85 < ratio < 1.18
    x, y, w, h = face.box
    middle = transform_points(np.array([x + (w - 1) / 2, y - BOX_RISE * h + (h - 1) / 2]), plain.matrix)
    np.testing.assert_allclose(middle, (SIZE - 1) / 2)
    higher = crop_face(photo, Face(face.box, 1.0), SIZE, 0.1, rise=0.2)
    np.testing.assert_allclose(higher.matrix[:, 2] - plain.matrix[:, 2], (0, -0.2 * SIZE), atol=1e-9)
    raised = crop_face(photo, face, SIZE, 0.1, rise=0.2)
    np.testing.assert_allclose(raised.matrix[:, 2] - aligned.matrix[:, 2], (0, -0.2 * SIZE), atol=1e-9)
    np.testing.assert_allclose(plain.matrix[:, :2], np.eye(2) * plain.matrix[0, 0])  # upright
    by_box = crop_face(photo, face, SIZE, 0.1, by_box=True)  # whatever its points
    np.testing.assert_array_equal(by_box.image, crop_box(photo, face.box, SIZE, 0.1).image)


def test_five_points_are_aligned_by_least_squares():
    points = template_points(5, 80) + np.array([(3.0, 0), (0, 2), (1, 1), (-2, 0), (0, -1)])
    image = np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8)
    crop = crop_face(image, Face((0, 0, 80, 80), 0.9, points), 64)
    np.testing.assert_array_equal(crop.image, align_points(image, points, 64).image)


# Clips, with a made-up detector: the frame says where its face is.


def frame(place, channels=(3,)):
    """A frame whose first pixel says where a face lies; 0: there is none."""
    image = np.full((60, 200, *channels), 50, np.uint8)
    image[0, 0] = place
    if place:
        image[10:30, place : place + 20] = 200
    return image


def told(image):
    place = int(np.ravel(image[0, 0])[0])
    return [Face((place, 10, 20, 20), 1.0)] if place else []


PLACES = [10, 12, 0, 14, 0, 0, 20, 150, 150, 150, 150, 150, 150, 152]


@pytest.mark.parametrize("channels", [(), (3,)])
def test_every_frame_keeps_its_place_and_time(channels):
    times = 0.04 * np.arange(len(PLACES)) ** 1.5  # of a camera that does not keep time
    clip = ((t, frame(p, channels)) for t, p in zip(times, PLACES, strict=True))
    time, image, mask = (np.stack(field) for field in zip(*faces_of_clip(clip, told, 24), strict=True))
    np.testing.assert_array_equal(time, times)
    assert image.shape == (len(PLACES), 24, 24, *channels)
    # At 150 the face is another one until the first has been away for a fifth of a second.
    np.testing.assert_array_equal(mask, np.array([1, 1, 0, 1, 0, 0, 1, 0, 1, 1, 1, 1, 1, 1], bool))
    for k in (0, 8):  # a track begins with the face as it was detected
        first = frame(PLACES[k], channels)
        np.testing.assert_array_equal(image[k], crop_face(first, *told(first), 24).image)
    assert not image[~mask].any()


@pytest.mark.parametrize("bad", [np.full((2, 2), np.nan), np.full((2, 2), 15.0)])
def test_a_face_with_bad_landmarks_is_no_face(bad):
    """Its frame has none; the frames after it, smoothed with it, have theirs."""
    good = np.array([(15.0, 18), (24, 18)])
    points = iter([good, bad, good, good])
    clip = ((k / 25, frame(10)) for k in range(4))
    followed = [*faces_of_clip(clip, lambda _: [Face((10, 10, 20, 20), 1.0, next(points))], 24)]
    assert [found for _, _, found in followed] == [True, False, True, True]
    assert not followed[1][1].any()
    assert crop_face(frame(10), Face((10, 10, 20, 20), 1.0, bad), 24) is None


def test_a_clip_is_read_as_it_is_asked_for():
    taken = []

    def clip():
        for k in range(100):
            taken.append(k)
            yield k / 25, frame(10)

    followed = faces_of_clip(clip(), told, 16)
    assert taken == []
    next(followed)
    assert taken == [0]


def test_a_clip_of_the_photograph_turning(photo, haar):
    """A head that rolls: every frame is found, and the crops hardly move."""
    turned = [moved(photo, turn(angle))[0] for angle in (-6, -3, 0, 3, 6)]
    _, crops, found = zip(*faces_of_clip(((k / 25, image) for k, image in enumerate(turned)), haar, SIZE), strict=True)
    assert all(found)
    for before, after in itertools.pairwise(crops):
        assert difference(before, after) < UNLIKE


def test_nothing_heavy_is_imported():
    code = (
        "import sys, fer_jax.faces.crops, fer_jax.faces.video;"
        "heavy = {'jax', 'flax', 'av', 'tensorflow', 'scipy', 'PIL', 'matplotlib'};"
        "rooms = {f'fer_jax.{room}' for room in ('methods', 'training', 'data', 'nn')};"
        "assert not (heavy | rooms) & set(sys.modules), (heavy | rooms) & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=faces.__file__.rsplit("/fer_jax/", 1)[0])
