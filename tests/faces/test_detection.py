"""Detectors: YuNet's rows, choosing a face, what is missing, images of every kind."""

import concurrent.futures
import pickle

import cv2
import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.faces import detection
from fer_jax.faces.alignment import key_points
from fer_jax.faces.detection import Face, Haar, YuNet, choose, distance, faces_of_rows, overlap
from tfds_builders.synthetic_faces.examples import draw
from tfds_builders.synthetic_faces.plan import Plan


@pytest.fixture(scope="module")
def haar():
    return Haar()


@pytest.fixture(scope="module")
def drawn():
    _, picture = draw(Plan(size=96), "test", np.arange(6))
    return picture


def photo_of(face, height=150, width=180, at=(20, 50)):
    image = np.full((height, width, 3), 90, np.uint8)
    image[at[0] : at[0] + len(face), at[1] : at[1] + face.shape[1]] = face
    return image


def test_rows_of_yunet():
    """x y w h, right eye, left eye, nose, right and left corner of the mouth, score; in a picture shrunk by half."""
    low = [10, 20, 30, 40, 15, 30, 32, 31, 23, 40, 16, 50, 31, 51, 0.8]
    high = [100, 0, 20, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0.9]
    empty = [5, 5, 0, 9, *range(10), 0.99]
    broken = [5, 5, 9, 9, *range(9), np.nan, 0.99]
    faces = faces_of_rows(np.array([low, high, empty, broken], np.float32), scale=0.5)
    assert [face.score for face in faces] == pytest.approx([0.9, 0.8])
    assert faces[1].box == (20, 40, 60, 80)
    # The middle of pixel 15 is 15.5 from the edge: 31 in the large picture, the middle of pixel 30.5.
    np.testing.assert_allclose(
        faces[1].points, [(30.5, 60.5), (64.5, 62.5), (46.5, 80.5), (32.5, 100.5), (62.5, 102.5)]
    )
    assert faces_of_rows(None) == []


def test_yunet_asks_its_network_in_its_own_way(tmp_path, monkeypatch):
    """A made-up network: it must see BGR, told its size, and reduced where the picture is large."""
    seen = []

    class Network:
        def setInputSize(self, size):
            self.size = size

        def detect(self, image):
            assert image.shape == (*self.size[::-1], 3)
            seen.append(image)
            return 1, np.array([[1, 2, 3, 4, *range(10), 0.9]], np.float32)

    class Factory:
        @staticmethod
        def create(path, config, size, score_threshold):
            assert path.endswith("yunet.onnx")
            assert score_threshold == 0.7
            return Network()

    (tmp_path / "yunet.onnx").write_bytes(b"made up")
    monkeypatch.setattr(cv2, "FaceDetectorYN", Factory)
    yunet = YuNet(tmp_path / "yunet.onnx")
    image = np.zeros((256, 128, 3), np.uint8)
    image[..., 0] = 7  # red
    (face,) = yunet(image)
    assert face.box == (1, 2, 3, 4)
    assert (seen[-1] == (0, 0, 7)).all()
    (face,) = yunet(image[:128, :64])  # a small picture is enlarged
    assert seen[-1].shape == (256, 128, 3)
    assert face.box == (0.5, 1, 1.5, 2)
    (face,) = yunet(np.full((2560, 100), 5, np.uint8))
    assert seen[-1].shape == (1280, 50, 3)
    assert (seen[-1] == 5).all()
    assert face.box == (2, 4, 6, 8)


def test_a_missing_or_wrong_network(tmp_path):
    with pytest.raises(UserError, match="no such file; give the face_detection_yunet"):
        YuNet(tmp_path / "absent.onnx")
    (tmp_path / "wrong.onnx").write_bytes(b"no network" * 100)
    with pytest.raises(UserError, match=r"wrong\.onnx is not YuNet"):
        YuNet(tmp_path / "wrong.onnx")
    with pytest.raises(UserError, match="no such file"):
        YuNet(tmp_path)  # a folder


def test_cascades_that_are_missing_or_damaged(tmp_path, monkeypatch):
    monkeypatch.setattr("cv2.data.haarcascades", str(tmp_path))
    with pytest.raises(UserError, match=r"without the cascade .*pip install 'opencv-python-headless>=4.11,<5'"):
        Haar()
    (tmp_path / detection.FACE_CASCADE).write_text("<opencv_storage></opencv_storage>")
    with pytest.raises(UserError, match="is damaged"):
        Haar()


def test_eyes_are_found_where_the_landmarks_say(haar, drawn):
    errors, found = [], 0
    for image, landmarks in zip(drawn.image, drawn.landmarks, strict=True):
        face = choose(haar(photo_of(image)))
        if face is None or face.points is None:
            continue
        found += 1
        eyes = key_points(landmarks)[:2] + np.array((50, 20))
        errors.append(np.abs(face.points - eyes).max())
    assert found >= 4
    assert np.median(errors) < 3  # pixels, of about 25 between the eyes


def test_a_picture_without_a_face(haar):
    assert haar(np.zeros((100, 100, 3), np.uint8)) == []
    for shape in ((1, 1), (3, 500), (500, 2, 3), (23, 23, 1)):
        assert haar(np.full(shape, 128, np.uint8)) == []


def test_gray_and_color_agree(haar, drawn):
    gray = cv2.cvtColor(photo_of(drawn.image[0]), cv2.COLOR_RGB2GRAY)
    two, three, rgb = haar(gray), haar(gray[..., None]), haar(np.repeat(gray[..., None], 3, axis=2))
    assert two
    for other in (three, rgb):
        assert [face.box for face in other] == [face.box for face in two]


def test_a_large_picture_is_searched_reduced(haar, drawn):
    image = photo_of(drawn.image[0])
    (small,) = haar(image)
    (large,) = haar(cv2.resize(image, None, fx=8, fy=8, interpolation=cv2.INTER_CUBIC))
    assert overlap(np.array(large.box) / 8, small.box) > 0.8
    assert np.abs((large.points + 0.5) / 8 - 0.5 - small.points).max() < 3


@pytest.mark.parametrize("side", [40, 128])
def test_a_face_that_fills_its_picture(haar, drawn, side):
    """As in FER-2013: no window of the cascade fits around it, until the picture has a border."""
    found = 0
    for image, landmarks in zip(drawn.image[:4], drawn.landmarks, strict=False):
        (left, top), (right, _) = landmarks[:17].min(axis=0), landmarks[:17].max(axis=0)
        width = right - left
        x, y = max(int(left), 0), max(int(top - 0.15 * width), 0)
        tight = image[y : y + int(width), x : x + int(width)]
        faces = haar(cv2.resize(tight, (side, side), interpolation=cv2.INTER_AREA))
        found += any(face.box[2] > 0.6 * side for face in faces)
    assert found >= 3


def test_a_detector_serves_several_threads(haar, drawn):
    images = [photo_of(image) for image in drawn.image[:4]]
    once = [[face.box for face in haar(image)] for image in images]
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        assert [[face.box for face in faces] for faces in pool.map(haar, images)] == once


def test_a_detector_travels_to_other_processes(haar, drawn):
    image = photo_of(drawn.image[0])
    twin = pickle.loads(pickle.dumps(haar))
    assert [face.box for face in twin(image)] == [face.box for face in haar(image)] != []


def test_which_face():
    small, large, far = Face((0, 0, 10, 10), 9.0), Face((20, 0, 30, 30), 1.0), Face((80, 80, 12, 12), 5.0)
    faces = [small, large, far]
    assert choose([]) is None
    assert choose([small, Face((20, 0, 30, 30), 5.0), far]).score == 5
    assert choose(faces) is far  # the largest is doubtful
    assert choose([small, Face(large.box, 1.0, np.zeros((2, 2)))]).box == large.box  # but not with eyes
    assert choose([large]) is large
    assert choose(faces, near=(2, 0, 10, 10)) is small


def test_overlap_and_distance():
    assert overlap((0, 0, 10, 10), (5, 0, 10, 10)) == pytest.approx(1 / 3)
    assert overlap((0, 0, 10, 10), (0, 0, 10, 10)) == 1
    assert overlap((0, 0, 10, 10), (10, 0, 10, 10)) == 0
    assert overlap((0, 0, 10, 10), (-30, -30, 10, 10)) == 0
    assert distance((0, 0, 10, 10), (3, 0, 10, 18)) == 5


def test_yunet_finds_faces_that_fill_small_pictures(real_data):
    """FER-2013's crops of 48 pixels: 96 % of them, where a network that sees them as they are finds 72 %."""
    packed = np.load(real_data / "fer2013_unique_png.npz")
    sheet = cv2.imdecode(packed["png"][: packed["offset"][1]], cv2.IMREAD_GRAYSCALE)
    faces = sheet.reshape(len(sheet) // 48, 48, -1, 48).swapaxes(1, 2).reshape(-1, 48, 48)[:60]
    yunet = YuNet(real_data / "yunet" / "face_detection_yunet_2023mar.onnx")
    assert np.mean([bool(yunet(face)) for face in faces]) >= 0.9


def test_without_yunet_the_cascades_are_used_and_that_is_said(monkeypatch, capsys):
    def offline(file):
        raise UserError(f"{file.name} could not be fetched")

    monkeypatch.setattr(detection, "fetch", offline)
    best = detection.best_detector.__wrapped__  # nothing of this test is kept
    assert isinstance(best(), Haar)
    assert "24 of 33 faces" in capsys.readouterr().err
    monkeypatch.setattr(detection, "FACE_CASCADE", "absent.xml")  # as in OpenCV 5
    with pytest.raises(UserError, match="could not be fetched"):
        best()
